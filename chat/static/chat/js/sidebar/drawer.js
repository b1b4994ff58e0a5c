/**
 * Opens and closes the sidebar: it folds on wide pages, which is remembered, and is a drawer on phones, which closes by
 * itself.
 */

import { isComposing } from "../controls/keys.js";
import { prefer } from "../state/preferences.js";

const narrow = matchMedia("(max-width: 720px)");

/** The sidebar as something that opens and closes, with the button that does it. */
export class Drawer {
  #sidebar;
  #button;
  #behind;

  /**
   * @param {HTMLElement} sidebar
   * @param {HTMLElement} button
   * @param {HTMLElement} scrim
   * @param {HTMLElement[]} behind what cannot be reached while the drawer is in front of it
   */
  constructor(sidebar, button, scrim, behind) {
    this.#sidebar = sidebar;
    this.#button = button;
    this.#behind = behind;
    button.addEventListener("click", () => this.toggle());
    scrim.addEventListener("click", () => this.close());
    sidebar.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#isOver || isComposing(event)) return;
      event.stopPropagation(); // it does not stop the answer
      this.close();
    });
    narrow.addEventListener("change", () => this.#tell());
    this.#tell();
  }

  /** Whether the sidebar is open and in front of the thread. */
  get #isOver() {
    return narrow.matches && this.isOpen;
  }

  get isOpen() {
    return narrow.matches
      ? document.body.classList.contains("open")
      : document.documentElement.dataset.sidebar !== "folded";
  }

  /** @param {boolean} [open] the other state than now, unless it is said */
  toggle(open = !this.isOpen) {
    if (narrow.matches) document.body.classList.toggle("open", open);
    else prefer("sidebar", open ? null : "folded");
    this.#tell();
    if (narrow.matches && open) this.#sidebar.querySelector("a")?.focus();
  }

  /** Close it on a phone, after a choice was made in it; a wide page stays as it is. */
  close() {
    if (!this.#isOver) return;
    this.toggle(false);
    this.#button.focus();
  }

  #tell() {
    this.#button.ariaExpanded = String(this.isOpen);
    for (const element of this.#behind) element.inert = this.#isOver;
  }
}
