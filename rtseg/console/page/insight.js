// What happens inside: delays, rates, stages, scores over the last minutes; memory banks with their frames; events.

import { Chart, INKS } from "./charts.js";
import { colorOf, css } from "./colors.js";
import { get, h, say } from "./dom.js";
import { MemoryBanks } from "./memory.js";

/** @typedef {import("./feed.js").Feed} Feed */

const WINDOW = 360; // samples: three minutes
const STAGES = 6; // the slowest ones: more lines are not told apart

export class Insight {
  /** @param {() => Feed | null} feed */
  constructor(feed) {
    this.feed = feed;
    this.facts = h("dl", { class: "facts" });
    this.delay = new Chart("Delay", "From capture to this screen, and the age of the masks. The line across is their budget.");
    this.rates = new Chart("Rates", "Pictures and masks a second.");
    this.stages = new Chart("Stages", "The time that each stage takes.");
    this.scores = new Chart("Scores", "How sure the network is that it sees each object.");
    this.banks = new MemoryBanks(feed);
    const charts = [this.delay, this.rates, this.stages, this.scores].map(({ element }) => element);
    get("insight", HTMLDivElement).append(h("section", { class: "card" }, h("h3", {}, "Feed"), this.facts), ...charts, this.banks.element);
  }

  update() {
    const feed = this.feed();
    if (!feed) return;
    const samples = feed.history.slice(-WINDOW);
    const at = samples.map(({ atMs }) => atMs);
    const ink = (/** @type {number} */ i) => INKS[i % INKS.length];
    this.#tellFacts(feed);
    this.delay.draw(at, [
      { name: "Capture to screen", ...ink(0), values: samples.map((s) => s.delay), unit: "ms" },
      { name: "Mask age", ...ink(1), values: samples.map((s) => s.mask), unit: "ms" },
    ], undefined, feed.budgetMs);
    this.rates.draw(at, [
      { name: "Pictures", ...ink(0), values: samples.map((s) => s.fps), unit: "/s", digits: 1 },
      { name: "Masks", ...ink(1), values: samples.map((s) => s.masks), unit: "/s", digits: 1 },
    ]);
    const newest = samples.at(-1)?.stages ?? {};
    const slowest = Object.keys(newest).filter((name) => name !== "mask age" && name !== "jitter")
      .sort((a, b) => newest[b] - newest[a]).slice(0, STAGES).sort();
    this.stages.draw(at, slowest.map((name, i) => (
      { name, ...ink(i), values: samples.map((s) => s.stages[name] ?? null), unit: "ms", digits: 1 })));
    const ids = [...new Set(samples.flatMap((s) => [...s.scores.keys()]))].sort((a, b) => a - b);
    this.scores.draw(at, ids.map((id, i) => ({
      name: feed.label(id), color: css(colorOf(id, feed.masks?.objects.find((o) => o.id === id)?.color)),
      dash: ink(i).dash, values: samples.map((s) => s.scores.get(id) ?? null), unit: "", digits: 2 })), 1);
    this.banks.update();
  }

  /** @param {Feed} feed */
  #tellFacts(feed) {
    const { status } = feed;
    const drops = Object.entries(status.frames?.dropped ?? {}).map(([cause, n]) => `${cause} ${n}`).join(", ");
    const states = Object.entries(status.mask_states ?? {}).filter(([, n]) => n).map(([state, n]) => `${state} ${n}`).join(", ");
    const header = feed.picture?.header;
    /** @type {[string, string][]} */
    const facts = [
      ["Engine", status.engine || "–"],
      ["Memory", memoryOf(status)],
      ["Source", status.source?.uri || "–"],
      ["Picture", header ? `${header.source_width} × ${header.source_height}, frame ${header.seq}` : "–"],
      ["Frames in", status.frames ? `${status.frames.in}, shown ${status.frames.shown}` : "–"],
      ["Dropped", drops || "none"],
      ["Masks shown", states || "none"],
      ["Connection", `${(feed.link.state.roundTripMs ?? 0).toFixed(1)} ms there and back`],
    ];
    if (!this.facts.childElementCount) this.facts.append(...facts.map(() => h("div", {}, h("dt"), h("dd"))));
    facts.forEach(([name, value], i) => {
      const [term, fact] = this.facts.children[i].children;
      say(term, name);
      say(fact, value);
    });
  }
}

/** @param {import("./wire.js").FeedStatus} status */
function memoryOf({ memory }) {
  return memory ? `${memory.policy}, ${memory.spatial} spatial, ${memory.pointers} pointers` : "–";
}

/**
 * The newest events, in words.
 * @param {Feed} feed
 * @param {HTMLOListElement} list
 */
export function tellEvents(feed, list) {
  const newest = feed.events.slice(-100).reverse();
  list.replaceChildren(...newest.map(({ at, kind, text, who }) =>
    h("li", {}, h("time", {}, at.toTimeString().slice(0, 8)), h("b", {}, kind), h("span", {}, who ? `${text} (${who})` : text))));
  if (!newest.length) list.append(h("li", { class: "none" }, "Nothing happened yet."));
}
