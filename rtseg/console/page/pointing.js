// Pointing: the picture is held, a prompt grows under the hand, its mask is proposed, and then accepted or not.

import { colorOf } from "./colors.js";
import { pathOf } from "./contour.js";
import { drawDraft } from "./draft_drawing.js";
import { Draft } from "./prompt.js";
import { decode } from "./rle.js";

/** @typedef {import("./view.js").View} View */
/** Whom the prompt is for. @typedef {{id: number, label: string, color: import("./wire.js").Rgb | null, known: boolean}} Target */
/**
 * @typedef {{view: View, seq: number, session: string, sinceMs: number, image: HTMLCanvasElement,
 *   width: number, height: number, kept: boolean}} HeldPicture `kept`: the feed keeps it, however many pictures follow
 */
/** @typedef {{path: Path2D, iou: number | null, ms: number, warnings: string[]}} Proposal */
/**
 * @typedef {{target: () => Target, allowed: () => string, changed: () => void, done: (text: string) => void,
 *   failed: (text: string) => void, added: (target: Target) => void}} PointingEvents
 *   `allowed`: why nobody may point here; "" if one may
 */

export const KEPT_FRAMES = 64; // the feed keeps so many pictures, and takes a prompt for any of them

export class Pointing {
  /** @param {PointingEvents} events */
  constructor(events) {
    this.events = events;
    /** @type {HeldPicture | null} */
    this.held = null;
    this.draft = new Draft();
    /** @type {Proposal | null} */
    this.proposal = null;
    this.error = "";
    /** @type {"point" | "brush"} */
    this.tool = "point";
    this.radius = 12; // of the brush, in pixels of the source
    /** @type {[number, number] | null} the crosshair of the keyboard */
    this.cross = null;
    /** @type {[number, number] | null} the first corner of a box */
    this.corner = null;
    /** @type {[number, number] | null} where the pointer is, for the ring of the brush and a box that is being drawn */
    this.hover = null;
    this.asking = this.stale = this.accepting = false;
  }

  /**
   * Holds the picture that is on the screen now.
   * @param {View} view
   * @returns {boolean}
   */
  begin(view) {
    if (this.held) return this.held.view === view;
    const [picture, why] = [view.feed.picture, this.events.allowed()];
    if (why || !picture) {
      this.events.failed(why || "there is no picture to point at yet");
      return false;
    }
    const { seq, session, width, height, source_width, source_height } = picture.header;
    const image = document.createElement("canvas");
    Object.assign(image, { width, height });
    image.getContext("2d")?.drawImage(picture.image, 0, 0);
    this.held = {
      view, seq, session, image, sinceMs: performance.now(), kept: false,
      width: source_width || width, height: source_height || height,
    };
    this.draft = new Draft();
    this.proposal = null;
    this.error = "";
    view.hold({ image, masks: view.feed.masks, draw: (...canvas) => drawDraft(this, ...canvas) });
    this.events.changed();
    void this.#keep(this.held);
    return true;
  }

  /** Asks the feed to keep the picture for as long as the hand needs. @param {HeldPicture} held */
  async #keep(held) {
    if (held.view.feed.recording) return;
    try {
      await held.view.feed.order("hold", { seq: held.seq, session: held.session });
      held.kept = true;
    } catch {
      held.kept = false; // the preview says what is wrong, if anything is
    }
  }

  /** Lets the picture go on; nothing was changed. */
  cancel() {
    if (!this.held) return;
    this.held.view.hold(null);
    this.held = this.cross = this.corner = this.hover = null;
    this.draft = new Draft();
    this.proposal = null;
    this.error = "";
    this.events.changed();
  }

  /**
   * @param {[number, number]} at
   * @param {boolean} on
   */
  point(at, on) {
    if (this.accepting) return;
    this.draft.addPoint(at, on);
    this.edited();
  }

  /**
   * @param {[number, number]} from
   * @param {[number, number]} to
   */
  box(from, to) {
    if (this.accepting || Math.abs(from[0] - to[0]) < 2 || Math.abs(from[1] - to[1]) < 2) return;
    this.draft.addBox(from, to);
    this.edited();
  }

  /** @param {boolean} erase */
  stroke(erase) {
    return this.draft.addStroke(this.radius, erase, this.proposal?.path ?? null);
  }

  takeBack() {
    if (this.accepting) return;
    this.draft.takeBack();
    this.edited();
  }

  /** The prompt has changed: asks for the mask that it would give. */
  edited() {
    this.error = "";
    if (this.draft.empty) this.proposal = null;
    this.redraw();
    this.events.changed();
    if (this.asking) this.stale = true;
    else if (!this.draft.empty) void this.#ask();
  }

  /** The object is another one now, such as by its label. */
  retarget() {
    if (this.held && !this.draft.empty) this.edited();
  }

  redraw() {
    this.held?.view.drawMasks();
  }

  /** How many pictures have come since the one that is held. */
  get framesBehind() {
    const newest = this.held?.view.feed.picture?.header;
    return this.held && newest && newest.session === this.held.session ? newest.seq - this.held.seq : 0;
  }

  /** @param {HeldPicture} held */
  #args(held) {
    const { id, label } = this.events.target();
    const prompt = this.draft.prompt(id, label, held);
    return prompt && { prompt, seq: held.seq, session: held.session };
  }

  async #ask() {
    const held = this.held;
    const args = held && this.#args(held);
    if (!held || !args) return;
    [this.asking, this.stale] = [true, false];
    const began = performance.now();
    try {
      /** @type {import("./wire.js").Preview} */
      const preview = await held.view.feed.order("preview", args);
      if (this.held !== held || this.draft.empty) return;
      const path = pathOf(decode(preview.rle, preview.height, preview.width));
      const ms = performance.now() - began;
      this.proposal = { path, iou: preview.iou ?? null, ms, warnings: preview.warnings ?? [] };
    } catch (error) {
      if (this.held !== held) return;
      this.proposal = null;
      this.error = error instanceof Error ? error.message : String(error);
    } finally {
      this.asking = false;
      this.redraw();
      this.events.changed();
      if (this.stale && this.held) void this.#ask();
    }
  }

  /** Whether the prompt may be accepted: its mask was shown, or could not be made. */
  get ready() {
    return Boolean(this.held && !this.draft.empty && !this.asking && !this.accepting && (this.proposal || this.error));
  }

  /** Gives the prompt to the feed. */
  async accept() {
    const held = this.held;
    const args = held && this.#args(held);
    if (!held || !args || !this.ready) return;
    const target = this.events.target();
    this.accepting = true;
    this.events.changed();
    try {
      await held.view.feed.order(target.known ? "correct" : "add", args);
      this.accepting = false;
      this.cancel();
      this.events.added(target);
      const name = target.label || `object ${target.id}`;
      this.events.done(target.known ? `${name} corrected, from frame ${held.seq} on` : `${name} added, from frame ${held.seq} on`);
    } catch (error) {
      this.error = error instanceof Error ? error.message : String(error);
      this.events.failed(this.error);
    } finally {
      this.accepting = false;
      this.events.changed();
    }
  }

  get color() {
    const { id, color } = this.events.target();
    return colorOf(id, color);
  }
}
