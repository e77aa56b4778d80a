// A recording's time: scrub, step, play, track, and the stretches where each object has masks, is locked or absent.

import { colorOf, css } from "./colors.js";
import { button, fit, get, h, say } from "./dom.js";

/** @typedef {import("./feed.js").Feed} Feed */
/** @typedef {import("./wire.js").RecordingStatus} RecordingStatus */
/** @typedef {(verb: string, args?: Record<string, unknown>) => Promise<any>} Order */

const ROW = 18; // CSS pixels of an object's stretches
const WAIT_MS = 1000; // for the picture of a frame that was asked for

/**
 * @param {number} frame
 * @param {number} fps
 */
export function clock(frame, fps) {
  const s = frame / (fps || 25);
  return `${Math.floor(s / 60)}:${(s % 60).toFixed(2).padStart(5, "0")}`;
}

export class Timeline {
  /** @param {{feed: () => Feed | null, order: Order, selected: () => number | null, may: () => boolean}} app */
  constructor(app) {
    this.app = app;
    this.element = get("timeline", HTMLElement);
    this.scrub = h("input", { type: "range", min: 0, max: 1, step: 1, id: "scrub", "aria-label": "Frame" });
    this.where = h("output", { class: "where", for: "scrub" });
    this.spans = h("canvas", { class: "spans", "aria-hidden": "true" });
    this.told = h("p", { class: "spoken" });
    this.busy = h("progress", { "aria-label": "Progress" });
    this.busyText = h("span", { class: "busy-text", role: "status" });
    /** @type {[number, number] | null} first and last frame of the marked stretch */
    this.stretch = null;
    this.seeking = this.wanted = -1;
    /** @type {number | null} the frame that the address asks for, until there is a recording to show it */
    this.asked = null;
    this.#build();
  }

  #build() {
    const acts = h("div", { class: "acts" });
    /** @type {[string, string, () => void][]} */
    const buttons = [
      ["|◀", "One frame back", () => this.step(-1)], ["▶", "Play or stop", () => this.play()],
      ["▶|", "One frame on", () => this.step(1)], ["◀ Track", "Track backward", () => this.track("backward")],
      ["◀ Track ▶", "Track both ways", () => this.track("both")], ["Track ▶", "Track forward", () => this.track("forward")],
      ["Stop", "Stop what is being done", () => void this.app.order("stop")],
      ["From", "From this frame on: where the stretch begins", () => this.mark(0)], ["To", "To this frame: where the stretch ends", () => this.mark(1)],
      ["Lock", "Lock or unlock the stretch of the chosen object", () => this.lock()],
      ["Export", "Export the masks", () => void this.save()],
    ];
    for (const [text, title, act] of buttons) {
      acts.append(button(text, act, { title, "aria-label": title, "data-act": title.split(" ")[0].toLowerCase() }));
    }
    this.element.append(h("div", { class: "scrub-row" }, this.scrub, this.where), this.spans, this.told,
      h("div", { class: "acts-row" }, acts, this.busy, this.busyText));
    this.scrub.addEventListener("input", () => this.seek(Number(this.scrub.value)));
    let from = -1;
    const frameAt = (/** @type {PointerEvent} */ event) => {
      const box = this.spans.getBoundingClientRect();
      const frames = this.app.feed()?.clip?.frames ?? 1;
      return Math.min(Math.max(Math.round(((event.clientX - box.x) / box.width) * (frames - 1)), 0), frames - 1);
    };
    this.spans.addEventListener("pointerdown", (event) => {
      this.spans.setPointerCapture(event.pointerId);
      from = frameAt(event);
      this.stretch = null;
      this.seek(from);
    });
    this.spans.addEventListener("pointermove", (event) => {
      if (from < 0 || !event.buttons) return;
      const to = frameAt(event);
      if (Math.abs(to - from) > 1) this.stretch = [Math.min(from, to), Math.max(from, to)];
      this.update();
    });
    this.spans.addEventListener("pointerup", () => (from = -1));
  }

  /** Asks for one frame after the other: the newest wish, whenever the last was met. @param {number} frame */
  seek(frame) {
    const frames = this.app.feed()?.clip?.frames ?? 1;
    this.wanted = Math.min(Math.max(frame, 0), frames - 1);
    if (this.seeking >= 0) return;
    this.seeking = this.wanted;
    this.app.order("seek", { frame: this.seeking }).finally(() => {
      const met = this.seeking === this.wanted;
      this.seeking = -1;
      this.metMs = performance.now();
      if (!met) this.seek(this.wanted);
    });
  }

  /** The frame that is wanted until its picture is here; then the one that is shown: a status comes too late to mark by. */
  get position() {
    const [feed, met] = [this.app.feed(), this.seeking < 0];
    const shown = feed?.picture?.header.seq ?? feed?.clip?.position ?? 0;
    if (met && (shown === this.wanted || performance.now() - (this.metMs ?? 0) > WAIT_MS)) this.wanted = -1;
    return this.wanted >= 0 ? this.wanted : shown;
  }

  /** @param {number} by frames */
  step(by) {
    this.seek(this.position + by);
  }

  /** @param {number} by seconds */
  jump(by) {
    this.step(Math.round(by * (this.app.feed()?.clip?.fps ?? 25)));
  }

  play() {
    void this.app.order("play", { on: !this.app.feed()?.clip?.playing });
  }

  /** @param {"forward" | "backward" | "both"} direction */
  track(direction) {
    void this.app.order("track", { direction });
  }

  /** @param {0 | 1} end */
  mark(end) {
    const at = this.position;
    const [first, last] = this.stretch ?? [at, at];
    this.stretch = end ? [Math.min(first, at), at] : [at, Math.max(last, at)];
    this.update();
  }

  /** Locks the marked stretch, or all of the chosen object's masks around this frame; unlocks what is locked here. */
  lock() {
    const [clip, id] = [this.app.feed()?.clip, this.app.selected()];
    const object = clip?.objects.find((one) => one.id === id);
    if (!clip || !object) return;
    const here = object.spans.find(([first, last]) => first <= this.position && this.position <= last);
    const [first, last] = this.stretch ?? here ?? [this.position, this.position];
    void this.app.order(here?.[2] === "locked" && !this.stretch ? "unlock" : "lock", { id, first, last });
    this.stretch = null;
  }

  async save() {
    const result = await this.app.order("export", {});
    return result;
  }

  update() {
    const clip = this.app.feed()?.clip;
    this.element.hidden = !clip;
    if (!clip) return;
    if (this.asked !== null) this.seek(this.asked);
    this.asked = null;
    this.scrub.max = String(Math.max(clip.frames - 1, 1));
    const at = this.position;
    this.scrub.value = String(at);
    const text = `Frame ${at} of ${clip.frames}, ${clock(at, clip.fps)} of ${clock(clip.frames, clip.fps)}`;
    this.scrub.setAttribute("aria-valuetext", text);
    say(this.where, text);
    const play = this.element.querySelector("[data-act=play]");
    if (play) say(play, clip.playing ? "❚❚" : "▶");
    this.busy.hidden = !clip.busy;
    if (clip.busy) Object.assign(this.busy, { value: clip.busy.done, max: Math.max(clip.busy.of, 1) });
    say(this.busyText, clip.busy ? `${clip.busy.what}: ${clip.busy.done} of ${clip.busy.of}` : "");
    const stretch = this.stretch && `Stretch: frames ${this.stretch[0]} to ${this.stretch[1]}. `;
    const spans = clip.objects.map(({ label, id, spans: own }) => `${label || id}: ${own.map(([a, b, kind]) => `${kind} ${a} to ${b}`).join(", ")}`);
    say(this.told, (stretch ?? "") + spans.join("; "));
    this.#draw(clip, at);
  }

  /**
   * @param {RecordingStatus} clip
   * @param {number} at
   */
  #draw(clip, at) {
    this.spans.style.height = `${Math.max(1, clip.objects.length) * ROW + 4}px`;
    const box = this.spans.getBoundingClientRect();
    if (!box.width) return;
    const { context, scale } = fit(this.spans, box.width, box.height);
    const x = (/** @type {number} */ frame) => (frame / Math.max(clip.frames - 1, 1)) * this.spans.width;
    context.clearRect(0, 0, this.spans.width, this.spans.height);
    if (this.stretch) {
      context.fillStyle = "rgb(255 255 255 / 0.16)";
      context.fillRect(x(this.stretch[0]), 0, Math.max(x(this.stretch[1]) - x(this.stretch[0]), 2 * scale), this.spans.height);
    }
    clip.objects.forEach((object, i) => {
      const [y, height] = [(i * ROW + 4) * scale, (ROW - 6) * scale];
      for (const [first, last, kind] of object.spans) {
        const wide = Math.max(x(last + 1) - x(first), 2 * scale);
        drawSpan(context, kind, css(colorOf(object.id, object.color)), [x(first), y, wide, height], scale);
      }
      if (object.id === this.app.selected()) {
        context.strokeStyle = "#fff";
        context.lineWidth = scale;
        context.strokeRect(scale / 2, y - 2 * scale, this.spans.width - scale, height + 4 * scale);
      }
    });
    context.fillStyle = "#fff";
    context.fillRect(x(at) - scale, 0, 2 * scale, this.spans.height);
  }
}

/**
 * Tracked: half as high; locked: full, with bars at its ends; prompt: a diamond; absent: a thin line.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./wire.js").Span[2]} kind
 * @param {string} color
 * @param {[number, number, number, number]} box
 * @param {number} scale
 */
function drawSpan(context, kind, color, [x, y, width, height], scale) {
  context.fillStyle = color;
  if (kind === "absent") context.fillRect(x, y + height / 2 - scale / 2, width, scale);
  else if (kind === "tracked") context.fillRect(x, y + height / 4, width, height / 2);
  else if (kind === "locked") {
    context.fillRect(x, y, width, height);
    context.fillStyle = "#fff";
    context.fillRect(x, y, 2 * scale, height);
    context.fillRect(x + width - 2 * scale, y, 2 * scale, height);
  } else {
    context.beginPath();
    context.moveTo(x, y - 1 * scale);
    context.lineTo(x + height / 2, y + height / 2);
    context.lineTo(x, y + height + scale);
    context.lineTo(x - height / 2, y + height / 2);
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = scale;
    context.stroke();
  }
}
