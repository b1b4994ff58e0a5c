/**
 * Tells screen readers what happens: in the status region with short sentences, at most one in a while where they
 * change often, and in the log region with each answer once, whole, at its end. The thread itself announces nothing.
 */

import { progressText, reasonText } from "../language/words.js";
import { isLive } from "../state/store.js";

const EVERY = 7_000; // milliseconds between two sentences about an answer that waits

/**
 * Have a sentence said now.
 * @param {string} sentence
 */
export function announce(sentence) {
  const region = document.getElementById("announced-status");
  if (region) region.textContent = sentence;
}

/** Follows the answers in the store, and announces how they get on and how they end. */
export class Announcer {
  #log;
  #said = 0;
  #state = "";
  /** @type {WeakSet<object>} answers that were seen to be under way */
  #followed = new WeakSet();

  /**
   * @param {HTMLElement} log
   * @param {import("../state/store.js").Store} store
   * @param {(message: import("../state/store.js").Shown) => string} textOf returns an answer as it is shown
   */
  constructor(log, store, textOf) {
    this.#log = log;
    this.textOf = textOf;
    store.addEventListener("answer", (event) => this.#changed(/** @type {CustomEvent} */ (event).detail));
  }

  /** @param {import("../state/store.js").Shown} message */
  #changed(message) {
    if (isLive(message)) {
      this.#followed.add(message);
      this.#progress(message);
    } else if (this.#followed.delete(message)) {
      this.#ended(message);
    }
  }

  /** @param {import("../state/store.js").Shown} message */
  #progress(message) {
    const state = message.generation?.state ?? "";
    const now = performance.now();
    if (state === this.#state && now - this.#said < EVERY) return;
    if (state === this.#state && state === "running") return;
    this.#state = state;
    this.#said = now;
    announce(progressText(message));
  }

  /** @param {import("../state/store.js").Shown} message */
  #ended(message) {
    this.#state = "";
    announce(reasonText(message.generation, message.text));
    const line = document.createElement("p");
    line.textContent = this.textOf(message);
    this.#log.replaceChildren(line);
  }
}
