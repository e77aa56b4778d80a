// The messages between this page and its console; docs/console.md describes them.

/** @typedef {"viewer" | "pointer"} Right */
/** @typedef {"fresh" | "stale" | "expired" | "none" | "recovering"} MaskState */
/** @typedef {[number, number, number]} Rgb */
/** @typedef {{feed: string, stream: string, recording?: boolean}} FeedInfo */
/** @typedef {{label: string, color?: Rgb | null}} Preset */
/**
 * @typedef {{type: "welcome", right: Right, name?: string | null, feeds: FeedInfo[], version: number,
 *   presets: Preset[], console?: string}} Welcome
 */
/** @typedef {{p50: number, p95: number, p99: number, max: number, count: number, total?: number}} Summary */
/** @typedef {[number, number, "prompt" | "tracked" | "locked" | "absent"]} Span */
/**
 * @typedef {{frames: number, fps: number, position: number, playing?: boolean, tracked: [number, number][],
 *   busy?: {what: string, done: number, of: number} | null,
 *   objects: {id: number, label: string, color?: Rgb | null, spans: Span[]}[]}} RecordingStatus
 */
/**
 * The status of a feed, as docs/live.md describes it. Every key may be missing: a feed may be older than this page.
 * @typedef {{state?: string, faults?: Record<string, string>, engine?: string, preparing?: string,
 *   source?: {uri?: string, state?: string, why?: string},
 *   frames?: {in: number, shown: number, dropped: Record<string, number>}, segmented?: number,
 *   behind?: {segmented_fps: number, wanted_fps: number, fresh: number, step_ms: number, advice?: string} | null,
 *   objects?: {id: number, label: string, color?: Rgb | null, hidden?: boolean}[],
 *   mask_states?: Record<string, number>, settings?: {opacity?: number, budget_ms?: number}, paused?: boolean,
 *   memory?: {policy: string, spatial: number, pointers: number}, fps?: {in: number, shown: number, segmented: number}, stages_ms?: Record<string, Summary>,
 *   events?: string[], presets?: Preset[], recording?: RecordingStatus | string,
 *   history?: {undo?: number, redo?: number}}} FeedStatus
 */
/**
 * @typedef {{type: "status", feed: string, link: "up" | "silent" | "refused", age_ms: number | null, why?: string,
 *   status: FeedStatus}} StatusMessage
 */
/**
 * @typedef {{type: "picture", feed: string, seq: number, session: string, width: number, height: number,
 *   source_width: number, source_height: number, captured_age_ms: number | null, codec: string,
 *   sample_aspect?: number}} PictureHeader
 */
/**
 * @typedef {{id: number, label: string, score: number, area: number, box: [number, number, number, number],
 *   color?: Rgb | null, hidden?: boolean, size: number}} ObjectHeader
 */
/**
 * @typedef {{type: "masks", feed: string, seq: number, session: string, mask_seq: number | null,
 *   mask_age_ms: number | null, state: MaskState, width: number, height: number, objects: ObjectHeader[],
 *   lost?: number[], cut?: boolean}} MasksHeader
 */
/** @typedef {{type: "answer", n: number, ok: boolean, result?: any, error?: string}} Answer */
/** @typedef {{type: "event", feed: string, at: number, kind: string, text: string, who?: string | null}} EventMessage */
/** @typedef {{type: "refused", why: string}} Refused */
/** @typedef {{type: "pong", t: number}} Pong */
/** @typedef {Welcome | StatusMessage | Answer | EventMessage | Refused | Pong} TextMessage */
/**
 * @typedef {{id: number, label?: string, points?: [number, number, number][], box?: [number, number, number, number],
 *   mask?: {rle: string, height: number, width: number}}} Prompt
 */
/**
 * @typedef {{id: number, seq: number, rle: string, height: number, width: number, score?: number, iou?: number,
 *   warnings?: string[]}} Preview
 */
/** @typedef {{seq: number, conditioning: boolean, score?: number, iou?: number, similarity?: number | null}} Memory */
/**
 * @typedef {{id: number, memories: Memory[], dropped?: {seq: number, why: string}[], pointers?: number}} MemoryBank
 */

const text = new TextDecoder();

/**
 * Split a binary message into its header and what follows.
 * @param {ArrayBuffer} buffer
 * @returns {{header: PictureHeader | MasksHeader, payload: Uint8Array<ArrayBuffer>}}
 */
export function split(buffer) {
  const length = buffer.byteLength >= 4 ? new DataView(buffer).getUint32(0, true) : Infinity;
  if (4 + length > buffer.byteLength) throw new Error(`a message of ${buffer.byteLength} bytes is cut short`);
  const header = JSON.parse(text.decode(new Uint8Array(buffer, 4, length)));
  return { header, payload: new Uint8Array(buffer, 4 + length) };
}

/**
 * The payload of each object of a masks message: COCO compressed RLE, as bytes.
 * @param {MasksHeader} header
 * @param {Uint8Array} payload
 * @returns {Uint8Array[]}
 */
export function rles(header, payload) {
  let at = 0;
  return header.objects.map(({ size }) => payload.subarray(at, (at += size)));
}
