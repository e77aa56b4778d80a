// Draws masks and labels over the picture, in device pixels. A stale mask is a dashed outline; an expired one is not drawn.

import { colorOf, css } from "./colors.js";
import { placeLabels } from "./labels.js";

/** @typedef {import("./feed.js").DrawnObject} DrawnObject */
/** From pixels of masks to pixels of a canvas. @typedef {{x: number, y: number, scale: number}} Place */
/**
 * @typedef {{state: import("./wire.js").MaskState, ageMs: number | null, opacity: number, outline: boolean,
 *   selected: number | null, labels: boolean, unit: number}} Style `unit`: device pixels of a CSS pixel
 */

/**
 * @param {CanvasRenderingContext2D} context which is empty
 * @param {DrawnObject[]} objects
 * @param {Place} place
 * @param {Style} style
 * @param {Map<number, number>} memory where each label was placed before, so that it stays on its side
 */
export function drawMasks(context, objects, place, style, memory) {
  if (style.state === "expired") return;
  const seen = objects.filter((object) => !object.hidden && object.mask.data.length);
  for (const object of seen) drawMask(context, object, place, style);
  if (style.labels) drawLabels(context, seen, place, style, memory);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {DrawnObject} object
 * @param {Place} place
 * @param {Style} style
 */
function drawMask(context, object, place, style) {
  const color = colorOf(object.id, object.color);
  const fresh = style.state === "fresh";
  const width = (object.id === style.selected ? 4 : 2.5) * style.unit;
  context.save();
  context.translate(place.x, place.y);
  context.scale(place.scale, place.scale);
  if (fresh && style.opacity > 0) {
    context.fillStyle = css(color, style.opacity);
    context.fill(object.path, "evenodd");
  }
  if (style.outline || !fresh) {
    context.lineJoin = "round";
    if (!fresh) context.setLineDash([(10 * style.unit) / place.scale, (7 * style.unit) / place.scale]);
    // A dark line below the bright one: one of the two contrasts with any tissue and any instrument.
    for (const [ink, w] of /** @type {[string, number][]} */ ([["rgb(0 0 0 / 0.6)", width * 1.9], [css(color), width]])) {
      context.strokeStyle = ink;
      context.lineWidth = w / place.scale;
      context.stroke(object.path);
    }
  }
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {DrawnObject[]} objects
 * @param {Place} place
 * @param {Style} style
 * @param {Map<number, number>} memory
 */
function drawLabels(context, objects, place, style, memory) {
  const size = Math.round(17 * style.unit);
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const texts = objects.map((object) => {
    const name = object.label || "object";
    return `${object.id} ${style.state === "stale" ? `${name}  ${Math.round(style.ageMs ?? 0)} ms old` : name}`;
  });
  const sizes = texts.map((text) => ({ width: context.measureText(text).width + size * 1.25, height: size * 1.6 }));
  const bounds = { width: context.canvas.width, height: context.canvas.height };
  placeLabels(objects, place, sizes, bounds, memory).forEach((box, i) => {
    const color = colorOf(objects[i].id, objects[i].color);
    leader(context, objects[i], place, box, color, style.unit);
    context.fillStyle = "rgb(10 13 16 / 0.82)";
    context.beginPath();
    context.roundRect(box.x, box.y, box.width, box.height, 3 * style.unit);
    context.fill();
    context.fillStyle = css(color);
    context.fillRect(box.x, box.y, size * 0.32, box.height);
    context.fillStyle = "#fff";
    context.fillText(texts[i], box.x + size * 0.7, box.y + box.height / 2 + size * 0.05);
  });
}

/**
 * A line from a label to its object, where they are apart.
 * @param {CanvasRenderingContext2D} context
 * @param {DrawnObject} object
 * @param {Place} place
 * @param {{x: number, y: number, width: number, height: number}} box
 * @param {import("./wire.js").Rgb} color
 * @param {number} unit
 */
function leader(context, { mask }, place, box, color, unit) {
  const [x0, y0] = [place.x + mask.x * place.scale, place.y + mask.y * place.scale];
  const [x1, y1] = [x0 + mask.width * place.scale, y0 + mask.height * place.scale];
  const [cx, cy] = [box.x + box.width / 2, box.y + box.height / 2];
  const [tx, ty] = [Math.min(Math.max(cx, x0), x1), Math.min(Math.max(cy, y0), y1)];
  const far = Math.max(Math.abs(tx - cx) - box.width / 2, Math.abs(ty - cy) - box.height / 2);
  if (far < 18 * unit) return;
  context.strokeStyle = css(color, 0.8);
  context.lineWidth = 1.5 * unit;
  context.beginPath();
  context.moveTo(cx, cy);
  context.lineTo(tx, ty);
  context.stroke();
}

/**
 * The mask that a prompt would give: brighter than any other, and hatched, so that nobody takes it for a tracked one.
 * @param {CanvasRenderingContext2D} context
 * @param {Path2D} path
 * @param {Place} place
 * @param {import("./wire.js").Rgb} color
 * @param {number} unit
 */
export function drawProposal(context, path, place, color, unit) {
  context.save();
  context.translate(place.x, place.y);
  context.scale(place.scale, place.scale);
  context.fillStyle = css(color, 0.32);
  context.fill(path, "evenodd");
  context.clip(path, "evenodd");
  context.strokeStyle = css(color, 0.55);
  context.lineWidth = (1.5 * unit) / place.scale;
  const [step, reach] = [(9 * unit) / place.scale, Math.max(context.canvas.width, context.canvas.height) / place.scale];
  context.beginPath();
  for (let x = -reach; x < reach; x += step) {
    context.moveTo(x, 0);
    context.lineTo(x + reach, reach);
  }
  context.stroke();
  context.restore();
  context.save();
  context.translate(place.x, place.y);
  context.scale(place.scale, place.scale);
  for (const [ink, width] of /** @type {[string, number][]} */ ([["#000", 6], ["#fff", 3]])) {
    context.strokeStyle = ink;
    context.lineWidth = (width * unit) / place.scale;
    context.stroke(path);
  }
  context.restore();
}
