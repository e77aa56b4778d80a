// The help sheet: every key, what the hand does, and what each state looks like.

import { get, h } from "./dom.js";
import { GROUPS } from "./keys.js";
import { SHAPES } from "./verdict.js";

const HANDS = [
  ["Click, tap", "This is the object. The picture is held until you accept or leave."],
  ["Shift or right click, long press", "This is not the object."],
  ["Drag", "A box around the object; with the brush, its mask."],
  ["Shift drag, a pen's eraser", "With the brush: erase."],
];

/** @type {[import("./verdict.js").Shape, import("./verdict.js").Level, string, string][]} */
const STATES = [
  ["disc", "good", "Fresh", "Masks are within their budget."],
  ["clock", "warn", "Late", "The picture takes long to reach this screen."],
  ["chevrons", "warn", "Behind", "The network does not keep up; it says by how much and what helps."],
  ["dashes", "warn", "Stale", "Masks are past their budget: dashed outlines, later none."],
  ["turn", "warn", "Recovering", "Objects are being restored; the picture is live."],
  ["square", "bad", "Frozen", "The source repeats one picture. It is grey here."],
  ["cross", "bad", "No signal, connection lost", "The picture is old. It is grey, with its age."],
  ["octagon", "bad", "Failed, refused", "It will not come back by itself."],
  ["bars", "idle", "Paused, ended", "Somebody asked for it."],
];

/** Keys of one letter can be switched off, for whoever dictates or has a hand that trembles. */
export class Help {
  constructor() {
    this.dialog = get("help", HTMLDialogElement);
    this.letters = h("input", { type: "checkbox", id: "letters", checked: true });
    const keys = GROUPS.map(({ title, keys: own }) =>
      h("section", {}, h("h3", {}, title), h("dl", {}, ...own.flatMap(({ shown, text }) => [h("dt", {}, h("kbd", {}, shown)), h("dd", {}, text)]))));
    const hands = h("section", {}, h("h3", {}, "Mouse, pen and touch"),
      h("dl", {}, ...HANDS.flatMap(([what, text]) => [h("dt", {}, what), h("dd", {}, text)])));
    const states = h("section", {}, h("h3", {}, "States"),
      h("dl", { class: "states" }, ...STATES.flatMap(([shape, level, word, text]) => [sign(shape, level, word), h("dd", {}, text)])));
    get("help-body", HTMLDivElement).append(hands, ...keys, states,
      h("p", {}, this.letters, h("label", { for: "letters" }, "Keys of one letter are on")));
  }

  toggle() {
    if (this.dialog.open) this.dialog.close();
    else this.dialog.showModal();
  }
}

/**
 * @param {import("./verdict.js").Shape} shape
 * @param {import("./verdict.js").Level} level
 * @param {string} word
 */
function sign(shape, level, word) {
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  icon.setAttribute("viewBox", "0 0 24 24");
  icon.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[shape]);
  icon.append(path);
  return h("dt", { "data-level": level }, icon, word);
}
