// The outline of a mask as a path, so that it is crisp at any size.

/** @typedef {import("./rle.js").Mask} Mask */

const STEP = [[1, 0], [0, 1], [-1, 0], [0, -1]]; // east, south, west, north
const TOLERANCE = 0.12; // pixels of the mask: how far a left-out point may lie from its line

/**
 * The closed outlines of a mask, of holes too, in pixels of the whole picture: x, y, x, y, ...
 * @param {Mask} mask
 * @returns {number[][]}
 */
export function outlines(mask) {
  const { width, height, data } = mask;
  const seen = new Uint8Array(data.length);
  const found = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      if (data[at] && !(y > 0 && data[at - width]) && !seen[at]) {
        found.push(simplify(smooth(trace(mask, x, y, seen))));
      }
    }
  }
  return found;
}

/**
 * The middles of the pixel edges along one outline, with the inside on the right.
 * @param {Mask} mask
 * @param {number} x0 the pixel whose upper edge the outline begins with
 * @param {number} y0
 * @param {Uint8Array} seen pixels whose upper edge has been passed
 * @returns {number[]}
 */
function trace({ x: left, y: top, width, height, data }, x0, y0, seen) {
  /** @type {(x: number, y: number) => boolean} */
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] === 1;
  const points = [];
  let [x, y, way] = [x0, y0, 0];
  do {
    const [dx, dy] = STEP[way];
    if (way === 0) seen[y * width + x] = 1;
    points.push(left + x + dx / 2, top + y + dy / 2);
    x += dx;
    y += dy;
    // The pixels ahead of the corner that was reached: on the right, then on the left.
    if (!inside(x + (dx - dy - 1) / 2, y + (dy + dx - 1) / 2)) way = (way + 1) % 4;
    else if (inside(x + (dx + dy - 1) / 2, y + (dy - dx - 1) / 2)) way = (way + 3) % 4;
  } while (x !== x0 || y !== y0 || way !== 0);
  return points;
}

/**
 * Each point averaged with its neighbours (1, 2, 1): the stairs of pixels become a line, moved by half a pixel at most.
 * @param {number[]} points
 * @returns {number[]}
 */
function smooth(points) {
  const n = points.length;
  if (n < 16) return points;
  return points.map((value, i) => (points[(i + n - 2) % n] + 2 * value + points[(i + 2) % n]) / 4);
}

/**
 * Leaves out points that lie on the line between those that are kept.
 * @param {number[]} points
 * @returns {number[]}
 */
function simplify(points) {
  const kept = points.slice(0, 2);
  let [ax, ay] = kept;
  for (let i = 2, since = 2; i + 3 < points.length; i += 2) {
    const [bx, by] = [points[i + 2], points[i + 3]];
    const length = Math.hypot(bx - ax, by - ay) || 1;
    for (let j = since; j <= i; j += 2) {
      const off = (bx - ax) * (ay - points[j + 1]) - (ax - points[j]) * (by - ay);
      if (Math.abs(off) / length > TOLERANCE || i - since > 60) {
        [ax, ay] = [points[i], points[i + 1]];
        kept.push(ax, ay);
        since = i + 2;
        break;
      }
    }
  }
  return kept;
}

/**
 * The outline of a mask for a canvas; fill it by the rule "evenodd".
 * @param {Mask} mask
 * @returns {Path2D}
 */
export function pathOf(mask) {
  const path = new Path2D();
  for (const points of outlines(mask)) {
    path.moveTo(points[0], points[1]);
    for (let i = 2; i < points.length; i += 2) path.lineTo(points[i], points[i + 1]);
    path.closePath();
  }
  return path;
}
