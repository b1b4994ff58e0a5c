/** Shows what questions and answers have in common: their frame, and the arrows between versions. */

import { copyOf, find } from "../controls/elements.js";
import { versionText } from "../language/words.js";

/** @typedef {import("../state/store.js").Shown} Shown */

/** A message on the page, made from a template. What the visitor wants of it goes to `act`. */
export class MessageView {
  /**
   * @param {string} template
   * @param {Shown} message
   * @param {(does: string, message: Shown, detail?: unknown) => void} act
   */
  constructor(template, message, act) {
    this.message = message;
    this.act = act;
    this.root = copyOf(template);
    this.root.dataset.id = message.id;
    /** @type {HTMLElement} */
    this.text = find(this.root, ".text");
    this.siblings = find(this.root, ".siblings");
    this.root.addEventListener("click", (event) => this.#clicked(event));
  }

  /**
   * Draw the message as it is now.
   * @param {Shown} message
   */
  draw(message) {
    this.message = message;
    const versions = message.siblings ?? [];
    const place = versions.indexOf(message.id);
    this.siblings.hidden = versions.length < 2;
    find(this.siblings, ".which").textContent = versionText(place + 1, versions.length);
    this.#arrow("before", versions[place - 1]);
    this.#arrow("after", versions[place + 1]);
  }

  /**
   * Do what a button says in its `data-does`.
   * @param {string} does
   * @param {unknown} [detail]
   */
  does(does, detail) {
    this.act(does, this.message, detail);
  }

  /**
   * @param {string} does
   * @param {string | undefined} version
   */
  #arrow(does, version) {
    const button = /** @type {HTMLButtonElement} */ (find(this.siblings, `[data-does="${does}"]`));
    button.disabled = version === undefined;
    button.dataset.version = version ?? "";
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const button = /** @type {HTMLElement} */ (event.target).closest("button");
    const does = button?.dataset.does;
    if (does) this.does(does, button.dataset.version);
  }
}
