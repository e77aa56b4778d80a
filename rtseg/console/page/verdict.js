// What is true of a feed now, in one word, with a shape and a level, so that colour alone never tells it.

/** @typedef {"good" | "warn" | "bad" | "idle"} Level */
/**
 * @typedef {"disc" | "ring" | "clock" | "chevrons" | "dashes" | "turn" | "square" | "cross" | "bars" | "dots" | "octagon"
 * } Shape
 */
/** `old`: the picture is not live, so it is greyed. @typedef {{word: string, why: string, level: Level, shape: Shape,
 *   old: boolean}} Verdict */
/**
 * What a verdict is made of; ages in ms, null where unknown.
 * @typedef {{connected: boolean, refused: boolean, connectionWhy: string, link: "up" | "silent" | "refused" | null,
 *   linkWhy: string, silentMs: number, phase: string, sourceWhy: string, pictureMs: number | null, oldAfterMs: number,
 *   delayMs: number | null, masks: import("./wire.js").MaskState, maskMs: number | null, objects: number,
 *   lost: string[], behind: {segmented_fps: number, wanted_fps: number, advice?: string} | null, faults: string[],
 *   preparing: string, recording: boolean, playing: boolean}} Facts
 */

const LATE_MS = 250; // from capture to the screen: a hand no longer agrees with what it sees

/**
 * @param {string} word
 * @param {Level} level
 * @param {Shape} shape
 * @param {string} why
 * @param {boolean} [old]
 * @returns {Verdict}
 */
const say = (word, level, shape, why, old = false) => ({ word, level, shape, why, old });

/** @param {number | null} ms */
const seconds = (ms) => (ms === null ? "" : ms < 10000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`);

/**
 * The worst that is true: no connection before no picture, no picture before no masks, no masks before late ones.
 * @param {Facts} facts
 * @returns {Verdict}
 */
export function verdict(facts) {
  return connection(facts) ?? picture(facts) ?? network(facts) ?? masks(facts);
}

/**
 * @param {Facts} f
 * @returns {Verdict | null}
 */
function connection(f) {
  if (f.refused) return say("Refused", "bad", "octagon", f.connectionWhy || "The console refused this page", true);
  if (!f.connected) {
    const age = f.pictureMs === null ? "" : `; this picture is ${seconds(f.pictureMs)} old`;
    return say("Connection lost", "bad", "cross", `Trying again${age}`, true);
  }
  if (f.link === null) return say("Opening", "idle", "dots", "Waiting for the feed's first status", true);
  if (f.link === "refused") return say("Refused", "bad", "octagon", f.linkWhy || "The feed does not let this console in", true);
  if (f.link === "silent") return say("No signal", "bad", "cross", `The feed is silent for ${seconds(f.silentMs)}`, true);
  return null;
}

/**
 * @param {Facts} f
 * @returns {Verdict | null}
 */
function picture(f) {
  const why = f.sourceWhy ? `: ${f.sourceWhy}` : "";
  if (f.phase === "opening") return say("Opening", "idle", "dots", `The source is being opened${why}`, true);
  if (f.phase === "lost") return say("No signal", "bad", "cross", `The source is gone${why}`, true);
  if (f.phase === "stalled") return say("No signal", "bad", "cross", `No picture comes from the source${why}`, true);
  if (f.phase === "frozen") return say("Frozen", "bad", "square", "The source repeats the same picture", true);
  if (f.phase === "ended") return say("Ended", "idle", "bars", "The feed has ended", true);
  if (f.recording) return null;
  if (f.pictureMs === null) return say("Opening", "idle", "dots", "Waiting for the first picture", true);
  if (f.pictureMs > f.oldAfterMs) {
    return say("No signal", "bad", "cross", `No new picture for ${seconds(f.pictureMs)}`, true);
  }
  return null;
}

/**
 * @param {Facts} f
 * @returns {Verdict | null}
 */
function network(f) {
  const fault = f.faults.length ? f.faults.join("; ") : "";
  if (f.phase === "failed") return say("Failed", "bad", "octagon", fault || "A part of the feed will not come back");
  if (f.phase === "paused") return say("Paused", "idle", "bars", "The network is paused: no masks; the picture is live");
  if (f.phase === "recovering" || f.masks === "recovering") {
    return say("Recovering", "warn", "turn", f.preparing || "Objects are being restored; the picture is live");
  }
  return null;
}

/**
 * @param {Facts} f
 * @returns {Verdict}
 */
function masks(f) {
  const age = f.maskMs === null ? "" : `${Math.round(f.maskMs)} ms old`;
  if (f.masks === "expired") return say("Stale", "bad", "dashes", `Masks are too old to show: ${age}`);
  if (f.masks === "stale") return say("Stale", "warn", "dashes", `Outlines are ${age}`);
  if (f.behind) {
    const { segmented_fps: now, wanted_fps: wanted, advice } = f.behind;
    const rate = `${Math.round(now)} of ${Math.round(wanted)} masks a second`;
    return say("Behind", "warn", "chevrons", advice ? `${rate}; ${advice}` : rate);
  }
  if (!f.recording && f.delayMs !== null && f.delayMs > LATE_MS) {
    return say("Late", "warn", "clock", `This picture reached the screen after ${Math.round(f.delayMs)} ms`);
  }
  if (!f.objects) return say("Ready", "idle", "ring", f.recording ? "No objects yet" : "The picture is live; no objects yet");
  if (f.recording && f.masks === "none") return say("No mask yet", "idle", "ring", "This frame is not tracked yet: press T");
  const gone = f.lost.length ? `Out of view: ${f.lost.join(", ")}` : "";
  if (f.recording) {
    return say(f.playing ? "Playing" : "Paused", "good", f.playing ? "disc" : "bars", gone || "Masks of this very frame");
  }
  if (gone) return say("Fresh", "good", "disc", gone);
  if (f.masks === "none") return say("No masks", "idle", "ring", "There are no masks of this picture");
  return say("Fresh", "good", "disc", `Masks are ${age}`);
}

/** The lines of each shape, in a square of 24. @type {Record<Shape, string>} */
export const SHAPES = {
  disc: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18z",
  ring: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18zM12 6.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11z",
  clock: "M12 2a10 10 0 1 0 0 20a10 10 0 1 0 0-20zM10.6 6h2.8v5.4l4 2.4-1.4 2.4-5.4-3.2z",
  chevrons: "M11 4v16L1 12zM22 4v16L12 12z",
  dashes: "M12 2l3.4 6.6h-6.8zM7.6 10.6h8.8l2 3.8H5.6zM4.5 16.4h15L22.4 22H1.6z",
  turn: "M12 3a9 9 0 1 0 9 9h-3.4a5.6 5.6 0 1 1-5.6-5.6v3.2l6-4.8-6-4.8z",
  square: "M3 3h18v18H3zM7 7v10h10V7z",
  cross: "M5.2 2L12 8.8 18.8 2 22 5.2 15.2 12l6.8 6.8-3.2 3.2L12 15.2 5.2 22 2 18.8 8.8 12 2 5.2z",
  bars: "M5 3h5v18H5zM14 3h5v18h-5z",
  dots: "M2 9.5h5v5H2zM9.5 9.5h5v5h-5zM17 9.5h5v5h-5z",
  octagon: "M7.9 2h8.2L22 7.9v8.2L16.1 22H7.9L2 16.1V7.9zM10.6 6v7.5h2.8V6zM10.6 15.4V18h2.8v-2.6z",
};
