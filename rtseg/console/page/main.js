// The page: connects, shows every feed, and carries what hands and keys ask for.

import { App } from "./app.js";

/** The token from the address, which then no longer shows it. It is kept in memory alone. */
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

new App(takeToken());
