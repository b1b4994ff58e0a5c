/** Does something again after a wait that grows with each failure. */

const FIRST = 1_000;
const LONGEST = 20_000;

/** What is to be done again after it failed: one thing, and the latest. */
export class Again {
  #failures = 0;
  #timer = 0;

  /** @param {() => void} does */
  later(does) {
    clearTimeout(this.#timer);
    const longest = Math.min(LONGEST, FIRST * 2 ** this.#failures++);
    this.#timer = setTimeout(does, longest * (0.5 + Math.random() / 2)); // other pages failed at the same time
  }

  /** Do it no more, because it is being done, or needs not be. */
  cancel() {
    clearTimeout(this.#timer);
  }

  /** Note that it worked. */
  succeeded() {
    this.cancel();
    this.#failures = 0;
  }
}
