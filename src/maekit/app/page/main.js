// The page: what is chosen, what is hidden, and what the models answer.

import { ask, latest, look, Said, upload } from "./api.js";
import { Board } from "./board.js";
import { Card, kindInWords } from "./card.js";
import { make, save } from "./dom.js";
import { given } from "./given.js";
import * as kept from "./kept.js";
import * as link from "./link.js";

const part = (name) => document.getElementById(name);
const TYPES = ["image/jpeg", "image/png", "image/webp"];

const now = { image: null, blob: null, kind: "random", ratio: 0.75, seed: 0, painted: false, statistics: "visible", bands: [] };
let about, cards, first, board;

// Words

function problem(message) {
  part("problem").textContent = message;
  part("problem").hidden = !message;
}

function tell(message) {
  part("said").textContent = message;
}

/** Run what may be refused, and say on the page why it was. */
async function trying(work) {
  try {
    const value = await work();
    problem("");
    return value;
  } catch (error) {
    problem(error instanceof Said ? error.message : `the page failed: ${error.message}`);
    if (!(error instanceof Said)) console.error(error);
    return null;
  }
}

/** Ask of an image; what the server no longer holds is sent again. */
async function askOf(path, words) {
  try {
    return await ask(path, words);
  } catch (error) {
    if (!(error instanceof Said && error.unknown && now.blob)) throw error;
    await upload(now.blob);
    return ask(path, words);
  }
}

const bandsFor = (said) => (said.channels > 3 ? now.bands.filter((band) => band < said.channels) : []);
const seen = (number) => {
  const bands = bandsFor(about.weights[number]);
  return { weights: number, image: now.image, bands: bands.length === 3 ? bands : [] };
};

// Pictures

async function choose(image, blob = null) {
  Object.assign(now, { image, blob });
  part("missing").hidden = true;
  for (const one of part("images").children) {
    one.setAttribute("aria-checked", String(one.dataset.image === image));
    if (one.dataset.image === image) one.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  part("keeping").hidden = !blob;
  if (blob) part("keep").checked = (await kept.find(image)) !== null;
  await trying(showUnder);
  remember();
  await Promise.all([paint(), recognise()]);
}

async function showUnder() {
  part("under").src = (await askOf("/api/original", seen(Math.max(0, first)))).picture;
  part("under").classList.toggle("crisp", Math.max(...about.weights[Math.max(0, first)].size) < 100);
}

async function take(file) {
  if (!file) return;
  if (file.size > about.most_uploaded) {
    problem(`${file.name || "the picture"} is too large: a picture may have ${about.most_uploaded / 1e6} MB`);
    return;
  }
  const image = await trying(() => upload(file));
  if (image) await choose(image, file);
}

// Masks

const draw = latest(async () => {
  now.painted = false;
  const { kind, ratio, seed } = now;
  const answer = await trying(() => ask("/api/mask", { weights: first, kind, ratio, seed }));
  if (!answer) return;
  board.set(Array.from(answer.masked, Number));
  await changed();
});

async function changed() {
  const share = board.hidden / board.masked.length;
  part("share").textContent = `${Math.round(share * 100)}%`;
  if (now.painted) part("ratio").value = Math.round(share * 100);
  part("kind").value = now.painted ? "painted" : now.kind;
  part("ratio").disabled = !now.painted && now.kind === "one_in_2x2";
  tell(`${board.hidden} of ${board.masked.length} patches hidden`);
  remember();
  await paint();
}

function remember() {
  const painted = now.painted ? { bits: link.packed(board.masked) } : { seed: now.seed, ratio: now.ratio };
  const mask = first < 0 ? {} : { mask: now.painted ? "painted" : now.kind, ...painted };
  const statistics = part("statistics").hidden ? undefined : now.statistics;
  link.write({ image: now.image ?? link.read().image, ...mask, statistics, bands: now.bands.join(",") });
}

// Answers

function masked(number) {
  const { grid, planes } = about.weights[first].mask;
  return { ...seen(number), masked: board.masked.join(""), grid, planes, statistics: now.statistics };
}

const paint = latest(async () => {
  if (first < 0 || !now.image) return;
  if (!board.hidden || board.hidden === board.masked.length) {
    tell(board.hidden ? "everything is hidden: show some patches" : "nothing is hidden: draw over some patches");
    return;
  }
  const painters = cards.filter((card) => card.said.mask);
  for (const card of painters) card.wait(true);
  for (const card of painters) {
    const began = performance.now();
    try {
      const answer = await askOf("/api/reconstruct", masked(card.place));
      const own = String(card.said.mask.grid) === String(about.weights[first].mask.grid);
      card.paint(answer, { statistics: now.statistics, own, seconds: (performance.now() - began) / 1000 });
      card.command.textContent = command(card);
    } catch (error) {
      if (!(error instanceof Said)) throw error;
      card.refuse(error.message);
    }
    card.wait(false);
  }
  const most = Math.max(...painters.map((card) => card.worst ?? 1));
  for (const card of painters) card.heat(most);
});

const recognise = latest(async () => {
  for (const card of cards) {
    const words = seen(card.place);
    await trying(async () => {
      const recognised = card.said.classes ? await askOf("/api/recognise", words) : null;
      card.tell(recognised, await askOf("/api/features", words));
    });
  }
});

/** A word as a shell takes it. */
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function command(card) {
  const { normalised, ratio, kind } = card.said.mask;
  const words = ["maekit reconstruct IMAGE --weights", quoted(card.said.name), "--out picture.png"];
  if (now.painted || now.kind !== kind) words.push("--mask mask.png");
  else words.push(now.ratio === ratio ? "" : `--mask-ratio ${now.ratio}`, now.seed ? `--seed ${now.seed}` : "");
  if (normalised && now.statistics === "original") words.push("--statistics original");
  return words.filter(Boolean).join(" ");
}

async function savePicture(card) {
  const blob = await trying(() => askOf("/api/picture", { ...masked(card.place), bands: [] }));
  if (blob) save(blob, "reconstruction.png");
}

function saveMask() {
  const { rows, columns, masked: units } = board;
  const canvas = make("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  for (let unit = 0; unit < rows * columns; unit += 1) {
    context.fillStyle = units[unit] ? "white" : "black";
    context.fillRect(unit % columns, Math.floor(unit / columns), 1, 1);
  }
  canvas.toBlob((blob) => save(blob, "mask.png"));
}

async function copyLink() {
  const gone = now.blob && !part("keep").checked;
  try {
    await navigator.clipboard.writeText(location.href);
    tell(gone ? "Copied: the mask, not your picture, which left no trace. Keep it in this browser to have it back." : "Copied.");
  } catch {
    tell("The address of this page is the link.");
  }
}

// The beginning

function showImages() {
  const one = ({ image, name }) => make(
    "button", { type: "button", role: "radio", "aria-checked": "false", "data-image": image, title: name, onclick: () => choose(image) },
    make("img", { src: `/api/thumbnails/${image}`, alt: name }),
  );
  part("images").replaceChildren(...about.images.map(one));
}

function showBands() {
  const channels = Math.max(...about.weights.map((said) => said.channels));
  if (channels <= 3) return;
  now.bands = [0, 1, 2];
  const one = (colour, place) => {
    const options = Array.from({ length: channels }, (_, channel) => make("option", { value: channel }, String(channel)));
    const select = make("select", { onchange: () => {
      now.bands[place] = Number(select.value);
      choose(now.image, now.blob);
    } }, ...options);
    select.value = now.bands[place];
    return make("label", {}, `${colour} `, select);
  };
  part("bands").replaceChildren("Channels shown as", ...["red", "green", "blue"].map(one));
  part("bands").hidden = false;
}

function showMasking() {
  if (first < 0) {
    part("masking").hidden = true;
    return;
  }
  const mask = about.weights[first].mask;
  Object.assign(now, { kind: mask.kind, ratio: mask.ratio });
  board.shape(...mask.grid, mask.planes, mask.paintable);
  const kinds = mask.kinds.map((kind) => make("option", { value: kind }, kindInWords(kind)));
  part("kind").replaceChildren(...kinds, ...(mask.paintable ? [make("option", { value: "painted" }, "painted by hand")] : []));
  if (!mask.paintable) {
    part("how").textContent = "This encoder takes its own kind of mask alone, which cannot be painted.";
    for (const name of ["clear", "invert", "save-mask"]) part(name).disabled = true;
  }
  part("statistics").hidden = !about.weights.some((said) => said.mask?.normalised);
}

function showValues() {
  part("ratio").value = Math.round(now.ratio * 100);
  part("seed").value = now.seed;
  part("kind").value = now.painted ? "painted" : now.kind;
  for (const one of document.getElementsByName("statistics")) one.checked = one.value === now.statistics;
}

function listen() {
  part("file").addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = "";
  });
  part("keep").addEventListener("change", (event) =>
    trying(() => (event.target.checked ? kept.keep(now.image, now.blob) : kept.forget(now.image))));
  part("kind").addEventListener("change", (event) => {
    if (event.target.value === "painted") {
      now.painted = true;
      changed();
    } else {
      now.kind = event.target.value;
      draw();
    }
  });
  part("ratio").addEventListener("input", (event) => {
    now.ratio = Number(event.target.value) / 100;
    part("share").textContent = `${event.target.value}%`;
    draw();
  });
  const sow = (seed) => {
    now.seed = Math.min(999999999, Math.max(0, Math.trunc(seed) || 0));
    part("seed").value = now.seed;
    draw();
  };
  part("seed").addEventListener("change", (event) => sow(Number(event.target.value)));
  part("another").addEventListener("click", () => sow(now.seed + 1));
  part("statistics").addEventListener("change", (event) => {
    now.statistics = event.target.value;
    remember();
    paint();
  });
  const all = (masked) => {
    now.painted = true;
    board.set(masked);
    changed();
  };
  part("clear").addEventListener("click", () => all(board.masked.map(() => 0)));
  part("invert").addEventListener("click", () => all(board.masked.map((one) => 1 - one)));
  part("save-mask").addEventListener("click", saveMask);
  part("link").addEventListener("click", copyLink);
  window.addEventListener("hashchange", () => trying(restore));
  given(take, part("drop"));
}

/** What the address says, else the first picture and the mask of pretraining. */
async function restore() {
  const said = link.read();
  const number = (text, otherwise) => (text !== undefined && Number.isFinite(Number(text)) ? Number(text) : otherwise);
  if (["visible", "original"].includes(said.statistics)) now.statistics = said.statistics;
  if (said.bands && now.bands.length) now.bands = said.bands.split(",").map(Number);
  now.seed = number(said.seed, now.seed);
  now.ratio = Math.min(0.99, Math.max(0.01, number(said.ratio, now.ratio)));
  let image = said.image ?? about.images[0].image;
  let blob = null;
  if (!image.includes(":")) {
    blob = await kept.find(image);
    if (blob) image = await upload(blob);
    part("missing").hidden = blob !== null;
  }
  if (first >= 0) {
    const painted = said.mask === "painted" ? link.unpacked(said.bits ?? "", board.masked.length) : null;
    now.painted = painted !== null && about.weights[first].mask.paintable;
    if (about.weights[first].mask.kinds.includes(said.mask)) now.kind = said.mask;
    if (now.painted) board.set(painted);
  }
  showValues();
  if (image.includes(":") || blob) await choose(image, blob);
  if (first >= 0) await (now.painted ? changed() : draw());
}

async function begin() {
  about = await look("/api/about");
  first = about.weights.findIndex((said) => said.mask);
  cards = about.weights.map((said, place) => Object.assign(new Card(said, { saving: savePicture, choosing: choose }), { place }));
  part("cards").replaceChildren(...cards.map((card) => card.element));
  board = new Board(part("board"), () => {
    now.painted = true;
    changed();
  });
  showImages();
  showBands();
  showMasking();
  listen();
  await restore();
  document.body.dataset.ready = "";
}

trying(begin);
