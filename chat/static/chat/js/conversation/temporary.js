/** Shows whether a chat is temporary. The visitor chooses that before it begins, where the site leaves it open. */

/** The button and the mark of temporary chats. Events: `chosen` (detail: whether the new one is to be temporary). */
export class Temporary extends EventTarget {
  #page;
  #button;
  #mode;

  /**
   * @param {HTMLElement} page marked with `temporary` while such a chat is open; it has the site's setting
   * @param {HTMLElement} button
   */
  constructor(page, button) {
    super();
    this.#page = page;
    this.#button = button;
    this.#mode = page.dataset.chats ?? "off";
    button.addEventListener("click", () => {
      this.dispatchEvent(new CustomEvent("chosen", { detail: button.ariaPressed !== "true" }));
    });
  }

  /** @param {{conversation: string | null, temporary?: boolean}} open */
  show({ conversation, temporary = this.#mode === "default" || this.#mode === "only" }) {
    this.#page.classList.toggle("temporary", temporary);
    this.#button.hidden = conversation !== null || !["optional", "default"].includes(this.#mode);
    this.#button.ariaPressed = String(temporary);
  }
}
