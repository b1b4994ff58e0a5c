/**
 * Keeps the end of the thread in view for a visitor who is looking at it. One who has scrolled up is left alone, and
 * offered the way back.
 */

const NEAR_END = 48;

/** Follows the end of the thread, from the beginning and whenever the visitor is there. */
export class Follow {
  #scroller;
  #button;
  #following = true;
  #last = 0;

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} button leads to the end
   */
  constructor(scroller, button) {
    this.#scroller = scroller;
    this.#button = button;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    const resized = new ResizeObserver(() => this.keep());
    for (const element of [scroller, ...scroller.children]) resized.observe(element); // a formula is set later than drawn
  }

  /** Stay at the end, or offer the way there. Called when the content may have grown. */
  keep() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    else this.#button.hidden = this.#atEnd;
  }

  /** Go to the end and stay there. */
  toEnd() {
    this.#following = true;
    this.#button.hidden = true;
    this.keep();
  }

  /**
   * Make a change above what is being read, which stays where it is in the window.
   * @param {() => void} change
   */
  above(change) {
    const fromEnd = this.#scroller.scrollHeight - this.#scroller.scrollTop;
    change();
    this.#scroller.scrollTop = this.#scroller.scrollHeight - fromEnd;
  }

  get #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_END;
  }

  #scrolled() {
    const { scrollTop } = this.#scroller;
    if (this.#atEnd) this.#following = true;
    else if (scrollTop < this.#last) this.#following = false; // growing content never moves the view up
    this.#last = scrollTop;
    this.#button.hidden = this.#following || this.#atEnd;
  }
}
