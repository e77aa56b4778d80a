// Every key, once: what it does, and what the help sheet says of it.

/** @typedef {{keys: string[], shown: string, text: string, act: string, when?: "pointing" | "recording"}} Key */
/** @typedef {{title: string, keys: Key[]}} Group */

/**
 * @param {string} keys separated by blanks
 * @param {string} shown
 * @param {string} act
 * @param {string} text
 * @param {Key["when"]} [when]
 * @returns {Key}
 */
const key = (keys, shown, act, text, when) => ({ keys: keys.split(" "), shown, act, text, when });

/** @type {Group[]} The first that fits is done: keys of pointing come before those of a recording. */
export const GROUPS = [
  {
    title: "Pointing",
    keys: [
      key("p", "P", "hold", "Hold the picture and point by keyboard"),
      key("ArrowLeft Shift+ArrowLeft ArrowRight Shift+ArrowRight ArrowUp Shift+ArrowUp ArrowDown Shift+ArrowDown", "← → ↑ ↓", "move", "Move the crosshair; with Shift finely", "pointing"),
      key("Space", "Space", "put", "Point: this is the object; with the brush: paint", "pointing"),
      key("x Shift+Space", "X", "putNot", "Point: this is not the object; with the brush: erase", "pointing"),
      key("b", "B", "corner", "First, then second corner of a box", "pointing"),
      key("m", "M", "brush", "Brush or point"),
      key(",", ",", "smaller", "Smaller brush"),
      key(".", ".", "larger", "Larger brush"),
      key("Backspace", "Backspace", "takeBack", "Take back the last point, box or stroke", "pointing"),
      key("Enter", "Enter", "accept", "Accept the proposed mask", "pointing"),
      key("Escape", "Esc", "cancel", "Leave without a change; the picture goes on", "pointing"),
    ],
  },
  {
    title: "Objects",
    keys: [
      key("1 2 3 4 5 6 7 8 9", "1 – 9", "select", "Choose an object: the next prompt corrects it"),
      key("n 0", "N", "fresh", "New object: the next prompt adds it"),
      key("r", "R", "rename", "Name of the object"),
      key("c", "C", "color", "Colour of the object"),
      key("h", "H", "hide", "Hide or show the object"),
      key("Delete", "Del", "remove", "Remove the object"),
      key("z Ctrl+z", "Z", "undo", "Undo the last change of prompts"),
      key("y Ctrl+y Shift+z Ctrl+Shift+z", "Y", "redo", "Redo it"),
    ],
  },
  {
    title: "Picture",
    keys: [
      key("v", "V", "layout", "Masks, original, or both side by side"),
      key("f", "F", "full", "Full screen"),
      key("w", "W", "wall", "All feeds, or one"),
      key("PageDown ]", "PgDn", "nextFeed", "Next feed"),
      key("PageUp [", "PgUp", "previousFeed", "Feed before"),
      key("+ =", "+", "more", "Stronger tint of masks"),
      key("-", "−", "less", "Weaker tint of masks"),
      key("o", "O", "outline", "Outlines on or off"),
      key("l", "L", "labels", "Labels on or off"),
      key("s", "S", "png", "Save this frame with its masks as PNG"),
      key("Shift+s", "Shift S", "coco", "Save its masks as COCO"),
    ],
  },
  {
    title: "Feed",
    keys: [
      key("i", "I", "tab", "Objects, insight, events"),
      key("k", "K", "pause", "Pause or resume the network"),
      key("?", "?", "help", "This sheet"),
    ],
  },
  {
    title: "Recording",
    keys: [
      key("Space", "Space", "play", "Play or stop", "recording"),
      key("ArrowLeft Shift+ArrowLeft", "←", "back", "One frame back; with Shift one second", "recording"),
      key("ArrowRight Shift+ArrowRight", "→", "on", "One frame on; with Shift one second", "recording"),
      key("Home", "Home", "first", "First frame", "recording"),
      key("End", "End", "last", "Last frame", "recording"),
      key("t", "T", "track", "Track forward", "recording"),
      key("Shift+t", "Shift T", "trackBoth", "Track both ways", "recording"),
      key("g", "G", "from", "The stretch begins here", "recording"),
      key("j", "J", "to", "The stretch ends here", "recording"),
      key("u", "U", "lock", "Lock or unlock the stretch", "recording"),
      key("e", "E", "export", "Export", "recording"),
    ],
  },
];

/**
 * The name of a pressed key, such as "Shift+ArrowLeft" or "?".
 * @param {KeyboardEvent} event
 */
export function nameOf({ key: pressed, shiftKey, ctrlKey, metaKey }) {
  const plain = pressed === " " ? "Space" : pressed.length === 1 ? pressed.toLowerCase() : pressed;
  // A sign such as "?" already needs Shift on some keyboards.
  const shift = shiftKey && (plain.length > 1 || /[a-z]/.test(plain)) ? "Shift+" : "";
  return (ctrlKey || metaKey ? "Ctrl+" : "") + shift + plain;
}

/**
 * Whether a key belongs to the element that has the focus: text to a field, Enter to a button, arrows to a slider.
 * @param {KeyboardEvent} event
 */
export function isTaken({ target, key: pressed, altKey }) {
  if (altKey || !(target instanceof Element)) return altKey;
  const plain = /** @type {HTMLInputElement} */ (target).type;
  const arrows = pressed.startsWith("Arrow") || pressed === "Home" || pressed === "End";
  if (target.closest("dialog")) return true;
  if (target.matches("textarea, select") || (target.matches("input") && !["range", "checkbox", "color"].includes(plain))) return true;
  if (target.matches("input[type=range], [role=tab]") && (arrows || pressed.startsWith("Page"))) return true;
  return target.matches("button, a, summary, input") && (pressed === "Enter" || pressed === " ");
}

/**
 * What a key does now; null if nothing.
 * @param {string} name
 * @param {{pointing: boolean, recording: boolean}} now
 */
export function actOf(name, now) {
  for (const { keys } of GROUPS) {
    const found = keys.find((one) => one.keys.includes(name) && (one.when === undefined || now[one.when]));
    if (found) return found.act;
  }
  return null;
}
