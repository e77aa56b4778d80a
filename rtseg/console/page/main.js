// The page: connects, shows every feed, and carries what hands and keys ask for.

import { App } from "./app.js";

/**
 * Token and frame from the address, `#token=...&frame=...`, which then no longer shows them. The token is kept in
 * memory alone; a frame is where a recording opens, as the links of a report ask.
 */
function takeHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  const frame = given.get("frame") ?? "";
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  return { token: given.get("token") ?? "", frame: /^\d{1,9}$/.test(frame) ? Number(frame) : null };
}

const { token, frame } = takeHash();
const { timeline } = new App(token);
timeline.asked = frame;
window.addEventListener("hashchange", () => (timeline.asked = takeHash().frame));
