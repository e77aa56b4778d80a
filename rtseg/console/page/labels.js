// Where the label of each object stands: near it, inside the picture, off other labels, and off every mask.

/** @typedef {{x: number, y: number, width: number, height: number}} Box */
/** @typedef {import("./rle.js").Mask} Mask */
/** @typedef {{x: number, y: number, scale: number}} Place */

const SAMPLES = 6; // a label's box is looked at in so many columns, and three rows
const STAY = 0.15; // of its box: how much better another side must be before a label changes sides

/**
 * @param {{id: number, mask: Mask}[]} objects
 * @param {Place} place of the picture on the canvas
 * @param {{width: number, height: number}[]} sizes of the labels, in pixels of the canvas
 * @param {{width: number, height: number}} bounds
 * @param {Map<number, number>} memory the side of each object's label, which is updated
 * @returns {Box[]}
 */
export function placeLabels(objects, place, sizes, bounds, memory) {
  /** @type {Box[]} */
  const taken = [];
  objects.forEach((object, i) => {
    const boxes = candidates(onCanvas(object.mask, place), sizes[i]).map((box) => inside(box, bounds));
    const costs = boxes.map((box) => cost(box, taken, objects, place));
    const before = memory.get(object.id);
    let best = costs.indexOf(Math.min(...costs));
    if (before !== undefined && costs[before] <= costs[best] + STAY) best = before;
    memory.set(object.id, best);
    taken.push(boxes[best]);
  });
  return taken;
}

/**
 * @param {Mask} mask
 * @param {Place} place
 * @returns {Box}
 */
function onCanvas({ x, y, width, height }, { x: left, y: top, scale }) {
  return { x: left + x * scale, y: top + y * scale, width: width * scale, height: height * scale };
}

/**
 * Above, below, right, left, and along the upper and lower edge, at three distances.
 * @param {Box} object
 * @param {{width: number, height: number}} size
 * @returns {Box[]}
 */
function candidates({ x, y, width: w, height: h }, { width, height }) {
  const [gap, cx, cy] = [height / 3, x + w / 2 - width / 2, y + h / 2 - height / 2];
  const found = [];
  for (const far of [gap, height * 1.5, height * 3]) {
    found.push([cx, y - height - far], [cx, y + h + far], [x + w + far, cy], [x - width - far, cy]);
  }
  found.push([x, y], [x + w - width, y], [x, y + h - height], [x + w - width, y + h - height]);
  return found.map(([left, top]) => ({ x: left, y: top, width, height }));
}

/**
 * @param {Box} box
 * @param {{width: number, height: number}} bounds
 * @returns {Box}
 */
function inside(box, bounds) {
  const clamp = (/** @type {number} */ value, /** @type {number} */ most) => Math.min(Math.max(value, 0), Math.max(0, most));
  return { ...box, x: clamp(box.x, bounds.width - box.width), y: clamp(box.y, bounds.height - box.height) };
}

/**
 * Overlap with other labels counts ten times as much as what a label hides of a mask, from 0 to 1.
 * @param {Box} box
 * @param {Box[]} taken
 * @param {{mask: Mask}[]} objects
 * @param {Place} place
 */
function cost(box, taken, objects, place) {
  const area = box.width * box.height;
  const labels = taken.reduce((sum, other) => sum + overlap(box, other), 0) / area;
  let hidden = 0;
  for (let i = 0; i <= SAMPLES; i++) {
    for (let j = 0; j <= 2; j++) {
      const x = Math.floor((box.x + (box.width * i) / SAMPLES - place.x) / place.scale);
      const y = Math.floor((box.y + (box.height * j) / 2 - place.y) / place.scale);
      hidden += objects.some(({ mask }) => covers(mask, x - mask.x, y - mask.y)) ? 1 : 0;
    }
  }
  return 10 * labels + hidden / (3 * (SAMPLES + 1));
}

/**
 * @param {Mask} mask
 * @param {number} x
 * @param {number} y
 */
function covers({ width, height, data }, x, y) {
  return x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] === 1;
}

/**
 * @param {Box} a
 * @param {Box} b
 */
function overlap(a, b) {
  const wide = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const high = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  return Math.max(0, wide) * Math.max(0, high);
}
