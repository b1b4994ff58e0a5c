/**
 * Keeps a socket to the server, as a state machine. It knows frames, ids and replies; it knows no conversations.
 *
 *   idle -> connecting -> open -> waiting -> connecting -> ...
 *   refused: the server will not have this page; left: its visitor is another one now
 *
 * The socket is open from the server's `hello` on; a connection on which nothing is said in time is closed. One that
 * went silent while the page slept is found out at once when it wakes.
 *
 * A request is sent again after a reconnect until its reply comes: its id makes the server carry it out once.
 * A server that restarts says so, and when to come back; `restarting` is true from then until a socket is open again.
 */

import { noteSilence } from "./patience.js";
import { onWaking } from "./waking.js";

/** @type {Record<string, string[]>} */
const NEXT = {
  idle: ["connecting"],
  connecting: ["open", "waiting", "refused", "left"],
  open: ["waiting", "refused", "left"],
  waiting: ["connecting", "left"],
  refused: [],
  left: [],
};

const HELLO_PATIENCE = 15_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 20_000;
const PING_EVERY = 25_000;
const PING_PATIENCE = 10_000;
const REPLY_PATIENCE = 3_000; // then it is asked whether the connection lives; the reply itself may take its time
const WAKING_PATIENCE = 1_200;
const SERVICE_RESTART = 1012;
const NO_SESSION = 4401;
const FORBIDDEN = 4403;

/** Thrown when the server refuses a request, or would because of its size. */
export class Refusal extends Error {
  /** @param {{code: string, message: string, retry_after?: number}} frame */
  constructor(frame) {
    super(frame.message);
    this.code = frame.code;
    this.retryAfter = frame.retry_after;
  }
}

/** The connection of the page. Events: `state` (detail: the new state), `frame` (detail: a frame that is no reply). */
export class Socket extends EventTarget {
  state = "idle";
  restarting = false;
  #url;
  #renew;
  /** @type {WebSocket | null} */
  #socket = null;
  #attempts = 0;
  #pause = 0; // what the server asked for, in milliseconds
  #notBefore = 0;
  #longest = 64 * 1024;
  #timer = 0;
  #pinger = 0;
  /** @type {Map<string, {text: string, resolve: (frame: any) => void, reject: (error: Error) => void}>} */
  #pending = new Map();

  /**
   * @param {string} url
   * @param {() => Promise<boolean>} renew fetches a session in the place of one that has ended; false: there is to be
   *   no further connection
   */
  constructor(url, renew) {
    super();
    this.#url = url;
    this.#renew = renew;
    addEventListener("offline", () => this.#socket && this.#abandon(this.#socket));
    onWaking(() => this.#woken());
  }

  /** Open a connection. After it was lost, the socket does that by itself. */
  connect() {
    clearTimeout(this.#timer);
    this.#enter("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#received(JSON.parse(data));
    socket.onclose = ({ code }) => this.#closed(socket, code);
    this.#timer = setTimeout(() => this.#abandon(socket), HELLO_PATIENCE);
  }

  /** Close the connection for good. Requests without a reply get none. */
  leave() {
    if (!NEXT[this.state].includes("left")) return;
    const socket = this.#socket;
    this.#forget();
    socket?.close();
    this.#enter("left");
  }

  /**
   * Send a frame and wait for its reply.
   * @param {{type: string, id?: string, [field: string]: unknown}} frame without an id it gets one
   * @returns {Promise<any>} the reply; rejects with a Refusal
   */
  request(frame) {
    const id = frame.id ?? newId();
    const text = JSON.stringify({ ...frame, id });
    return new Promise((resolve, reject) => {
      if (new Blob([text]).size > this.#longest) {
        reject(new Refusal({ code: "too_large", message: "" }));
        return;
      }
      this.#pending.set(id, { text, resolve, reject });
      if (this.state !== "open") return;
      this.#socket?.send(text);
      if (frame.type !== "ping") setTimeout(() => this.#pending.has(id) && this.#ping(PING_PATIENCE), REPLY_PATIENCE);
    });
  }

  /** @param {any} frame */
  #received(frame) {
    if (frame.type === "hello") {
      this.#longest = frame.limits.frame_bytes;
      this.#opened();
    } else if (frame.type === "server.restarting") {
      this.restarting = true;
      this.#pause = frame.retry_after * 1000;
    }
    const request = frame.id && this.#pending.get(frame.id);
    if (!request) {
      this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
      return;
    }
    this.#pending.delete(frame.id);
    if (frame.type === "error") request.reject(new Refusal(frame));
    else request.resolve(frame);
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#attempts = 0;
    this.#pause = 0;
    this.restarting = false;
    this.#pinger = setInterval(() => this.#ping(PING_PATIENCE), PING_EVERY);
    this.#enter("open");
    for (const { text } of this.#pending.values()) this.#socket?.send(text);
  }

  /**
   * @param {WebSocket} socket
   * @param {number} code
   */
  async #closed(socket, code) {
    if (socket !== this.#socket) return;
    this.#forget();
    if (code === FORBIDDEN) {
      this.#enter("refused");
      return;
    }
    this.restarting ||= code === SERVICE_RESTART;
    this.#notBefore = performance.now() + this.#pause;
    this.#enter("waiting");
    if (code === NO_SESSION && !(await this.#renew())) this.leave();
    if (this.state === "waiting") this.#timer = setTimeout(() => this.connect(), this.#wait());
  }

  /** Have nothing more to do with the connection that there was, if there was one. */
  #forget() {
    clearInterval(this.#pinger);
    clearTimeout(this.#timer);
    this.#socket = null;
  }

  /**
   * Return how long to wait for the next attempt, in milliseconds. The jitter is full: a thousand pages that lost the
   * same server come back spread over the whole time.
   */
  #wait() {
    const pause = this.#pause;
    this.#pause = 0; // it counts from the close, once
    return pause + Math.random() * Math.max(pause, Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#attempts++));
  }

  /** Try again at once if nothing speaks against it. */
  #hurry() {
    if (this.state === "waiting" && performance.now() >= this.#notBefore && navigator.onLine) this.connect();
  }

  /** Go on with a connection that lives, at once, now that the page has woken. */
  #woken() {
    const socket = this.#socket;
    if (this.state === "open") {
      this.#ping(WAKING_PATIENCE, () => this.#hurry());
    } else if (this.state === "connecting" && socket) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#abandon(socket, () => this.#hurry()), WAKING_PATIENCE);
    } else {
      this.#hurry();
    }
  }

  /**
   * Find out whether the socket is dead: it can be without being closed, and then nothing answers.
   * @param {number} patience
   * @param {() => void} [then] called when it was given up
   */
  #ping(patience, then) {
    const socket = this.#socket;
    if (this.state !== "open" || !socket) return;
    const timer = setTimeout(() => this.#abandon(socket, then), patience);
    this.request({ type: "ping" }).then(() => clearTimeout(timer));
  }

  /**
   * Give a socket up that is silent. It closes by itself when it can, which nobody waits for.
   * @param {WebSocket} socket
   * @param {() => void} [then] called when it was the one in use
   */
  #abandon(socket, then) {
    if (socket !== this.#socket) return;
    socket.close();
    noteSilence();
    this.#closed(socket, 1006);
    then?.();
  }

  /** @param {string} state */
  #enter(state) {
    if (!NEXT[this.state].includes(state)) throw new Error(`${this.state} -> ${state}`);
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}

/** Return a random id of the form the server expects; `randomUUID` exists on secure origins only. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
