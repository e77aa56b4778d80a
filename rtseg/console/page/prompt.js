// A prompt as it grows under the hand: points and a box, or a brushed mask. In pixels of the source's picture.

import { context } from "./dom.js";
import { encode } from "./rle.js";

/** @typedef {import("./wire.js").Prompt} Prompt */
/** @typedef {{points: [number, number][], radius: number, erase: boolean}} Stroke */
/**
 * @typedef {{kind: "point", at: [number, number, number]} | {kind: "box", box: [number, number, number, number]}
 *   | {kind: "stroke", stroke: Stroke}} Step
 */

export class Draft {
  constructor() {
    /** @type {Step[]} what was done, in order, so that it can be taken back */
    this.steps = [];
    /** @type {Path2D | null} the proposed mask that the brush began with */
    this.base = null;
  }

  get empty() {
    return this.steps.length === 0;
  }

  get brushed() {
    return this.steps.some((step) => step.kind === "stroke");
  }

  /** @returns {[number, number, number][]} */
  get points() {
    return this.steps.flatMap((step) => (step.kind === "point" ? [step.at] : []));
  }

  /** The newest box; there is one at most. */
  get box() {
    return this.steps.flatMap((step) => (step.kind === "box" ? [step.box] : [])).at(-1) ?? null;
  }

  /** @returns {Stroke[]} */
  get strokes() {
    return this.steps.flatMap((step) => (step.kind === "stroke" ? [step.stroke] : []));
  }

  /**
   * @param {[number, number]} at
   * @param {boolean} on the object, or what it is not
   */
  addPoint([x, y], on) {
    this.#only("point");
    this.steps.push({ kind: "point", at: [round(x), round(y), on ? 1 : 0] });
  }

  /**
   * @param {[number, number]} from
   * @param {[number, number]} to
   */
  addBox([x0, y0], [x1, y1]) {
    this.#only("box");
    const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)].map(round);
    this.steps.push({ kind: "box", box: /** @type {[number, number, number, number]} */ (box) });
  }

  /**
   * A stroke, whose points may be added to it.
   * @param {number} radius
   * @param {boolean} erase
   * @param {Path2D | null} proposal what the brush goes on from, if this is the first stroke
   * @returns {Stroke}
   */
  addStroke(radius, erase, proposal) {
    if (!this.brushed) this.base = proposal;
    this.#only("stroke");
    /** @type {Stroke} */
    const stroke = { points: [], radius, erase };
    this.steps.push({ kind: "stroke", stroke });
    return stroke;
  }

  /** Takes the last step back. */
  takeBack() {
    this.steps.pop();
    if (!this.brushed) this.base = null;
  }

  /** A brushed mask stands for itself: points and a box would contradict it. @param {Step["kind"]} kind */
  #only(kind) {
    if ((kind === "stroke") !== this.brushed) this.steps = [];
    if (kind !== "stroke") this.base = null;
  }

  /**
   * Draws the brushed mask; `true` if there is any.
   * @param {CanvasRenderingContext2D} into at the scale of the source's pixels
   * @param {string} ink
   */
  drawBrushed(into, ink) {
    if (!this.brushed) return false;
    into.fillStyle = into.strokeStyle = ink;
    into.lineCap = into.lineJoin = "round";
    if (this.base) into.fill(this.base, "evenodd");
    for (const { points, radius, erase } of this.strokes) {
      into.globalCompositeOperation = erase ? "destination-out" : "source-over";
      into.lineWidth = 2 * radius;
      into.beginPath();
      points.forEach(([x, y], i) => (i ? into.lineTo(x, y) : into.moveTo(x, y)));
      if (points.length === 1) into.lineTo(points[0][0] + 0.01, points[0][1]);
      into.stroke();
    }
    into.globalCompositeOperation = "source-over";
    return true;
  }

  /**
   * The prompt for the wire; null if there is nothing in it.
   * @param {number} id
   * @param {string} label
   * @param {{width: number, height: number}} size of the source's picture
   * @returns {Prompt | null}
   */
  prompt(id, label, { width, height }) {
    if (this.empty) return null;
    /** @type {Prompt} */
    const prompt = label ? { id, label } : { id };
    if (this.brushed) {
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width, height });
      const into = context(canvas);
      this.drawBrushed(into, "#fff");
      const { data } = into.getImageData(0, 0, width, height);
      const mask = Uint8Array.from({ length: width * height }, (_, i) => (data[4 * i + 3] > 127 ? 1 : 0));
      if (!mask.includes(1)) return null;
      return { ...prompt, mask: { rle: encode(mask, height, width), height, width } };
    }
    if (this.points.length) prompt.points = this.points;
    if (this.box) prompt.box = this.box;
    return prompt;
  }
}

/** @param {number} value */
const round = (value) => Math.round(value * 10) / 10;
