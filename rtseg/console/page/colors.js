// The colours of objects: those of rtseg/base/colors.py, which are told apart by the colour-blind too. A test compares.

/** @typedef {import("./wire.js").Rgb} Rgb */

/** @type {Rgb[]} */
export const PALETTE = [
  [0, 230, 255], [160, 80, 255], [230, 255, 0], [80, 160, 0], [200, 80, 200], [160, 230, 160], [160, 200, 0],
  [120, 160, 255], [255, 0, 140], [20, 100, 100], [100, 100, 0], [100, 120, 80], [80, 80, 200], [255, 120, 140],
  [140, 255, 140], [120, 20, 255], [80, 200, 180], [180, 140, 200], [200, 200, 80], [120, 160, 80], [140, 60, 140],
  [180, 0, 100], [180, 255, 255], [0, 120, 180],
];

/**
 * @param {number} id
 * @param {Rgb | null} [own] the colour that somebody gave the object
 * @returns {Rgb}
 */
export function colorOf(id, own) {
  return own ?? PALETTE[(Math.max(1, id) - 1) % PALETTE.length];
}

/**
 * @param {Rgb} rgb
 * @param {number} [opacity]
 */
export function css([r, g, b], opacity = 1) {
  return `rgb(${r} ${g} ${b} / ${opacity})`;
}

/** @param {Rgb} rgb */
export function hex(rgb) {
  return "#" + rgb.map((value) => Math.round(value).toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} text #rrggbb
 * @returns {Rgb}
 */
export function rgbOf(text) {
  const value = parseInt(text.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
