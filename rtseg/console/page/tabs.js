// The tabs of the panel at the side.

import { get } from "./dom.js";

/** @typedef {"objects" | "insight" | "events"} Tab */

/** @type {Tab[]} */
const TABS = ["objects", "insight", "events"];

/**
 * Clicks, and arrow keys from one tab to the next.
 * @param {(tab: Tab) => void} show
 */
export function bindTabs(show) {
  for (const tab of TABS) {
    const button = get(`tab-${tab}`, HTMLButtonElement);
    button.addEventListener("click", () => show(tab));
    button.addEventListener("keydown", ({ key }) => {
      const by = key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0;
      if (!by) return;
      const next = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length];
      show(next);
      get(`tab-${next}`, HTMLButtonElement).focus();
    });
  }
}

/** @param {Tab} tab that is shown */
export function markTab(tab) {
  for (const name of TABS) {
    const button = get(`tab-${name}`, HTMLButtonElement);
    button.setAttribute("aria-selected", String(name === tab));
    button.tabIndex = name === tab ? 0 : -1;
    get(`panel-${name}`, HTMLElement).hidden = name !== tab;
  }
}
