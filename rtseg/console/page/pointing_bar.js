// What is being pointed at, in words, with the buttons that end it.

import { ago, button, get, say } from "./dom.js";
import { KEPT_FRAMES } from "./pointing.js";

/** @typedef {import("./pointing.js").Pointing} Pointing */

export class PointingBar {
  /** @param {Pointing} pointing */
  constructor(pointing) {
    this.pointing = pointing;
    this.element = get("pointing", HTMLElement);
    this.text = get("pointing-text", HTMLElement);
    this.accept = button("Accept", () => void pointing.accept(), { class: "primary" });
    this.cancel = button("Cancel", () => pointing.cancel());
    this.back = button("Take back", () => pointing.takeBack());
    this.point = button("Point, box", () => this.choose("point"));
    this.brush = button("Brush", () => this.choose("brush"));
    get("pointing-acts", HTMLElement).append(this.accept, this.cancel, this.back, this.point, this.brush);
  }

  /** @param {"point" | "brush"} tool */
  choose(tool) {
    this.pointing.tool = tool;
    this.pointing.redraw();
    this.update();
  }

  update() {
    const { held, draft, tool, ready } = this.pointing;
    this.element.hidden = !held;
    get("live", HTMLElement).hidden = !held;
    document.body.classList.toggle("pointing-on", held !== null);
    this.point.setAttribute("aria-pressed", String(tool === "point"));
    this.brush.setAttribute("aria-pressed", String(tool === "brush"));
    if (!held) return;
    this.accept.disabled = !ready;
    this.back.disabled = draft.empty;
    say(this.text, `${this.#what()} ${this.#proposal()}`);
    this.element.dataset.level = this.pointing.error ? "bad" : this.pointing.proposal?.warnings.length ? "warn" : "idle";
  }

  #what() {
    const { held, events, framesBehind } = this.pointing;
    if (!held) return "";
    const { id, label, known } = events.target();
    const name = label ? `${id} ${label}` : `${id}`;
    const far = held.kept || held.view.feed.recording || framesBehind <= KEPT_FRAMES ? "" : ` The feed keeps the latest ${KEPT_FRAMES} pictures, and this one is ${framesBehind} back: point again.`;
    const age = held.view.feed.recording ? "" : `, held for ${ago(performance.now() - held.sinceMs)}`;
    return `${known ? "Correcting" : "New object"} ${name} on frame ${held.seq}${age}.${far}`;
  }

  #proposal() {
    const { proposal, error, draft, asking, accepting } = this.pointing;
    if (accepting) return "Giving it to the feed.";
    if (error) return `Not possible: ${error}`;
    if (draft.empty) return "Click the object; drag a box; long press, Shift or right click for what it is not.";
    if (asking && !proposal) return "Asking for its mask.";
    if (!proposal) return "";
    const fit = proposal.iou === null ? "" : `, expected fit ${Math.round(proposal.iou * 100)} %`;
    return `Proposed mask after ${Math.round(proposal.ms)} ms${fit}. ${proposal.warnings.join(" ")}`;
  }
}
