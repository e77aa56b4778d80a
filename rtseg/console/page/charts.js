// Lines over the last minutes. Each has its value in words beside it, so that no chart is needed to know it.

import { fit, h, say } from "./dom.js";

/** @typedef {{name: string, color: string, dash?: number[], values: (number | null)[], unit: string, digits?: number}} Line */

/** The colours of lines that are no objects: apart in brightness too, and dashed differently. */
export const INKS = [
  { color: "#7cc7ff", dash: [] }, { color: "#ffd166", dash: [6, 3] }, { color: "#c9d3dc", dash: [2, 2] },
  { color: "#ff9ecf", dash: [9, 3, 2, 3] }, { color: "#9be37f", dash: [4, 4] }, { color: "#b9a4ff", dash: [12, 4] },
];

export class Chart {
  /**
   * @param {string} title
   * @param {string} note what the lines are, for whoever reads it for the first time
   */
  constructor(title, note) {
    this.canvas = h("canvas", { class: "chart", "aria-hidden": "true" });
    this.legend = h("ul", { class: "legend" });
    this.scale = h("span", { class: "scale" });
    this.element = h("section", { class: "card" }, h("h3", {}, title, this.scale), this.canvas, this.legend, h("p", { class: "note" }, note));
  }

  /**
   * @param {number[]} atMs when each value was
   * @param {Line[]} lines
   * @param {number} [top] of the scale; without it, the largest value
   * @param {number} [mark] where a line across stands
   */
  draw(atMs, lines, top, mark) {
    const box = this.canvas.getBoundingClientRect();
    if (!box.width) return;
    const { context, scale } = fit(this.canvas, box.width, box.height);
    const [width, height] = [this.canvas.width, this.canvas.height];
    const values = lines.flatMap((line) => line.values.filter((value) => value !== null));
    const most = top ?? nice(Math.max(mark ?? 0, ...values, 1e-3));
    const [from, to] = [atMs[0] ?? 0, atMs.at(-1) ?? 1];
    const span = Math.max(to - from, 30_000);
    context.clearRect(0, 0, width, height);
    context.lineWidth = scale;
    context.strokeStyle = "#2a333c";
    for (const y of [0, 0.5, 1]) {
      context.beginPath();
      context.moveTo(0, Math.round(y * (height - scale)) + scale / 2);
      context.lineTo(width, Math.round(y * (height - scale)) + scale / 2);
      context.stroke();
    }
    const toY = (/** @type {number} */ value) => height - (Math.min(value, most) / most) * (height - 2 * scale) - scale;
    if (mark !== undefined) {
      context.strokeStyle = "#7d8b97";
      context.setLineDash([scale, 3 * scale]);
      context.beginPath();
      context.moveTo(0, toY(mark));
      context.lineTo(width, toY(mark));
      context.stroke();
    }
    for (const line of lines) {
      context.strokeStyle = line.color;
      context.lineWidth = 2 * scale;
      context.setLineDash((line.dash ?? []).map((n) => n * scale));
      context.beginPath();
      let drawing = false;
      line.values.forEach((value, i) => {
        if (value === null) drawing = false;
        else {
          const x = width - ((to - atMs[i]) / span) * width;
          if (drawing) context.lineTo(x, toY(value));
          else context.moveTo(x, toY(value));
          drawing = true;
        }
      });
      context.stroke();
    }
    context.setLineDash([]);
    const unit = lines[0]?.unit ?? "";
    say(this.scale, `0 – ${most.toLocaleString("en")} ${unit}, ${Math.round(span / 1000)} s`);
    this.#tell(lines);
  }

  /** @param {Line[]} lines */
  #tell(lines) {
    if (this.legend.childElementCount !== lines.length) {
      this.legend.replaceChildren(...lines.map(() => h("li", {}, h("i"), h("span"), h("b"))));
    }
    lines.forEach((line, i) => {
      const [mark, name, value] = this.legend.children[i].children;
      const now = line.values.findLast((one) => one !== null);
      const dashed = line.dash?.length ? "dashed" : "solid";
      if (mark instanceof HTMLElement) Object.assign(mark.style, { borderTopColor: line.color, borderTopStyle: dashed });
      say(name, line.name);
      say(value, now === undefined || now === null ? "–" : `${now.toFixed(line.digits ?? 0)} ${line.unit}`);
    });
  }
}

/** The next 1, 2 or 5 times a power of ten. @param {number} value */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10);
}
