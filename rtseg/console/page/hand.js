// Mouse, pen and touch on a picture, as prompts: click a point, drag a box, brush a mask; long press is negative.

/** @typedef {import("./pointing.js").Pointing} Pointing */
/** @typedef {import("./view.js").View} View */
/**
 * @typedef {{id: number, x: number, y: number, from: [number, number], dragged: boolean, negative: boolean,
 *   stroke: import("./prompt.js").Stroke | null, timer: number}} Press
 */

const DRAG = 6; // CSS pixels: less is a click of an unsteady hand
const LONG_MS = 500;
const ERASER = 32; // the bit of a pen's other end in PointerEvent.buttons

export class Hand {
  /**
   * @param {View} view
   * @param {Pointing} pointing
   */
  constructor(view, pointing) {
    this.view = view;
    this.pointing = pointing;
    /** @type {Press | null} */
    this.press = null;
    const area = view.masks;
    area.addEventListener("pointerdown", (event) => this.#down(event));
    area.addEventListener("pointermove", (event) => this.#move(event));
    area.addEventListener("pointerup", (event) => this.#up(event));
    area.addEventListener("pointercancel", () => this.#drop());
    area.addEventListener("pointerleave", () => this.#leave());
    area.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  /** @param {PointerEvent} event */
  #down(event) {
    const { pointing, view } = this;
    if (this.press || event.button > 2 || event.button === 1 || !pointing.begin(view)) return;
    view.stage.focus({ preventScroll: true });
    view.masks.setPointerCapture(event.pointerId);
    const at = view.toSource(event.clientX, event.clientY);
    const negative = event.button === 2 || event.shiftKey || (event.buttons & ERASER) > 0;
    pointing.cross = null;
    const stroke = pointing.tool === "brush" && !pointing.accepting ? pointing.stroke(negative) : null;
    stroke?.points.push(at);
    const timer = window.setTimeout(() => this.#long(), LONG_MS);
    this.press = { id: event.pointerId, x: event.clientX, y: event.clientY, from: at, dragged: false, negative, stroke, timer };
    if (event.pointerType !== "touch") clearTimeout(timer);
    pointing.redraw();
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const { pointing, press, view } = this;
    if (pointing.held?.view !== view) return;
    const at = view.toSource(event.clientX, event.clientY);
    pointing.hover = pointing.tool === "brush" || press ? at : null;
    if (press?.id === event.pointerId) {
      press.dragged ||= Math.hypot(event.clientX - press.x, event.clientY - press.y) > DRAG;
      if (press.dragged) clearTimeout(press.timer);
      if (press.stroke) {
        for (const { clientX, clientY } of event.getCoalescedEvents?.() ?? [event]) {
          press.stroke.points.push(view.toSource(clientX, clientY));
        }
      } else if (press.dragged) pointing.corner = press.from;
    }
    if (pointing.hover) pointing.redraw();
  }

  /** @param {PointerEvent} event */
  #up(event) {
    const { pointing, press, view } = this;
    if (!press || press.id !== event.pointerId) return;
    this.#drop();
    if (press.stroke) pointing.edited();
    else if (press.dragged) pointing.box(press.from, view.toSource(event.clientX, event.clientY));
    else pointing.point(press.from, !press.negative);
  }

  /** A finger that rests: a point that the object is not, at once, so that the hand knows. */
  #long() {
    const press = this.press;
    if (!press || press.stroke) return;
    this.#drop();
    navigator.vibrate?.(30);
    this.pointing.point(press.from, false);
  }

  #drop() {
    clearTimeout(this.press?.timer);
    this.press = null;
    this.pointing.corner = this.pointing.hover = null;
    this.pointing.redraw();
  }

  #leave() {
    if (this.press) return;
    this.pointing.hover = null;
    this.pointing.redraw();
  }
}
