// Masks as COCO compressed RLE: run lengths down the columns, beginning with a run of background.

/**
 * A mask within its box. `data` holds 0 or 1 for each pixel of the box, row by row; `x`, `y` are its first pixel.
 * @typedef {{x: number, y: number, width: number, height: number, data: Uint8Array}} Mask
 */

const EMPTY = { x: 0, y: 0, width: 0, height: 0, data: new Uint8Array(0) };

/**
 * The run lengths of compressed counts.
 * Each character, minus 48, has five bits of the number, lowest first, and one that says whether another follows. From
 * the fourth number on, it is the difference to the number two places before.
 * @param {Uint8Array} bytes
 * @returns {number[]}
 */
function runLengths(bytes) {
  /** @type {number[]} */
  const lengths = [];
  for (let at = 0; at < bytes.length; ) {
    let value = 0;
    for (let shift = 0, more = true; more; shift += 5) {
      const bits = (at < bytes.length ? bytes[at++] : 0) - 48;
      if (bits < 0 || bits > 63 || shift > 25) throw new Error("broken characters");
      value |= (bits & 31) << shift;
      more = (bits & 32) > 0;
      if (!more && bits & 16 && shift < 25) value |= -1 << (shift + 5);
    }
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    if (value < 0) throw new Error("a negative run");
    lengths.push(value);
  }
  return lengths;
}

/**
 * The mask of compressed counts, cut to its box. Throws an `Error` of one line if they do not fill it exactly.
 * @param {Uint8Array | string} counts
 * @param {number} height of the whole mask, in pixels
 * @param {number} width
 * @returns {Mask}
 */
export function decode(counts, height, width) {
  const bytes = typeof counts === "string" ? new TextEncoder().encode(counts) : counts;
  try {
    const lengths = runLengths(bytes);
    const total = lengths.reduce((sum, n) => sum + n, 0);
    if (total !== height * width) throw new Error(`${total} pixels instead of ${height * width}`);
    return fill(lengths, height);
  } catch (error) {
    throw new Error(`not a mask of ${width}x${height} pixels: ${error instanceof Error ? error.message : error}`);
  }
}

/**
 * Calls `draw(x, y0, y1)` for each stretch of a column that the runs cover.
 * @param {number[]} lengths
 * @param {number} height
 * @param {(x: number, y0: number, y1: number) => void} draw
 */
function columns(lengths, height, draw) {
  let at = 0;
  lengths.forEach((length, i) => {
    for (let end = at + length; i % 2 === 1 && at < end; ) {
      const x = Math.floor(at / height);
      const stop = Math.min(end, (x + 1) * height);
      draw(x, at - x * height, stop - x * height);
      at = stop;
    }
    if (i % 2 === 0) at += length;
  });
}

/**
 * @param {number[]} lengths
 * @param {number} height
 * @returns {Mask}
 */
function fill(lengths, height) {
  let [x0, y0, x1, y1] = [Infinity, Infinity, 0, 0];
  columns(lengths, height, (x, top, bottom) => {
    x0 = Math.min(x0, x);
    x1 = Math.max(x1, x + 1);
    y0 = Math.min(y0, top);
    y1 = Math.max(y1, bottom);
  });
  if (x0 === Infinity) return EMPTY;
  const width = x1 - x0;
  const data = new Uint8Array(width * (y1 - y0));
  columns(lengths, height, (x, top, bottom) => {
    for (let y = top; y < bottom; y++) data[(y - y0) * width + x - x0] = 1;
  });
  return { x: x0, y: y0, width, height: y1 - y0, data };
}

/**
 * The compressed counts of a mask.
 * @param {ArrayLike<number>} data 0 for background, for each pixel, row by row
 * @param {number} height
 * @param {number} width
 * @returns {string}
 */
export function encode(data, height, width) {
  /** @type {number[]} */
  const lengths = [];
  let [length, inside] = [0, false];
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (data[y * width + x] !== 0 !== inside) {
        lengths.push(length);
        [length, inside] = [0, !inside];
      }
      length++;
    }
  }
  lengths.push(length);
  let text = "";
  lengths.forEach((n, i) => {
    let value = i > 2 ? n - lengths[i - 2] : n;
    for (let more = true; more; ) {
      const bits = value & 31;
      value >>= 5;
      more = bits & 16 ? value !== -1 : value !== 0;
      text += String.fromCharCode((more ? bits | 32 : bits) + 48);
    }
  });
  return text;
}
