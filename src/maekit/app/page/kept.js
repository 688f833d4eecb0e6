// Pictures that a person asked this browser to keep, so that links to them work here. The server keeps none.

const MOST = 20;

function opened() {
  return new Promise((done, failed) => {
    const request = indexedDB.open("maekit", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("pictures");
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
}

async function within(mode, work) {
  const database = await opened();
  try {
    return await new Promise((done, failed) => {
      const request = work(database.transaction("pictures", mode).objectStore("pictures"));
      request.onsuccess = () => done(request.result);
      request.onerror = () => failed(request.error);
    });
  } finally {
    database.close();
  }
}

/** The picture of that hash, or null. */
export async function find(name) {
  try {
    return (await within("readonly", (store) => store.get(name))) ?? null;
  } catch {
    return null; // a private window has no such place
  }
}

export async function keep(name, blob) {
  const names = await within("readonly", (store) => store.getAllKeys());
  if (names.length >= MOST) await within("readwrite", (store) => store.delete(names[0]));
  await within("readwrite", (store) => store.put(blob, name));
}

export async function forget(name) {
  await within("readwrite", (store) => store.delete(name));
}
