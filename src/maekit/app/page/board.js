// The grid of patches over a picture: hidden or shown, by mouse, pen, finger or keys.

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Board {
  /** changed: called after each change that a person made. */
  constructor(element, changed) {
    this.element = element;
    this.changed = changed;
    this.cells = [];
    this.at = 0;
    this.stroke = null;
    element.setAttribute("role", "grid");
    element.setAttribute("aria-multiselectable", "true");
    element.setAttribute("aria-label", "Patches; the selected ones are hidden");
    element.addEventListener("pointerdown", (event) => this.#begin(event));
    element.addEventListener("pointermove", (event) => this.#go(event));
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => this.#end());
    element.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Rows and columns of units; planes: how often the mask counts each, once a channel with channel tokens. */
  shape(rows, columns, planes, paintable) {
    Object.assign(this, { rows, columns, planes, paintable });
    this.masked = new Uint8Array(rows * columns * planes);
    this.element.setAttribute("aria-disabled", String(!paintable));
    this.cells = [];
    const lines = Array.from({ length: rows }, () => {
      const line = document.createElement("div");
      line.setAttribute("role", "row");
      for (let column = 0; column < columns; column += 1) {
        const cell = document.createElement("div");
        cell.setAttribute("role", "gridcell");
        cell.tabIndex = -1;
        this.cells.push(cell);
        line.append(cell);
      }
      return line;
    });
    this.element.replaceChildren(...lines);
    this.#reach(0);
    this.#draw(this.cells.keys());
  }

  /** Show a mask: 1 hides. */
  set(masked) {
    this.masked = Uint8Array.from(masked);
    this.#draw(this.cells.keys());
  }

  get hidden() {
    return this.masked.reduce((sum, one) => sum + one, 0);
  }

  #state(unit) {
    let hidden = 0;
    for (let plane = 0; plane < this.planes; plane += 1) hidden += this.masked[plane * this.cells.length + unit];
    return hidden === 0 ? "shown" : hidden === this.planes ? "hidden" : "partly hidden";
  }

  #draw(units) {
    for (const unit of units) {
      const state = this.#state(unit);
      const cell = this.cells[unit];
      const place = `row ${Math.floor(unit / this.columns) + 1}, column ${(unit % this.columns) + 1}`;
      cell.setAttribute("aria-selected", String(state === "hidden"));
      cell.setAttribute("aria-label", `${place}: ${state}`);
      cell.classList.toggle("partly", state === "partly hidden");
    }
  }

  #paint(units, hide) {
    if (!this.paintable) return;
    for (const unit of units) {
      for (let plane = 0; plane < this.planes; plane += 1) this.masked[plane * this.cells.length + unit] = hide;
    }
    this.#draw(units);
    this.changed();
  }

  #unitAt(event) {
    const box = this.element.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
    const inside = (value, most) => Math.min(most - 1, Math.max(0, value));
    return [inside(row, this.rows), inside(column, this.columns)];
  }

  #begin(event) {
    if (event.button !== 0 || !this.paintable) return;
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    const [row, column] = this.#unitAt(event);
    const unit = row * this.columns + column;
    this.stroke = { hide: this.#state(unit) === "hidden" ? 0 : 1, row, column };
    this.#reach(unit);
    this.cells[unit].focus({ preventScroll: true });
    this.#paint([unit], this.stroke.hide);
  }

  #go(event) {
    if (!this.stroke) return;
    const [row, column] = this.#unitAt(event);
    const { row: fromRow, column: fromColumn, hide } = this.stroke;
    const steps = Math.max(Math.abs(row - fromRow), Math.abs(column - fromColumn));
    if (!steps) return;
    const units = Array.from({ length: steps }, (_, step) => {
      const share = (step + 1) / steps; // a quick stroke leaves no gap
      const onRow = Math.round(fromRow + (row - fromRow) * share);
      return onRow * this.columns + Math.round(fromColumn + (column - fromColumn) * share);
    });
    Object.assign(this.stroke, { row, column });
    this.#paint(units, hide);
  }

  #end() {
    this.stroke = null;
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const row = Math.floor(this.at / this.columns);
    const column = this.at % this.columns;
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      this.#paint([this.at], this.#state(this.at) === "hidden" ? 0 : 1);
    } else if (event.key in MOVES) {
      event.preventDefault();
      const [down, right] = MOVES[event.key];
      const hide = this.#state(this.at) === "hidden" ? 1 : 0;
      const next = [Math.min(this.rows - 1, Math.max(0, row + down)), Math.min(this.columns - 1, Math.max(0, column + right))];
      this.#reach(next[0] * this.columns + next[1]);
      this.cells[this.at].focus();
      if (event.shiftKey) this.#paint([this.at], hide); // as the one that was left
    } else if (event.key === "Home" || event.key === "End") {
      event.preventDefault();
      this.#reach(row * this.columns + (event.key === "Home" ? 0 : this.columns - 1));
      this.cells[this.at].focus();
    }
  }

  /** The one cell that the tab key leads to. */
  #reach(unit) {
    if (this.cells[this.at]) this.cells[this.at].tabIndex = -1;
    this.at = unit;
    this.cells[unit].tabIndex = 0;
  }
}
