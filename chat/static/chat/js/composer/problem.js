/** What went wrong, said at the composer; and, where waiting helps, that the wait is over. */

import { refusalText, WORDS } from "../language/words.js";

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

  /** @param {import("../connection/socket.js").Refusal | import("../connection/api.js").Failure} refusal */
  refused(refusal) {
    this.say(refusalText(refusal));
    const seconds = "retryAfter" in refusal ? refusal.retryAfter : undefined;
    if (seconds) this.#timer = setTimeout(() => this.say(WORDS.tryNow), seconds * 1000);
  }
}
