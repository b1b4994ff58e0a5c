/**
 * Shows the box under an answer in which a visitor says why it was good or bad. What is written in it stays, over a
 * reload too, until it is sent or given up. An empty box is closed with the next question (`answer.js`).
 */

import { copyOf, find } from "../controls/elements.js";
import { isComposing } from "../controls/keys.js";
import { drafts } from "../state/drafts.js";

/**
 * Return what was written on an answer and not sent.
 * @param {string} answer
 */
export function unsentComment(answer) {
  return drafts.of(answer).text;
}

/** The box for one comment. It is on the page from when it is made until `remove` is called. */
export class Comment {
  #form = copyOf("comment-template");
  #box = /** @type {HTMLInputElement} */ (find(this.#form, "input"));

  /**
   * @param {HTMLElement} root of the answer
   * @param {string} answer
   * @param {(comment: string) => void} send
   * @param {() => void} closed called when the visitor has sent it or given it up, and what had the focus is gone
   */
  constructor(root, answer, send, closed) {
    this.#box.value = unsentComment(answer);
    this.#box.addEventListener("input", () => drafts.writing(answer, () => this.#box.value));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const comment = this.#box.value.trim();
      this.#end(answer, closed);
      if (comment) send(comment);
    });
    this.#form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || isComposing(event)) return;
      event.stopPropagation();
      this.#end(answer, closed);
    });
    root.append(this.#form);
  }

  /**
   * @param {string} answer
   * @param {() => void} closed
   */
  #end(answer, closed) {
    drafts.drop(answer);
    this.remove();
    closed();
  }

  get isEmpty() {
    return !this.#box.value.trim();
  }

  focus() {
    this.#box.focus();
  }

  remove() {
    this.#form.remove();
  }
}
