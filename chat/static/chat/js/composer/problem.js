/** Says at the composer what went wrong and, where waiting helps, that the wait is over. */

import { refusalText, WORDS } from "../language/words.js";

/** The line at the composer that says what went wrong. */
export class Problem {
  #element;
  #timer = 0;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /** @param {string} sentence */
  say(sentence) {
    clearTimeout(this.#timer);
    this.#element.textContent = sentence;
  }

  clear() {
    this.say("");
  }

  /**
   * Say nothing any more where this is what is said.
   * @param {string} sentence
   */
  retract(sentence) {
    if (this.#element.textContent === sentence) this.clear();
  }

  /**
   * Say why the server refused something, or that it could not be reached.
   * @param {import("../connection/socket.js").Refusal | import("../connection/api.js").Failure} refusal
   */
  refused(refusal) {
    this.say(refusalText(refusal));
    const seconds = "retryAfter" in refusal ? refusal.retryAfter : undefined;
    if (seconds) this.#timer = setTimeout(() => this.say(WORDS.tryNow), seconds * 1000);
  }
}
