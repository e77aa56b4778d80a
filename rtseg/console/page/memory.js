// The memory bank of each object: the frames that it keeps, as small pictures, and why others were dropped.

import { colorOf, css } from "./colors.js";
import { h, say } from "./dom.js";

/** @typedef {import("./feed.js").Feed} Feed */
/** @typedef {import("./wire.js").MemoryBank} MemoryBank */

const PERIOD_MS = 1000;

export class MemoryBanks {
  /** @param {() => Feed | null} feed */
  constructor(feed) {
    this.feed = feed;
    this.askedMs = 0;
    this.problem = h("p", { class: "note" });
    this.banks = h("div", { class: "banks" });
    this.element = h("section", { class: "card" }, h("h3", {}, "Memory"), this.banks, this.problem);
  }

  /** Asks for the banks, once a second while somebody looks. */
  update() {
    const feed = this.feed();
    if (!feed || performance.now() - this.askedMs < PERIOD_MS) return;
    this.askedMs = performance.now();
    feed.thumbnails.wanted = true;
    feed.order("memory").then(
      (result) => this.#show(feed, Array.isArray(result) ? result : (result.objects ?? [])),
      (error) => say(this.problem, `The memory cannot be shown: ${error.message}`),
    );
  }

  /**
   * @param {Feed} feed
   * @param {MemoryBank[]} banks
   */
  #show(feed, banks) {
    if (feed !== this.feed()) return;
    say(this.problem, banks.length ? "" : "No object, no memory.");
    feed.thumbnails.keep(banks.flatMap(({ memories, dropped }) => [...memories, ...(dropped ?? [])].map(({ seq }) => seq)));
    this.banks.replaceChildren(...banks.map((bank) => this.#bank(feed, bank)));
  }

  /**
   * @param {Feed} feed
   * @param {MemoryBank} bank
   */
  #bank(feed, { id, memories, dropped = [], pointers }) {
    const heading = h("h4", {}, `${id} ${feed.label(id)}`);
    heading.style.borderLeftColor = css(colorOf(id, feed.masks?.objects.find((o) => o.id === id)?.color));
    const kept = memories.map((memory) => {
      const like = typeof memory.similarity === "number" ? `similar ${memory.similarity.toFixed(3)}` : "";
      const sure = typeof memory.score === "number" ? `score ${memory.score.toFixed(2)}` : "";
      return this.#frame(feed, memory.seq, memory.conditioning ? "prompted" : like, sure, memory.conditioning ? "conditioning" : "");
    });
    const gone = dropped.slice(-4).reverse().map(({ seq, why }) => this.#frame(feed, seq, "dropped", why, "gone"));
    const count = pointers === undefined ? "" : `, ${pointers} pointers`;
    return h("div", { class: "bank" }, heading, h("p", { class: "note" }, `${memories.length} memories${count}`),
      h("ul", { class: "frames" }, ...kept, ...gone));
  }

  /**
   * @param {Feed} feed
   * @param {number} seq
   * @param {string} first
   * @param {string} second
   * @param {string} kind
   */
  #frame(feed, seq, first, second, kind) {
    const seen = feed.thumbnails.of(seq);
    const image = h("canvas", { "aria-hidden": "true", width: 128, height: 72 });
    if (seen) {
      image.height = seen.image.height;
      image.getContext("2d")?.drawImage(seen.image, 0, 0);
    }
    return h("li", { class: kind }, image, h("b", {}, `frame ${seq}`), h("span", {}, first), h("span", {}, second));
  }
}
