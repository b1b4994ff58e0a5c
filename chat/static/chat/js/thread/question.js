/** Shows a message of the visitor, and a box to write it anew. */

import { copier } from "../controls/copying.js";
import { copyOf, find } from "../controls/elements.js";
import { isComposing, isSending } from "../controls/keys.js";
import { MessageView } from "./message.js";

/** A question in the thread. The thread makes one for each message of the visitor. */
export class Question extends MessageView {
  /** @type {HTMLElement | null} there only while it is written anew: browsers look through all forms of a page */
  #form = null;

  /**
   * @param {import("../state/store.js").Shown} message
   * @param {(does: string, message: import("../state/store.js").Shown, detail?: unknown) => void} act
   */
  constructor(message, act) {
    super("question-template", message, act);
    copier(find(this.root, '[data-does="copy"]'), () => this.message.text);
  }

  /** @param {import("../state/store.js").Shown} message */
  draw(message) {
    super.draw(message);
    if (this.text.textContent !== message.text) this.text.textContent = message.text;
  }

  /**
   * @param {string} does
   * @param {unknown} [detail]
   */
  does(does, detail) {
    if (does === "edit") this.edit();
    else if (does === "keep") this.#keep();
    else super.does(does, detail);
  }

  /** Show the box with the text in it. */
  edit() {
    if (this.#form) return;
    const form = copyOf("edit-template");
    const box = /** @type {HTMLTextAreaElement} */ (find(form, "textarea"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (box.value.trim()) super.does("resubmit", box.value);
    });
    box.addEventListener("keydown", (event) => this.#key(event));
    this.#form = form;
    this.#show(form);
    box.value = this.message.text;
    box.focus();
  }

  /** Close the box; the text stays as it was. */
  #keep() {
    this.#form?.remove();
    this.#form = null;
    this.#show(null);
    find(this.root, '[data-does="edit"]').focus();
  }

  /** @param {HTMLElement | null} form in the place of the text */
  #show(form) {
    this.text.hidden = form !== null;
    find(this.root, ".actions").hidden = form !== null;
    if (form) this.text.after(form);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (isSending(event)) {
      event.preventDefault();
      /** @type {HTMLFormElement} */ (this.#form).requestSubmit();
    } else if (event.key === "Escape" && !isComposing(event)) {
      event.stopPropagation(); // it does not stop the answer
      this.#keep();
    }
  }
}
