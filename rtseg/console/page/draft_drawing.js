// Draws a prompt that is being made: its points, box and brush, the crosshair, and the mask that it would give.

import { css } from "./colors.js";
import { drawProposal } from "./overlay.js";

/** @typedef {import("./pointing.js").Pointing} Pointing */
/** @typedef {import("./overlay.js").Place} Place */

/**
 * @param {Pointing} pointing
 * @param {CanvasRenderingContext2D} context
 * @param {Place} place from pixels of the source to those of the canvas
 * @param {number} unit device pixels of a CSS pixel
 */
export function drawDraft(pointing, context, place, unit) {
  const { draft, proposal, color } = pointing;
  if (draft.brushed) drawBrushed(pointing, context, place);
  else if (proposal) drawProposal(context, proposal.path, place, color, unit);
  const at = (/** @type {[number, number]} */ [x, y]) =>
    /** @type {[number, number]} */ ([place.x + x * place.scale, place.y + y * place.scale]);
  if (draft.box) drawBox(context, at([draft.box[0], draft.box[1]]), at([draft.box[2], draft.box[3]]), unit);
  const end = pointing.hover ?? pointing.cross;
  if (pointing.corner && end) drawBox(context, at(pointing.corner), at(end), unit);
  for (const [x, y, on] of draft.points) drawPoint(context, at([x, y]), on === 1, unit);
  if (pointing.tool === "brush" && end) drawRing(context, at(end), pointing.radius * place.scale, unit);
  if (pointing.cross) drawCross(context, at(pointing.cross), unit);
}

/**
 * @param {Pointing} pointing
 * @param {CanvasRenderingContext2D} context
 * @param {Place} place
 */
function drawBrushed({ draft, color, held }, context, place) {
  if (!held) return;
  const layer = document.createElement("canvas");
  Object.assign(layer, { width: held.width, height: held.height });
  const into = layer.getContext("2d");
  if (!into) return;
  draft.drawBrushed(into, css(color));
  context.save();
  context.globalAlpha = 0.55;
  context.drawImage(layer, place.x, place.y, held.width * place.scale, held.height * place.scale);
  context.restore();
}

/**
 * White on black: seen on any picture. A point on the object is a plus, one that it is not is a minus.
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number]} at
 * @param {boolean} on
 * @param {number} unit
 */
function drawPoint(context, [x, y], on, unit) {
  const r = 11 * unit;
  context.beginPath();
  if (on) context.arc(x, y, r, 0, 2 * Math.PI);
  else context.rect(x - r, y - r, 2 * r, 2 * r);
  context.fillStyle = on ? "#fff" : "#101418";
  context.fill();
  context.lineWidth = 2.5 * unit;
  context.strokeStyle = on ? "#101418" : "#fff";
  context.stroke();
  context.beginPath();
  context.moveTo(x - r / 2, y);
  context.lineTo(x + r / 2, y);
  if (on) {
    context.moveTo(x, y - r / 2);
    context.lineTo(x, y + r / 2);
  }
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {() => void} trace
 * @param {number} unit
 */
function twice(context, trace, unit) {
  for (const [ink, width] of /** @type {[string, number][]} */ ([["#000", 5], ["#fff", 2]])) {
    context.strokeStyle = ink;
    context.lineWidth = width * unit;
    context.beginPath();
    trace();
    context.stroke();
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @param {number} unit
 */
function drawBox(context, from, to, unit) {
  twice(context, () => context.rect(from[0], from[1], to[0] - from[0], to[1] - from[1]), unit);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number]} at
 * @param {number} radius
 * @param {number} unit
 */
function drawRing(context, [x, y], radius, unit) {
  twice(context, () => context.arc(x, y, Math.max(2, radius), 0, 2 * Math.PI), unit);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number]} at
 * @param {number} unit
 */
function drawCross(context, [x, y], unit) {
  const [gap, reach] = [7 * unit, 34 * unit];
  twice(context, () => {
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + dx * gap, y + dy * gap);
      context.lineTo(x + dx * reach, y + dy * reach);
    }
  }, unit);
}
