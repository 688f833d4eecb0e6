// One of the weights: what it paints, what it takes the picture for, what its features see.

import { make } from "./dom.js";
import { heat, scale } from "./heat.js";

const WORDS = { random: "random", block: "blocks", grid: "grid", one_in_2x2: "one in each 2×2" };

/** A kind of mask in words. */
export function kindInWords(kind) {
  return WORDS[kind] ?? kind;
}

function millions(count) {
  return count >= 1e6 ? `${(count / 1e6).toFixed(count >= 1e7 ? 0 : 1)} M` : `${Math.ceil(count / 1e3)} k`;
}

function compare() {
  const below = make("img", { alt: "reconstruction" });
  const above = make("img", { alt: "" });
  const box = make("div", { class: "compare whole" }, below, above);
  const range = make("input", {
    type: "range", min: 0, max: 100, value: 0, "aria-label": "how much of the original lies over the reconstruction",
  });
  const cut = (share) => {
    range.value = share;
    box.style.setProperty("--cut", `${share}%`);
    box.classList.toggle("whole", Number(share) === 0);
  };
  const point = (event) => {
    const place = box.getBoundingClientRect();
    cut(Math.round(Math.min(100, Math.max(0, ((event.clientX - place.left) / place.width) * 100))));
  };
  range.addEventListener("input", () => cut(range.value));
  box.addEventListener("pointerdown", (event) => {
    box.setPointerCapture(event.pointerId);
    point(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (box.hasPointerCapture(event.pointerId)) point(event);
  });
  return { below, above, box, range };
}

export class Card {
  /** said: what the server says of the weights. saving, choosing: called with what to save, with an image to take. */
  constructor(said, { saving, choosing }) {
    this.said = said;
    this.choosing = choosing;
    this.number = make("span", { class: "quiet number" });
    this.element = make("section", { class: "card", "aria-label": said.name }, this.#title());
    if (said.mask) this.element.append(...this.#painted(saving));
    else this.element.append(make("p", { class: "note" }, said.why_not));
    this.more = make("div", { class: "more" });
    this.element.append(this.more);
    this.small = Math.max(...said.size) < 100;
  }

  #title() {
    const { encoder, parameters, size, channels, classes, mask } = this.said;
    const facts = [encoder, `${millions(parameters)} parameters`, `${size[0]}×${size[1]} px`];
    if (channels !== 3) facts.push(`${channels} channel${channels === 1 ? "" : "s"}`);
    if (classes) facts.push(`${classes} classes`);
    if (mask?.normalised) facts.push("normalised patches");
    return make(
      "div", { class: "title" },
      make("h2", {}, this.said.name), this.number, make("span", { class: "quiet facts" }, facts.join(" · ")),
    );
  }

  #painted(saving) {
    this.slider = compare();
    this.original = make("img", { alt: "original, as the model is shown it" });
    this.masked = make("img", { alt: "what the model sees, hidden patches grey" });
    this.map = make("canvas", { class: "crisp", role: "img" });
    const legend = make("canvas", { "aria-hidden": "true" });
    scale(legend);
    this.most = make("span");
    this.note = make("p", { class: "note" });
    this.other = make("figure", { hidden: true }, make("h3", {}, "In its own patches"), this.masked);
    this.figures = make(
      "div", { class: "figures" },
      make("figure", { class: "compare-figure" }, make("h3", {}, "Reconstruction"), this.slider.box,
        make("div", { class: "ends" }, "painted", this.slider.range, "original")),
      this.other,
      make("figure", {}, make("h3", {}, "Original"), this.original),
      make("figure", {}, make("h3", {}, "Error of each patch"), this.map,
        make("div", { class: "scale" }, "0", legend, this.most)),
    );
    this.command = make("code");
    const details = make("details", {}, make("summary", {}, "The same from the command line"), this.command);
    const button = make("button", { type: "button", onclick: () => saving(this) }, "Save picture");
    this.button = button;
    return [this.figures, this.note, make("div", { class: "row foot" }, details, button)];
  }

  wait(waiting) {
    this.element.setAttribute("aria-busy", String(waiting));
    this.figures?.classList.toggle("waiting", waiting);
  }

  /** Show what was reconstructed; own: whether its patches are those of the board. */
  paint(answer, { statistics, own, seconds }) {
    this.slider.below.src = answer.reconstruction;
    this.slider.above.src = answer.original;
    this.original.src = answer.original;
    this.masked.src = answer.masked;
    this.other.hidden = own;
    this.figures.classList.toggle("four", !own);
    for (const image of [this.slider.below, this.slider.above, this.original, this.masked]) {
      image.classList.toggle("crisp", this.small);
    }
    const errors = answer.errors.flat();
    this.worst = Math.max(1, ...errors);
    this.errors = answer.errors;
    const mean = errors.reduce((sum, one) => sum + one, 0) / errors.length * (answer.units / answer.hidden);
    this.number.textContent = `off by ${mean.toFixed(1)} of 255 where hidden · ${seconds.toFixed(2)} s`;
    this.note.textContent = answer.caption;
    this.note.classList.toggle("leak", Boolean(this.said.mask.normalised) && statistics === "original");
  }

  /** Draw the error map; most: what is brightest, the same for all weights, so that they can be compared. */
  heat(most) {
    if (!this.errors) return;
    heat(this.map, this.errors, most);
    this.most.textContent = `${most.toFixed(0)} of 255`;
    this.map.setAttribute("aria-label", `mean error of each patch, ${this.worst.toFixed(0)} of 255 at most`);
    this.map.style.aspectRatio = `${this.said.size[1]} / ${this.said.size[0]}`;
  }

  /** Say what went wrong in place of an answer. */
  refuse(message) {
    if (this.note) {
      this.note.textContent = message;
      this.note.classList.add("leak");
    }
  }

  /** Show what is told of the whole image: classes, features, neighbours. */
  tell(recognised, features) {
    const parts = [];
    if (recognised) parts.push(this.#bars(recognised.top));
    if (features) {
      const picture = (source, label) => make("img", { src: source, alt: label, class: this.small ? "crisp" : "" });
      const map = make("img", { src: features.colours, class: "crisp", alt: "patch features as colours" });
      parts.push(make("div", {}, make("h3", { title: "The first three principal components of all patches' features, as red, green and blue" },
        "Patch features as colours"),
        make("div", { class: this.said.planes > 1 ? "pair wide" : "pair" }, picture(features.seen, "the image as the encoder is shown it"), map)));
      if (features.nearest.length) parts.push(this.#near(features.nearest));
    }
    this.more.replaceChildren(...parts);
  }

  #bars(top) {
    const line = ({ label, probability }) => {
      const fill = make("i");
      fill.style.setProperty("--share", `${probability * 100}%`);
      return make("li", {}, make("span", {}, label),
        make("span", { class: "amount" }, `${(probability * 100).toFixed(1)}%`), make("div", { class: "bar" }, fill));
    };
    return make("div", {}, make("h3", {}, "Taken for"), make("ul", { class: "bars" }, ...top.map(line)));
  }

  #near(nearest) {
    const one = ({ image, name, similarity }) => make(
      "button", { type: "button", title: name, onclick: () => this.choosing(image) },
      make("img", { src: `/api/thumbnails/${image}`, alt: name }), `${similarity.toFixed(3)}`,
    );
    return make("div", {}, make("h3", { title: "By the cosine of their features" }, "Nearest in the gallery"),
      make("div", { class: "near" }, ...nearest.map(one)));
  }
}
