// What keys and tool buttons do.

import { button, get, say } from "./dom.js";
import { actOf, isTaken, nameOf } from "./keys.js";
import { objectsOf } from "./panel.js";
import { saveSnapshot } from "./saving.js";

/** @typedef {import("./app.js").App} App */
/** @typedef {import("./view.js").Layout} Layout */
/** @typedef {(name: string) => void} Act */

const LAYOUTS = /** @type {Layout[]} */ (["overlay", "both", "original"]);
const LAYOUT_NAMES = { overlay: "With masks", both: "Side by side", original: "Original" };
const STEP = 0.02; // of the picture's width: how far an arrow key moves the crosshair
const FINE = 1; // pixel of the source

/**
 * @param {App} app
 * @returns {{update: () => void}}
 */
export function bindActs(app) {
  const acts = { ...pictureActs(app), ...pointingActs(app), ...objectActs(app), ...recordingActs(app) };
  document.addEventListener("keydown", (event) => {
    if (isTaken(event) || (!app.help.letters.checked && event.key.length === 1 && event.key !== "?")) return;
    const name = nameOf(event);
    const act = actOf(name, { pointing: app.pointing.held !== null, recording: Boolean(app.feed?.recording) });
    if (!act || !(act in acts)) return;
    event.preventDefault();
    acts[act](name);
  });
  return toolBar(app, acts);
}

/**
 * @param {App} app
 * @param {Record<string, Act>} acts
 */
function toolBar(app, acts) {
  const run = (/** @type {string} */ act) => () => acts[act](act);
  const tools = {
    hold: button("Point", run("hold"), { "data-pointer": true }), brush: button("Brush", run("brush"), { "data-pointer": true }),
    undo: button("Undo", run("undo"), { "data-pointer": true }), redo: button("Redo", run("redo"), { "data-pointer": true }),
    pause: button("Pause network", run("pause"), { "data-pointer": true, "data-live": true }),
    layout: button("With masks", run("layout")), outline: button("Outlines", run("outline")), labels: button("Labels", run("labels")),
    less: button("Tint −", run("less")), more: button("Tint +", run("more")), png: button("Save PNG", run("png")),
    coco: button("Save COCO", run("coco")), full: button("Full screen", run("full")), help: button("Help", run("help")),
  };
  const { help, hold, brush, undo, redo, layout, full, png, ...others } = tools;
  get("tools", HTMLElement).append(hold, brush, undo, redo, layout, full, png);
  get("more", HTMLElement).append(...Object.values(others));
  get("screen", HTMLElement).append(help);
  const update = () => {
    const feed = app.feed;
    say(tools.layout, `View: ${LAYOUT_NAMES[app.look.layout]}`);
    tools.outline.setAttribute("aria-pressed", String(app.look.outline));
    tools.labels.setAttribute("aria-pressed", String(app.look.labels));
    tools.brush.setAttribute("aria-pressed", String(app.pointing.tool === "brush"));
    say(tools.pause, feed?.status.paused ? "Resume network" : "Pause network");
    tools.pause.hidden = Boolean(feed?.recording);
    for (const tool of Object.values(tools)) if ("pointer" in tool.dataset) tool.disabled = !app.may;
    document.body.dataset.kind = feed?.recording ? "recording" : "live";
  };
  return { update };
}

/** @param {App} app @returns {Record<string, Act>} */
function pictureActs(app) {
  const redraw = () => {
    for (const view of app.views.values()) view.layOut();
    app.tell();
  };
  const tint = (/** @type {number} */ by) => {
    const now = app.look.opacity ?? app.feed?.status.settings?.opacity ?? 0.28;
    app.look.opacity = Math.min(Math.max(Math.round((now + by) * 20) / 20, 0), 1);
    app.say(`Tint ${Math.round(app.look.opacity * 100)} %, on this page`);
    redraw();
  };
  const feed = (/** @type {number} */ by) => {
    const names = [...app.views.keys()];
    app.focus(names[(names.indexOf(app.focused) + by + names.length) % names.length] ?? "");
  };
  const save = (/** @type {"png" | "coco"} */ format) => {
    const name = app.feed?.name;
    if (!name) return;
    saveSnapshot({ name, token: app.link.token, format }).then((file) => app.say(`Saved ${file}`), (error) => app.fail(`not saved: ${error.message}`));
  };
  return {
    layout: () => {
      app.look.layout = LAYOUTS[(LAYOUTS.indexOf(app.look.layout) + 1) % LAYOUTS.length];
      redraw();
    },
    full: () => void (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
    wall: () => {
      app.alone = app.alone === null ? app.focused : null;
      app.arrange();
    },
    nextFeed: () => feed(1),
    previousFeed: () => feed(-1),
    more: () => tint(0.05),
    less: () => tint(-0.05),
    outline: () => (app.look.outline = !app.look.outline, redraw()),
    labels: () => (app.look.labels = !app.look.labels, redraw()),
    png: () => save("png"),
    coco: () => save("coco"),
    tab: () => app.show(app.tab === "objects" ? "insight" : app.tab === "insight" ? "events" : "objects"),
    help: () => app.help.toggle(),
    pause: () => void app.order(app.feed?.status.paused ? "resume" : "pause"),
  };
}

/** @param {App} app @returns {Record<string, Act>} */
function pointingActs(app) {
  const { pointing } = app;
  const cross = () => (pointing.cross ??= pointing.held && [Math.round(pointing.held.width / 2), Math.round(pointing.held.height / 2)]);
  const put = (/** @type {boolean} */ on) => {
    const at = cross();
    if (!at) return;
    if (pointing.tool === "brush") {
      pointing.stroke(!on).points.push([...at]);
      pointing.edited();
    } else pointing.point(at, on);
  };
  const size = (/** @type {number} */ by) => {
    pointing.radius = Math.min(Math.max(Math.round(pointing.radius * by), 1), 200);
    app.say(`Brush of ${2 * pointing.radius} pixels`);
    pointing.redraw();
  };
  return {
    hold: () => {
      const view = app.view;
      if (!view || !pointing.begin(view)) return;
      cross();
      view.stage.focus({ preventScroll: true });
      pointing.redraw();
    },
    move: (name) => {
      const [at, held] = [cross(), pointing.held];
      if (!at || !held) return;
      const by = name.startsWith("Shift") ? FINE : Math.max(1, Math.round(held.width * STEP));
      const x = at[0] + (name.endsWith("Right") ? by : name.endsWith("Left") ? -by : 0);
      const y = at[1] + (name.endsWith("Down") ? by : name.endsWith("Up") ? -by : 0);
      pointing.cross = [Math.min(Math.max(x, 0), held.width - 1), Math.min(Math.max(y, 0), held.height - 1)];
      pointing.redraw();
    },
    put: () => put(true),
    putNot: () => put(false),
    corner: () => {
      const at = cross();
      if (!at) return;
      if (pointing.corner) pointing.box(pointing.corner, at);
      pointing.corner = pointing.corner ? null : [...at];
      pointing.redraw();
    },
    brush: () => {
      app.pointingBar.choose(pointing.tool === "brush" ? "point" : "brush");
      app.acts.update();
    },
    smaller: () => size(0.8),
    larger: () => size(1.25),
    takeBack: () => pointing.takeBack(),
    accept: () => void pointing.accept(),
    cancel: () => pointing.cancel(),
  };
}

/** @param {App} app @returns {Record<string, Act>} */
function objectActs(app) {
  const { panel } = app;
  const field = (/** @type {HTMLInputElement} */ input) => {
    app.show("objects");
    input.focus();
    if (input.type === "text") input.select();
    else input.click();
  };
  const change = async (/** @type {"undo" | "redo"} */ verb) => {
    const result = await app.order(verb);
    if (result?.undone) app.say(`Undone: ${result.undone}`);
    if (result?.redone) app.say(`Redone: ${result.redone}`);
  };
  return {
    select: (name) => {
      const id = Number(name);
      if (app.feed && objectsOf(app.feed).some((row) => row.id === id)) panel.select(id);
    },
    fresh: () => panel.select(null),
    rename: () => field(panel.name),
    color: () => field(panel.color),
    hide: () => panel.hide(),
    remove: () => panel.remove(),
    undo: () => void change("undo"),
    redo: () => void change("redo"),
  };
}

/** @param {App} app @returns {Record<string, Act>} */
function recordingActs(app) {
  const { timeline } = app;
  return {
    play: () => timeline.play(),
    back: (name) => (name.startsWith("Shift") ? timeline.jump(-1) : timeline.step(-1)),
    on: (name) => (name.startsWith("Shift") ? timeline.jump(1) : timeline.step(1)),
    first: () => timeline.seek(0),
    last: () => timeline.seek((app.feed?.clip?.frames ?? 1) - 1),
    track: () => timeline.track("forward"),
    trackBoth: () => timeline.track("both"),
    from: () => timeline.mark(0),
    to: () => timeline.mark(1),
    lock: () => timeline.lock(),
    export: () => void timeline.save(),
  };
}
