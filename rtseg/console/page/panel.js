// The objects of a feed: choose, name, colour, hide, remove; and whom the next prompt is for.

import { colorOf, css, hex, rgbOf } from "./colors.js";
import { button, get, h, say } from "./dom.js";

/** @typedef {import("./feed.js").Feed} Feed */
/** @typedef {{id: number, label: string, color: import("./wire.js").Rgb | null, hidden: boolean, score: number | null,
 *   area: number, seen: "tracked" | "lost" | "hidden" | "waiting"}} ObjectRow */
/** @typedef {{element: HTMLLIElement, update: (row: ObjectRow, chosen: boolean) => void}} RowElements */
/** @typedef {(verb: string, args?: Record<string, unknown>) => Promise<unknown>} Order */

const WORDS = { tracked: "tracked", lost: "out of view", hidden: "hidden", waiting: "no mask yet" };

/**
 * All objects of a feed, in the order of their ids.
 * @param {Feed} feed
 * @returns {ObjectRow[]}
 */
export function objectsOf(feed) {
  const masks = new Map(feed.masks?.objects.map((object) => [object.id, object]));
  const known = new Map((feed.clip?.objects ?? []).concat(/** @type {any} */ (feed.status.objects ?? [])).map((o) => [o.id, o]));
  const ids = [...new Set([...known.keys(), ...(feed.report ? [] : masks.keys())])].sort((a, b) => a - b);
  return ids.map((id) => {
    const [mask, own] = [masks.get(id), /** @type {any} */ (known.get(id))];
    const hidden = Boolean(mask?.hidden ?? own?.hidden);
    const lost = Boolean(feed.masks?.header.lost?.includes(id));
    return {
      id, hidden, label: own?.label || mask?.label || "", color: mask?.color ?? own?.color ?? null,
      score: mask?.score ?? null, area: mask?.area ?? 0,
      seen: hidden ? "hidden" : lost ? "lost" : mask?.area ? "tracked" : "waiting",
    };
  });
}

export class Panel {
  /**
   * @param {{feed: () => Feed | null, may: () => boolean, order: Order, chosen: (id: number | null) => void,
   *   targetChanged: () => void}} app
   */
  constructor(app) {
    this.app = app;
    /** @type {number | null} */
    this.selected = null;
    this.list = get("objects", HTMLUListElement);
    this.name = get("name", HTMLInputElement);
    this.presets = get("presets", HTMLDivElement);
    this.heading = get("target", HTMLParagraphElement);
    this.color = get("color", HTMLInputElement);
    /** @type {Map<number, RowElements>} */
    this.rows = new Map();
    /** @type {import("./wire.js").Rgb | null} the colour of an object that is yet to be added */
    this.newColor = null;
    this.none = h("li", { class: "none" }, "No objects yet.");
    this.name.addEventListener("change", () => this.rename(this.name.value.trim()));
    this.name.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") this.name.blur();
    });
    this.color.addEventListener("change", () => this.recolor(rgbOf(this.color.value)));
  }

  /** The object that the next prompt is for. */
  target() {
    const feed = this.app.feed();
    const rows = feed ? objectsOf(feed) : [];
    const row = rows.find(({ id }) => id === this.selected);
    if (row) return { id: row.id, label: row.label, color: row.color, known: true };
    let id = 1;
    while (rows.some((one) => one.id === id)) id++;
    return { id, label: this.name.value.trim(), color: this.newColor, known: false };
  }

  /** @param {number | null} id null: a new object */
  select(id) {
    this.selected = id;
    this.newColor = null;
    this.name.value = "";
    this.app.chosen(id);
    this.update();
    if (id !== null) this.name.value = this.target().label;
    this.app.targetChanged();
  }

  /** @param {string} label */
  rename(label) {
    const target = this.target();
    if (!target.known) this.app.targetChanged();
    else if (label && label !== target.label) void this.app.order("rename", { id: target.id, label });
  }

  /** @param {import("./wire.js").Rgb} color */
  recolor(color) {
    const target = this.target();
    if (target.known) void this.app.order("look", { id: target.id, color });
    else this.newColor = color;
    this.app.targetChanged();
    this.update();
  }

  hide() {
    const feed = this.app.feed();
    const row = feed && objectsOf(feed).find(({ id }) => id === this.selected);
    if (row) void this.app.order("look", { id: row.id, hidden: !row.hidden });
  }

  remove() {
    if (this.selected === null) return;
    void this.app.order("remove", { id: this.selected });
    this.select(null);
  }

  /** @param {import("./wire.js").Preset[]} presets */
  offer(presets) {
    this.presets.replaceChildren(
      ...presets.map(({ label, color }) => {
        const chip = button(label, () => {
          this.name.value = label;
          if (color) this.newColor = color;
          if (this.target().known) {
            this.rename(label);
            if (color) this.recolor(color);
          }
          this.app.targetChanged();
          this.update();
        }, { class: "chip" });
        if (color) chip.style.borderColor = css(color);
        return chip;
      }),
    );
  }

  update() {
    const feed = this.app.feed();
    const rows = feed ? objectsOf(feed) : [];
    if (this.selected !== null && feed?.report && !rows.some(({ id }) => id === this.selected)) this.selected = null;
    for (const [id, row] of this.rows) {
      if (!rows.some((one) => one.id === id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    rows.forEach((row, i) => {
      let own = this.rows.get(row.id);
      if (!own) this.rows.set(row.id, (own = this.#row(row.id)));
      if (this.list.children[i] !== own.element) this.list.insertBefore(own.element, this.list.children[i] ?? null);
      own.update(row, row.id === this.selected);
    });
    if (rows.length) this.none.remove();
    else this.list.append(this.none);
    const target = this.target();
    say(this.heading, target.known ? `Correct ${target.id} ${target.label}` : `New object ${target.id}`);
    if (document.activeElement !== this.color) this.color.value = hex(colorOf(target.id, target.color));
  }

  /**
   * @param {number} id
   * @returns {RowElements}
   */
  #row(id) {
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" }, String(id));
    const name = h("span", { class: "name" });
    const state = h("span", { class: "seen" });
    const choose = button("", () => this.select(this.selected === id ? null : id), { class: "choose" });
    choose.append(swatch, name, state);
    const score = h("meter", { min: 0, max: 1, low: 0.5, high: 0.8, optimum: 1 });
    const hide = button("", () => this.select(id) ?? this.hide(), { class: "small" });
    const remove = button("Remove", () => this.select(id) ?? this.remove(), { class: "small" });
    const element = h("li", { class: "object" }, choose, score, h("div", { class: "row-acts" }, hide, remove));
    /** @type {RowElements["update"]} */
    const update = (row, chosen) => {
      const title = row.label || `object ${id}`;
      choose.setAttribute("aria-pressed", String(chosen));
      element.classList.toggle("chosen", chosen);
      element.dataset.seen = row.seen;
      swatch.style.backgroundColor = css(colorOf(id, row.color));
      say(name, title);
      say(state, row.seen === "tracked" ? `${Math.round((row.score ?? 0) * 100)} %` : WORDS[row.seen]);
      score.value = row.score ?? 0;
      score.setAttribute("aria-label", `Score of ${title}`);
      say(hide, row.hidden ? "Show" : "Hide");
      hide.setAttribute("aria-label", `${row.hidden ? "Show" : "Hide"} ${title}`);
      remove.setAttribute("aria-label", `Remove ${title}`);
      hide.disabled = remove.disabled = !this.app.may();
    };
    return { element, update };
  }
}
