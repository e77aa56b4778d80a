// One feed as this page knows it: its newest picture, masks, status, and what was over the last minutes.

import { pathOf } from "./contour.js";
import { decode } from "./rle.js";
import { Thumbnails } from "./thumbnails.js";
import { verdict } from "./verdict.js";
import { rles } from "./wire.js";

/** @typedef {import("./wire.js").PictureHeader} PictureHeader */
/** @typedef {{header: PictureHeader, image: ImageBitmap, receivedMs: number, paintedMs: number}} Picture */
/** @typedef {import("./wire.js").ObjectHeader & {mask: import("./rle.js").Mask, path: Path2D}} DrawnObject */
/** @typedef {{header: import("./wire.js").MasksHeader, objects: DrawnObject[], receivedMs: number}} Masks */
/** @typedef {{state: import("./wire.js").MaskState, ageMs: number | null}} Shown */
/**
 * @typedef {{atMs: number, delay: number | null, mask: number | null, fps: number | null, masks: number | null,
 *   stages: Record<string, number>, scores: Map<number, number>}} Sample
 */
/** @typedef {{at: Date, kind: string, text: string, who: string}} FeedEvent */
/** @typedef {"picture" | "masks" | "status" | "event"} Change */

const SAMPLES = 600; // five minutes at two statuses a second
const EVENTS = 200;
const WELL_WITHIN = 7 / 8; // of a limit: masks at the limit must not flicker; the overlay has the same rule
const UPGRADE_MS = 500;
/** @type {import("./wire.js").MaskState[]} */
const BY_AGE = ["fresh", "stale", "expired"];

export class Feed {
  /**
   * @param {import("./wire.js").FeedInfo} info
   * @param {import("./link.js").Link} link
   */
  constructor(info, link) {
    this.info = info;
    this.link = link;
    this.name = info.feed;
    this.recording = Boolean(info.recording);
    /** @type {Picture | null} */
    this.picture = null;
    /** @type {Masks | null} */
    this.masks = null;
    /** @type {import("./wire.js").StatusMessage | null} */
    this.report = null;
    this.reportMs = 0;
    /** @type {Sample[]} */
    this.history = [];
    /** @type {FeedEvent[]} */
    this.events = [];
    this.thumbnails = new Thumbnails();
    /** @type {Map<Change, Set<() => void>>} */
    this.listeners = new Map();
    this.received = 0; // pictures; the count gives each its place, so that none is painted after a newer one
    this.broken = 0;
    /** @type {{level: number, sinceMs: number}} */
    this.shownBefore = { level: 0, sinceMs: 0 };
  }

  /**
   * @param {Change} change
   * @param {() => void} act
   */
  on(change, act) {
    const acts = this.listeners.get(change) ?? new Set();
    this.listeners.set(change, acts.add(act));
  }

  /** @param {Change} change */
  #tell(change) {
    this.listeners.get(change)?.forEach((act) => act());
  }

  get status() {
    return this.report?.status ?? {};
  }

  /** @returns {import("./wire.js").RecordingStatus | null} */
  get clip() {
    const { recording } = this.status;
    return this.recording && recording && typeof recording === "object" ? recording : null;
  }

  /**
   * @param {string} verb
   * @param {Record<string, unknown>} [args]
   */
  order(verb, args) {
    return this.link.order(this.name, verb, args);
  }

  /**
   * @param {PictureHeader} header
   * @param {Uint8Array<ArrayBuffer>} jpeg
   */
  async gotPicture(header, jpeg) {
    const [place, receivedMs] = [++this.received, performance.now()];
    try {
      const image = await createImageBitmap(new Blob([jpeg], { type: `image/${header.codec}` }));
      if (place < (this.painted ?? 0)) return image.close();
      this.painted = place;
      const before = this.picture?.image;
      this.picture = { header, image, receivedMs, paintedMs: performance.now() };
      this.#tell("picture");
      this.picture.paintedMs = performance.now();
      before?.close();
      this.thumbnails.offer(header, image);
    } catch (error) {
      this.broken++;
      this.note("page", `picture ${header.seq} cannot be shown: ${error}`);
    } finally {
      this.link.painted(this.name, header.seq, header.session);
    }
  }

  /**
   * @param {import("./wire.js").MasksHeader} header
   * @param {Uint8Array} payload
   */
  gotMasks(header, payload) {
    try {
      const counts = rles(header, payload);
      const objects = header.objects.map((object, i) => {
        const mask = decode(counts[i], header.height, header.width);
        return { ...object, mask, path: pathOf(mask) };
      });
      this.masks = { header, objects, receivedMs: performance.now() };
    } catch (error) {
      this.masks = null;
      this.note("page", `masks of frame ${header.mask_seq} cannot be drawn: ${error}`);
    }
    this.#tell("masks");
  }

  /** @param {import("./wire.js").StatusMessage} report */
  gotStatus(report) {
    const before = this.status.stages_ms ?? {};
    this.report = report;
    this.reportMs = performance.now();
    this.history.push(this.#sample(before));
    if (this.history.length > SAMPLES) this.history.shift();
    this.#tell("status");
  }

  /** @param {import("./wire.js").EventMessage} event */
  gotEvent({ at, kind, text, who }) {
    // `at` is in seconds or milliseconds since 1970.
    this.note(kind, text, who ?? "", at ? new Date(at > 1e11 ? at : at * 1000) : new Date());
  }

  /**
   * @param {string} kind
   * @param {string} text
   * @param {string} [who]
   * @param {Date} [at]
   */
  note(kind, text, who = "", at = new Date()) {
    this.events.push({ at, kind, text, who });
    if (this.events.length > EVENTS) this.events.shift();
    this.#tell("event");
  }

  /**
   * @param {Record<string, import("./wire.js").Summary>} before
   * @returns {Sample}
   */
  #sample(before) {
    const shown = this.shown();
    /** @type {Record<string, number>} */
    const stages = {};
    for (const [name, now] of Object.entries(this.status.stages_ms ?? {})) {
      const [then, total] = [before[name], now.total];
      const count = then ? now.count - then.count : 0;
      // The mean since the last status, where totals are given; else the median since the start.
      if (total === undefined) stages[name] = now.p50;
      else if (count > 0) stages[name] = (total - (then.total ?? 0)) / count;
    }
    return {
      atMs: this.reportMs,
      delay: this.delayMs,
      mask: shown.ageMs,
      fps: this.status.fps?.shown ?? null,
      masks: this.status.fps?.segmented ?? null,
      stages,
      scores: new Map(this.masks?.objects.map(({ id, score }) => [id, score])),
    };
  }

  /** From capture until this page had painted it, in ms; null where the clocks of feed and console differ. */
  get delayMs() {
    const picture = this.picture;
    if (!picture || picture.header.captured_age_ms === null) return null;
    const transfer = (this.link.state.roundTripMs ?? 0) / 2;
    return picture.header.captured_age_ms + transfer + picture.paintedMs - picture.receivedMs;
  }

  get budgetMs() {
    return this.status.settings?.budget_ms ?? 120;
  }

  /** State and age of the masks on the newest picture: never fresher, and never younger, than they are. */
  shown() {
    const [masks, picture, now] = [this.masks, this.picture, performance.now()];
    const header = masks?.header;
    if (!masks || !header || header.mask_age_ms === null || !masks.objects.length) {
      return /** @type {Shown} */ ({ state: header?.state === "recovering" ? "recovering" : "none", ageMs: null });
    }
    if (this.recording) {
      const own = picture?.header.seq === header.seq && picture.header.session === header.session;
      return /** @type {Shown} */ ({ state: own ? header.state : "none", ageMs: own ? 0 : null });
    }
    // A mask grows older with each picture that follows the one it was sent with.
    const later = picture && picture.header.seq > header.seq ? now - masks.receivedMs : 0;
    const ageMs = Math.abs(header.mask_age_ms) + later;
    const foreign = picture !== null && picture.header.session !== header.session;
    const byAge = foreign ? 2 : ageMs <= this.budgetMs ? 0 : ageMs <= 2 * this.budgetMs ? 1 : 2;
    const level = this.#steady(Math.max(byAge, BY_AGE.indexOf(header.state)), ageMs, now);
    return /** @type {Shown} */ ({ state: header.state === "recovering" ? "recovering" : BY_AGE[level], ageMs });
  }

  /**
   * @param {number} level by age: 0 fresh, 1 stale, 2 expired
   * @param {number} ageMs
   * @param {number} now
   */
  #steady(level, ageMs, now) {
    const before = this.shownBefore;
    const within = ageMs <= WELL_WITHIN * (level + 1) * this.budgetMs;
    if (level >= before.level) this.shownBefore = { level, sinceMs: 0 };
    else if (within || (before.sinceMs && now - before.sinceMs >= UPGRADE_MS)) this.shownBefore = { level, sinceMs: 0 };
    else before.sinceMs ||= now;
    return this.shownBefore.level;
  }

  /** The age of the picture on the screen, in ms, since it was captured where that is known. */
  get pictureMs() {
    if (!this.picture) return null;
    return performance.now() - this.picture.receivedMs + (this.picture.header.captured_age_ms ?? 0);
  }

  /** @param {number} id */
  label(id) {
    return this.status.objects?.find((object) => object.id === id)?.label || `object ${id}`;
  }

  /** @returns {import("./verdict.js").Verdict} */
  verdict() {
    const [{ report, status }, link, shown] = [this, this.link.state, this.shown()];
    const sinceMs = performance.now() - this.reportMs;
    const fps = status.fps?.shown || 25;
    const silent = report && sinceMs > 1500 ? "silent" : (report?.link ?? null);
    return verdict({
      connected: link.phase === "up",
      refused: link.phase === "refused",
      connectionWhy: link.why,
      link: silent,
      linkWhy: report?.why ?? "",
      silentMs: sinceMs + (report?.age_ms ?? 0),
      phase: status.state ?? "",
      sourceWhy: status.source?.why ?? "",
      pictureMs: this.pictureMs,
      oldAfterMs: Math.max(700, 5000 / fps),
      delayMs: this.delayMs,
      masks: shown.state,
      maskMs: shown.ageMs,
      objects: status.objects?.length ?? this.masks?.objects.length ?? 0,
      lost: (this.masks?.header.lost ?? []).map((id) => this.label(id)),
      behind: status.behind ?? null,
      faults: Object.entries(status.faults ?? {}).map(([part, text]) => `${part}: ${text}`),
      preparing: status.preparing ?? "",
      recording: this.recording,
      playing: this.clip?.playing ?? false,
    });
  }
}
