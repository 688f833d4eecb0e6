// Pictures that are pasted, or dropped anywhere on the page.

/** take: what becomes of a file. shade: what is shown while one is held over the page. */
export function given(take, shade) {
  window.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) take(file);
  });
  let over = 0;
  window.addEventListener("dragenter", (event) => {
    event.preventDefault();
    over += 1;
    shade.hidden = false;
  });
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("dragleave", () => {
    over -= 1;
    shade.hidden = over > 0;
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    over = 0;
    shade.hidden = true;
    take(event.dataTransfer.files[0]);
  });
}
