// What is seen, as the part of the address that no server gets to know.

/** Ones and zeros as letters that an address may hold. */
export function packed(masked) {
  const bytes = new Uint8Array(Math.ceil(masked.length / 8));
  masked.forEach((one, place) => { bytes[place >> 3] |= one << (place & 7); });
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The inverse of `packed`; null where it is no mask of so many units. */
export function unpacked(text, length) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
    if (bytes.length !== Math.ceil(length / 8)) return null;
    return Array.from({ length }, (_, place) => (bytes[place >> 3] >> (place & 7)) & 1);
  } catch {
    return null;
  }
}

export function read() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

export function write(values) {
  const words = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== ""));
  history.replaceState(null, "", `#${words.toString().replaceAll("%3A", ":")}`);
}
