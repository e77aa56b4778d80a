// A feed on the screen: its state in words, its picture, and the masks over it.

import { ago, context, fit, h, say } from "./dom.js";
import { drawMasks } from "./overlay.js";
import { SHAPES } from "./verdict.js";

/** @typedef {import("./feed.js").Feed} Feed */
/** @typedef {"overlay" | "original" | "both"} Layout */
/**
 * What the person at this page has chosen for all pictures.
 * @typedef {{layout: Layout, opacity: number | null, outline: boolean, labels: boolean, selected: number | null}} Look
 */
/**
 * A picture that is held for pointing, in place of the newest.
 * @typedef {{image: HTMLCanvasElement, masks: import("./feed.js").Masks | null,
 *   draw: (context: CanvasRenderingContext2D, place: import("./overlay.js").Place, unit: number) => void}} Held
 */

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} kind */
const canvas = (kind) => h("canvas", { class: kind, "aria-hidden": "true" });

export class View {
  /**
   * @param {Feed} feed
   * @param {Look} look
   */
  constructor(feed, look) {
    this.feed = feed;
    this.look = look;
    /** @type {Held | null} */
    this.held = null;
    /** @type {Map<number, number>} */
    this.labelSides = new Map();
    this.place = { x: 0, y: 0, scale: 1 };
    this.picture = canvas("picture");
    this.masks = canvas("masks");
    this.original = canvas("picture");
    this.inset = canvas("inset");
    this.icon = document.createElementNS(SVG, "svg");
    this.icon.setAttribute("viewBox", "0 0 24 24");
    this.icon.setAttribute("aria-hidden", "true");
    this.icon.append(document.createElementNS(SVG, "path"));
    this.word = h("b", { class: "word" });
    this.why = h("span", { class: "why" });
    this.figures = h("dl", { class: "figures" });
    this.spoken = h("p", { class: "spoken", role: "status" });
    this.age = h("p", { class: "age", "aria-hidden": "true" });
    const state = h("div", { class: "state" }, this.icon, this.word);
    this.name = h("span", { class: "feed-name" }, this.feed.name);
    this.strip = h("header", { class: "strip" }, state, h("div", { class: "saying" }, this.name, this.why), this.figures);
    this.over = h("div", { class: "pane over" }, this.picture, this.masks, h("p", { class: "caption" }, "With masks"));
    this.bare = h("div", { class: "pane bare" }, this.original, h("p", { class: "caption" }, "Original"));
    this.stage = h("div", { class: "stage" }, this.bare, this.over, this.age, this.inset);
    this.element = h("section", { class: "view", "aria-label": `Feed ${this.feed.name}` }, this.strip, this.spoken, this.stage);
    new ResizeObserver(() => this.layOut()).observe(this.stage);
    feed.on("picture", () => this.#paint());
    feed.on("masks", () => this.drawMasks());
  }

  /** Pictures as large as their panes allow, with their own shape. */
  layOut() {
    this.stage.dataset.layout = this.look.layout;
    const shape = this.held?.image ?? this.feed.picture?.header;
    if (!shape) return;
    const whole = shape.width * this.aspect;
    for (const pane of [this.over, this.bare]) {
      const scale = Math.min(pane.clientWidth / whole, pane.clientHeight / shape.height);
      const [width, height] = [Math.round(whole * scale), Math.round(shape.height * scale)];
      for (const child of pane.querySelectorAll("canvas")) {
        Object.assign(child.style, { width: `${width}px`, height: `${height}px` });
      }
      Object.assign(pane.style, { "--picture-height": `${height}px` });
    }
    this.drawMasks();
  }

  #paint() {
    const picture = this.feed.picture;
    if (!picture) return;
    const main = this.held ? [] : [this.picture];
    const targets = this.look.layout === "both" || this.held ? [...main, this.original] : main;
    const changed = targets.some((target) => draw(target, picture.image, picture.header.width, picture.header.height));
    const inset = (320 * picture.header.height) / (picture.header.width * this.aspect);
    if (this.held) draw(this.inset, picture.image, 320, Math.round(inset));
    if (changed || this.shownAspect !== this.aspect) this.layOut();
    this.shownAspect = this.aspect;
    // Masks are drawn again only where what is shown of them would differ.
    if (this.feed.shown().state !== this.drawnState || this.feed.recording) this.drawMasks();
  }

  /** @param {Held | null} held */
  hold(held) {
    this.held = held;
    this.stage.classList.toggle("held", held !== null);
    if (held) draw(this.picture, held.image, held.image.width, held.image.height);
    this.#paint();
    this.layOut();
  }

  drawMasks() {
    const box = this.picture.getBoundingClientRect();
    if (!box.width) return;
    // Masks are drawn in the picture's own pixels, which the page then stretches with it where they are not square.
    const { context: over, scale: unit } = fit(this.masks, box.width / this.aspect, box.height);
    over.clearRect(0, 0, this.masks.width, this.masks.height);
    const [held, shown] = [this.held, this.feed.shown()];
    const masks = held ? held.masks : this.feed.masks;
    this.drawnState = shown.state;
    if (masks && this.look.layout !== "original" && (held || shown.state === "fresh" || shown.state === "stale")) {
      this.place = { x: 0, y: 0, scale: this.masks.width / masks.header.width };
      const opacity = held ? 0 : (this.look.opacity ?? this.feed.status.settings?.opacity ?? 0.28);
      const style = { ...this.look, opacity, unit, state: held ? "fresh" : shown.state, ageMs: shown.ageMs };
      drawMasks(over, masks.objects, this.place, /** @type {import("./overlay.js").Style} */ (style), this.labelSides);
    }
    if (held) held.draw(over, { x: 0, y: 0, scale: this.masks.width / this.sourceWidth }, unit);
  }

  /** The width of a pixel, divided by its height. */
  get aspect() {
    return this.feed.picture?.header.sample_aspect ?? 1;
  }

  /** The width of the source's own pictures, in whose pixels prompts are given. */
  get sourceWidth() {
    const header = this.feed.picture?.header;
    return header?.source_width || header?.width || 1;
  }

  /**
   * The source's pixel under a point of the window.
   * @param {number} x
   * @param {number} y
   * @returns {[number, number]}
   */
  toSource(x, y) {
    const box = this.picture.getBoundingClientRect();
    const header = this.feed.picture?.header;
    const [width, height] = [this.sourceWidth, header?.source_height || header?.height || 1];
    const at = (/** @type {number} */ part, /** @type {number} */ whole) => Math.min(Math.max(part * whole, 0), whole - 1);
    return [at((x - box.x) / box.width, width), at((y - box.y) / box.height, height)];
  }

  /** Says the feed's state at once where it is another. */
  watch() {
    const { word, old } = this.feed.verdict();
    const saysOld = this.stage.classList.contains("old");
    if (!this.element.hidden && (word !== this.element.dataset.word || (old && !this.held) !== saysOld)) this.tell();
  }

  /** Says the feed's state; a few times a second, so that figures can be read. */
  tell() {
    const verdict = this.feed.verdict();
    this.element.dataset.level = verdict.level;
    this.element.dataset.word = verdict.word;
    this.icon.firstElementChild?.setAttribute("d", SHAPES[verdict.shape]);
    say(this.word, verdict.word);
    say(this.why, verdict.why);
    say(this.spoken, `${this.feed.name}: ${verdict.word}`);
    const old = verdict.old && !this.held;
    this.stage.classList.toggle("old", old);
    const age = this.feed.pictureMs;
    say(this.age, !old ? "" : age === null ? "No picture yet" : `Old picture: ${ago(age)}`);
    this.#tellFigures(verdict.old);
    if (this.feed.shown().state !== this.drawnState) this.drawMasks();
  }

  /** @param {boolean} old what is not true any more is not said */
  #tellFigures(old) {
    const { status, delayMs } = old ? { status: /** @type {import("./wire.js").FeedStatus} */ ({}), delayMs: null } : this.feed;
    const mask = old ? null : this.feed.shown().ageMs;
    const dropped = Object.values(status.frames?.dropped ?? {}).reduce((sum, n) => sum + n, 0);
    /** @type {[string, string][]} */
    const figures = this.feed.recording
      ? []
      : [
          ["Mask age", mask === null ? "–" : `${Math.round(mask)} ms`],
          ["Delay", delayMs === null ? "–" : `${Math.round(delayMs)} ms`],
          ["Picture", status.fps ? `${status.fps.shown.toFixed(0)} /s` : "–"],
          ["Masks", status.fps ? `${status.fps.segmented.toFixed(0)} /s` : "–"],
          ["Dropped", status.frames ? String(dropped) : "–"],
        ];
    if (this.figures.childElementCount !== figures.length) {
      this.figures.replaceChildren(...figures.map(() => h("div", {}, h("dt"), h("dd"))));
    }
    figures.forEach(([name, value], i) => {
      const [term, figure] = this.figures.children[i].children;
      say(term, name);
      say(figure, value);
    });
  }
}

/**
 * Draws a picture, pixel by pixel where the canvas has its size; returns whether the canvas changed its size.
 * @param {HTMLCanvasElement} target
 * @param {CanvasImageSource} image
 * @param {number} width
 * @param {number} height
 */
function draw(target, image, width, height) {
  const changed = target.width !== width || target.height !== height;
  if (changed) Object.assign(target, { width, height });
  context(target).drawImage(image, 0, 0, width, height);
  return changed;
}
