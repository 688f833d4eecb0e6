// Questions to the server, on the machine that this page came from.

/** What the server said in place of an answer. */
export class Said extends Error {
  constructor(message, status, unknown) {
    super(message);
    this.status = status;
    this.unknown = unknown;
  }
}

const BUSY = 503;
const TRIES = 4;

async function answered(response) {
  if (response.ok) return response;
  let said = {};
  try {
    said = await response.json();
  } catch {
    // no words of ours, such as those of a proxy
  }
  throw new Said(said.message ?? `the server answered ${response.status}`, response.status, Boolean(said.unknown));
}

async function fetched(path, options) {
  for (let tries = 1; ; tries += 1) {
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      throw new Said("the server does not answer; is `maekit app` still running?", 0, false);
    }
    if (response.status !== BUSY || tries === TRIES) return answered(response);
    await new Promise((done) => setTimeout(done, 400 * tries));
  }
}

/** GET, as JSON. */
export async function look(path) {
  return (await fetched(path)).json();
}

/** POST of words, as JSON or, of a picture, as a Blob. */
export async function ask(path, words) {
  const response = await fetched(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(words),
  });
  return response.headers.get("content-type").startsWith("image/") ? response.blob() : response.json();
}

/** POST of a picture; its name there. */
export async function upload(blob) {
  const response = await fetched("/api/images", { method: "POST", body: blob });
  return (await response.json()).image;
}

/** A function that runs `work` once at a time: of the calls that come meanwhile, only the last one is heeded. */
export function latest(work) {
  let running = false;
  let next = null;
  return async function call(...given) {
    next = given;
    if (running) return;
    running = true;
    try {
      while (next) {
        const now = next;
        next = null;
        await work(...now);
      }
    } finally {
      running = false;
    }
  };
}
