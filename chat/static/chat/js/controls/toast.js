/** Shows short messages that go by themselves, each with a way back for as long as there is one. */

import { copyOf, find } from "./elements.js";

const SHORT = 4_000;
const MOST = 3;

/** The messages that are in view. */
export class Toasts {
  #element;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /**
   * Show a message; return what hides it, and what puts the focus on its way back.
   * @param {string} sentence
   * @param {number} milliseconds for which there is a way back
   * @param {(() => void) | null} undo null: there is none
   */
  show(sentence, milliseconds, undo) {
    const toast = copyOf("toast-template");
    const timer = setTimeout(() => hide(), undo ? milliseconds : SHORT);
    const hide = () => {
      clearTimeout(timer);
      toast.remove();
    };
    find(toast, ".said").textContent = sentence;
    find(toast, ".close").addEventListener("click", hide);
    const button = find(toast, ".undo");
    button.hidden = undo === null;
    button.addEventListener("click", () => {
      hide();
      undo?.();
    });
    this.#element.append(toast);
    if (this.#element.children.length > MOST) this.#element.firstElementChild?.remove();
    return { hide, focus: () => button.focus() };
  }
}
