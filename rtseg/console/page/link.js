// The connection to the console: it says within a second when it is lost, and comes back by itself.

import { split } from "./wire.js";

/**
 * @typedef {{phase: "connecting" | "up" | "lost" | "refused", why: string, sinceMs: number,
 *   roundTripMs: number | null}} LinkState
 */
/**
 * @typedef {{text: (message: import("./wire.js").TextMessage) => void,
 *   binary: (header: import("./wire.js").PictureHeader | import("./wire.js").MasksHeader,
 *     payload: Uint8Array<ArrayBuffer>) => void,
 *   changed: (state: LinkState) => void}} LinkEvents
 */
/**
 * @typedef {{message: Record<string, unknown>, instance: string, givenMs: number, done: (result: any) => void,
 *   failed: (error: Error) => void}} Waiting
 */

const PING_MS = 300; // the console answers each of them
const LOST_MS = 800; // without an answer for so long, the connection is lost
const TICK_MS = 50;
const GIVE_UP_MS = 2500; // a socket that says nothing for so long is closed, and another is opened
const RETRY_MS = [100, 250, 500, 1000]; // before each new attempt; the last one again and again
const REPEAT_MS = 20_000; // an order is given again to another console for so long; later it would surprise
const FINAL = [4400, 4401, 4403]; // what the console will refuse again

/** What became of an order is not known, or it was not done. */
export class OrderError extends Error {}

/** One WebSocket for all feeds, opened again whenever it is lost. */
export class Link {
  /**
   * @param {string} url
   * @param {string} token "" where the console asks for none; it is kept here alone
   * @param {LinkEvents} events
   */
  constructor(url, token, events) {
    this.url = url;
    this.token = token;
    this.events = events;
    /** @type {LinkState} */
    this.state = { phase: "connecting", why: "", sinceMs: performance.now(), roundTripMs: null };
    this.client = crypto.randomUUID ? crypto.randomUUID() : String(crypto.getRandomValues(new Uint32Array(4)));
    this.instance = "";
    this.next = 1;
    /** @type {Map<number, Waiting>} */
    this.waiting = new Map();
    this.attempts = 0;
    this.answeredMs = performance.now();
    /** @type {WebSocket | null} */
    this.socket = null;
    setInterval(() => this.#tick(), TICK_MS);
    this.open();
  }

  /** Connects now. */
  open() {
    this.socket?.close();
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.pingedMs = this.openedMs = performance.now();
    const width = Math.round(Math.max(screen.width, window.innerWidth) * (window.devicePixelRatio || 1)) || undefined;
    socket.onopen = () => this.#send({ type: "hello", token: this.token || undefined, feeds: null, width });
    socket.onmessage = ({ data }) => this.socket === socket && this.#received(data);
    socket.onclose = ({ code, reason }) => this.socket === socket && this.#closed(code, reason);
  }

  /**
   * Gives an order; the promise is kept when it was done, and broken with an `OrderError` when it was not.
   * @param {string} feed
   * @param {string} verb
   * @param {Record<string, unknown>} [args]
   * @returns {Promise<any>}
   */
  order(feed, verb, args = {}) {
    if (this.state.phase !== "up") return Promise.reject(new OrderError("not done: no connection to the console"));
    const n = this.next++;
    const message = { type: "order", client: this.client, n, feed, verb, args };
    return new Promise((done, failed) => {
      this.waiting.set(n, { message, instance: this.instance, givenMs: performance.now(), done, failed });
      this.#send(message);
    });
  }

  /**
   * Tells the console that a picture is on the screen, which makes room for the next.
   * @param {string} feed
   * @param {number} seq
   * @param {string} session
   */
  painted(feed, seq, session) {
    this.#send({ type: "painted", feed, seq, session });
  }

  /**
   * After a refusal: tries again.
   * @param {string} token "" for the one that there is
   */
  retry(token) {
    this.token = token || this.token;
    this.#change("connecting", "", null);
    this.open();
  }

  /** @param {Record<string, unknown>} message */
  #send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** @param {string | ArrayBuffer} data */
  #received(data) {
    if (typeof data !== "string") {
      const { header, payload } = split(data);
      this.events.binary(header, payload);
      return;
    }
    /** @type {import("./wire.js").TextMessage} */
    const message = JSON.parse(data);
    if (message.type === "pong") {
      this.answeredMs = performance.now();
      this.#change("up", "", this.answeredMs - message.t);
      return;
    }
    if (message.type === "answer") return this.#answered(message);
    if (message.type === "refused") this.refusal = message.why;
    this.events.text(message);
    if (message.type === "welcome") this.#welcomed(message);
  }

  /** @param {import("./wire.js").Welcome} message */
  #welcomed(message) {
    this.instance = message.console ?? "";
    this.attempts = 0;
    this.answeredMs = performance.now();
    this.#change("up", "", null);
    for (const [n, { message: order, instance, givenMs, failed }] of this.waiting) {
      // The console remembers what it has done, and so does the feed: asking again does nothing twice.
      const same = instance && instance === this.instance;
      if (same || performance.now() - givenMs < REPEAT_MS) this.#send(order);
      else {
        this.waiting.delete(n);
        failed(new OrderError("the connection was lost: it is not known whether this was done; look, then try again"));
      }
    }
  }

  /** @param {import("./wire.js").Answer} answer */
  #answered({ n, ok, result, error }) {
    const waiting = this.waiting.get(n);
    this.waiting.delete(n);
    if (ok) waiting?.done(result ?? {});
    else waiting?.failed(new OrderError(error || "not done: the console gave no reason"));
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #closed(code, reason) {
    this.socket = null;
    const why = this.refusal || reason;
    this.refusal = "";
    if (FINAL.includes(code)) return this.#change("refused", why || "the console refused this page", null);
    this.#change("lost", why, null);
    this.againMs = performance.now() + RETRY_MS[Math.min(this.attempts++, RETRY_MS.length - 1)];
  }

  #tick() {
    const now = performance.now();
    if (this.state.phase === "refused") return;
    if (!this.socket) {
      if (now >= (this.againMs ?? 0)) this.open();
      return;
    }
    if (now - (this.pingedMs ?? 0) >= PING_MS) {
      this.pingedMs = now;
      this.#send({ type: "ping", t: now });
    }
    const silent = now - this.answeredMs;
    if (silent > LOST_MS && this.state.phase !== "lost") this.#change("lost", "", null);
    if (silent > GIVE_UP_MS && now - (this.openedMs ?? 0) > GIVE_UP_MS) {
      const socket = this.socket;
      this.#closed(1006, "");
      socket.close();
    }
  }

  /**
   * @param {LinkState["phase"]} phase
   * @param {string} why
   * @param {number | null} roundTripMs
   */
  #change(phase, why, roundTripMs) {
    const changed = phase !== this.state.phase || why !== this.state.why;
    const sinceMs = changed ? performance.now() : this.state.sinceMs;
    this.state = { phase, why, sinceMs, roundTripMs };
    if (changed) this.events.changed(this.state);
  }
}
