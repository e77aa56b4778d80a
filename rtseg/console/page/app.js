// What belongs together: the connection, the feeds, their views, the panel, and whoever points.

import { bindActs } from "./acts.js";
import { get, h, say } from "./dom.js";
import { Feed } from "./feed.js";
import { Hand } from "./hand.js";
import { Help } from "./help.js";
import { Insight, tellEvents } from "./insight.js";
import { Link } from "./link.js";
import { Panel } from "./panel.js";
import { Pointing } from "./pointing.js";
import { PointingBar } from "./pointing_bar.js";
import { bindTabs, markTab } from "./tabs.js";
import { Timeline } from "./timeline.js";
import { View } from "./view.js";

/** @typedef {import("./tabs.js").Tab} Tab */

const TELL_MS = 250; // figures change so often: a person can read them
const WATCH_MS = 100; // what is not true any more is not said for long
const MESSAGE_MS = 8000;

export class App {
  /** @param {string} token */
  constructor(token) {
    /** @type {Map<string, View>} */
    this.views = new Map();
    /** @type {string | null} the feed that is shown alone; null: all of them */
    this.alone = null;
    this.focused = "";
    /** @type {import("./wire.js").Right} */
    this.right = "viewer";
    /** @type {Tab} */
    this.tab = "objects";
    /** @type {import("./wire.js").Preset[]} */
    this.presets = [];
    /** @type {import("./view.js").Look} */
    this.look = { layout: "overlay", opacity: null, outline: true, labels: true, selected: null };
    this.help = new Help();
    this.pointing = new Pointing({
      target: () => this.panel.target(),
      allowed: () => (this.right === "pointer" ? "" : "this token may look, but not point"),
      changed: () => this.pointingBar.update(),
      done: (text) => this.say(text),
      failed: (text) => this.fail(text),
      added: (target) => this.#added(target),
    });
    this.panel = new Panel({
      feed: () => this.feed,
      may: () => this.may,
      order: (verb, args) => this.order(verb, args),
      chosen: (id) => this.#chosen(id),
      targetChanged: () => this.pointing.retarget(),
    });
    this.insight = new Insight(() => this.feed);
    this.timeline = new Timeline({
      feed: () => this.feed, may: () => this.may, selected: () => this.panel.selected,
      order: (verb, args) => this.order(verb, args),
    });
    this.pointingBar = new PointingBar(this.pointing);
    this.acts = bindActs(this);
    this.link = new Link(new URL("ws", location.href).href.replace(/^http/, "ws"), token, {
      text: (message) => this.#got(message),
      binary: (header, payload) => this.#gotBinary(header, payload),
      changed: () => this.#connection(),
    });
    bindTabs((tab) => this.show(tab));
    this.#access();
    this.#connection();
    setInterval(() => this.tell(), TELL_MS);
    setInterval(() => this.views.forEach((view) => view.watch()), WATCH_MS);
  }

  /** The feed that keys and panels are for. @returns {Feed | null} */
  get feed() {
    return this.views.get(this.focused)?.feed ?? null;
  }

  get view() {
    return this.views.get(this.focused) ?? null;
  }

  get may() {
    return this.right === "pointer" && this.link.state.phase === "up";
  }

  /**
   * Gives an order to the feed in focus, and says what went wrong.
   * @param {string} verb
   * @param {Record<string, unknown>} [args]
   */
  async order(verb, args = {}) {
    const feed = this.feed;
    if (!feed) return;
    try {
      const result = await feed.order(verb, args);
      if (typeof result?.text === "string") this.say(result.text);
      return result;
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error));
    }
  }

  /** @param {string} text */
  say(text) {
    say(get("alert", HTMLElement), "");
    this.#message("message", text);
  }

  /** @param {string} text */
  fail(text) {
    this.#message("alert", text);
    this.feed?.note("page", text);
  }

  /**
   * @param {"message" | "alert"} id
   * @param {string} text
   */
  #message(id, text) {
    const element = get(id, HTMLElement);
    say(element, text);
    clearTimeout(this.messageTimer);
    this.messageTimer = window.setTimeout(() => say(element, ""), MESSAGE_MS);
  }

  /** @param {import("./wire.js").TextMessage} message */
  #got(message) {
    if (message.type === "welcome") return this.#welcome(message);
    if (message.type === "refused") return;
    const feed = "feed" in message ? this.views.get(message.feed)?.feed : undefined;
    if (message.type === "status") {
      feed?.gotStatus(message);
      this.views.get(message.feed)?.watch();
      if (message.feed === this.focused && message.status.presets?.length) this.#offer(message.status.presets);
    } else if (message.type === "event") feed?.gotEvent(message);
  }

  /**
   * @param {import("./wire.js").PictureHeader | import("./wire.js").MasksHeader} header
   * @param {Uint8Array<ArrayBuffer>} payload
   */
  #gotBinary(header, payload) {
    const feed = this.views.get(header.feed)?.feed;
    if (header.type === "picture") void feed?.gotPicture(header, payload);
    else feed?.gotMasks(header, payload);
  }

  /** @param {import("./wire.js").Welcome} welcome */
  #welcome(welcome) {
    this.right = welcome.right;
    const right = welcome.right === "pointer" ? "may point" : "view only";
    say(get("who", HTMLElement), welcome.name ? `${welcome.name}, ${right}` : right);
    document.body.dataset.right = welcome.right;
    if (welcome.presets.length) this.#offer(welcome.presets);
    const views = get("views", HTMLElement);
    const names = new Set(welcome.feeds.map(({ feed }) => feed));
    for (const [name, view] of this.views) {
      if (!names.has(name)) {
        view.element.remove();
        this.views.delete(name);
      }
    }
    for (const info of welcome.feeds) if (!this.views.has(info.feed)) views.append(this.#add(info).element);
    if (!this.views.has(this.focused)) this.focus(welcome.feeds[0]?.feed ?? "");
    this.acts.update();
    this.arrange();
  }

  /** @param {import("./wire.js").FeedInfo} info */
  #add(info) {
    const feed = new Feed(info, this.link);
    const view = new View(feed, this.look);
    new Hand(view, this.pointing);
    this.views.set(info.feed, view);
    view.stage.tabIndex = 0;
    view.stage.setAttribute("role", "group");
    view.stage.setAttribute("aria-label", `Picture of ${info.feed}. Press P to point by keyboard, ? for help.`);
    view.element.addEventListener("pointerdown", () => this.focus(info.feed), { capture: true });
    view.stage.addEventListener("focus", () => this.focus(info.feed));
    feed.on("event", () => this.tab === "events" && feed === this.feed && tellEvents(feed, get("events", HTMLOListElement)));
    return view;
  }

  /** @param {import("./wire.js").Preset[]} presets */
  #offer(presets) {
    if (JSON.stringify(presets) === JSON.stringify(this.presets)) return;
    this.presets = presets;
    this.panel.offer(presets);
  }

  /** @param {string} name */
  focus(name) {
    if (name === this.focused) return;
    if (this.pointing.held) this.pointing.cancel();
    this.focused = name;
    this.panel.select(null);
    if (this.alone !== null) this.alone = name;
    this.timeline.stretch = null;
    this.arrange();
    this.show(this.tab);
  }

  /** One feed alone, or all of them. */
  arrange() {
    const one = this.alone ?? (this.views.size === 1 ? this.focused : null);
    for (const [name, view] of this.views) {
      view.element.hidden = one !== null && name !== one;
      view.element.classList.toggle("focused", name === this.focused && one === null);
      view.layOut();
    }
    const shown = one === null ? this.views.size : 1;
    const columns = Math.ceil(Math.sqrt(shown));
    const views = get("views", HTMLElement);
    views.classList.toggle("wall", shown > 1);
    views.style.setProperty("--columns", String(columns));
    get("live", HTMLElement).replaceChildren(h("h2", {}, "Live now"), ...(this.view ? [this.view.inset] : []));
    this.#nav();
    this.tell();
  }

  #nav() {
    const nav = get("feeds", HTMLElement);
    const names = this.views.size > 1 ? ["", ...this.views.keys()] : [];
    nav.replaceChildren(
      ...names.map((name) => {
        const tab = h("button", { type: "button", "aria-pressed": String(name === (this.alone ?? "")) }, name || "All feeds");
        tab.addEventListener("click", () => {
          this.alone = name || null;
          if (name) this.focus(name);
          this.arrange();
        });
        return tab;
      }),
    );
  }

  /** @param {number | null} id */
  #chosen(id) {
    this.look.selected = id;
    this.view?.drawMasks();
  }

  /** @param {import("./pointing.js").Target} target */
  #added({ id, color, known }) {
    if (!known && color) void this.order("look", { id, color });
    this.panel.select(null);
  }

  /** @param {Tab} tab */
  show(tab) {
    this.tab = tab;
    markTab(tab);
    for (const { feed } of this.views.values()) feed.thumbnails.wanted = tab === "insight" && feed === this.feed;
    if (tab === "events" && this.feed) tellEvents(this.feed, get("events", HTMLOListElement));
    this.tell();
  }

  #access() {
    const dialog = get("access", HTMLDialogElement);
    dialog.addEventListener("close", () => {
      const field = get("token", HTMLInputElement);
      this.link.retry(field.value.trim());
      field.value = "";
    });
  }

  #connection() {
    const { phase, why, roundTripMs } = this.link.state;
    const words = { connecting: "Connecting", up: "Connected", lost: "Connection lost", refused: "Refused" };
    const element = get("connection", HTMLElement);
    element.dataset.phase = phase;
    if (element.lastElementChild) say(element.lastElementChild, words[phase]);
    element.title = roundTripMs === null ? "" : `${roundTripMs.toFixed(1)} ms there and back`;
    document.body.dataset.connection = phase;
    const dialog = get("access", HTMLDialogElement);
    if (phase === "refused" && !dialog.open) {
      say(get("access-why", HTMLElement), why);
      dialog.showModal();
    }
    this.tell();
  }

  /** Says what is true now. */
  tell() {
    for (const view of this.views.values()) if (!view.element.hidden) view.tell();
    if (this.tab === "objects") this.panel.update();
    if (this.tab === "insight") this.insight.update();
    this.timeline.update();
    this.pointingBar.update();
    this.acts?.update();
  }
}
