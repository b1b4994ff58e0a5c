/** Opens a menu at a button. Arrows move in it; Escape and a click elsewhere close it, which the browser sees to. */

/** A menu. Each time it is opened, it is told at which button and what to do with the choice. */
export class Menu {
  #element;
  /** @type {HTMLElement | null} */
  #button = null;
  /** @type {(does: string) => void} */
  #chosen = () => {};

  /** @param {HTMLElement} element a popover with menu items */
  constructor(element) {
    this.#element = element;
    element.addEventListener("click", (event) => this.#clicked(event));
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("toggle", (event) =>
      this.#toggled(/** @type {ToggleEvent} */ (event).newState === "open"),
    );
  }

  /** @returns {HTMLElement[]} */
  get #items() {
    return [...this.#element.querySelectorAll("[role=menuitem]:not([hidden])")].map(
      (item) => /** @type {HTMLElement} */ (item),
    );
  }

  /**
   * Open the menu.
   * @param {HTMLElement} button
   * @param {string[]} without what is not offered this time
   * @param {(does: string) => void} chosen called with the `data-does` of the item that is chosen
   */
  open(button, without, chosen) {
    this.#button = button;
    this.#chosen = chosen;
    for (const item of /** @type {NodeListOf<HTMLElement>} */ (this.#element.querySelectorAll("[role=menuitem]")))
      item.hidden = without.includes(item.dataset.does ?? "");
    this.#element.showPopover();
    const at = button.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.#element;
    const left = document.dir === "rtl" ? at.right - offsetWidth : at.left;
    this.#element.style.left = `${Math.max(8, Math.min(left, innerWidth - offsetWidth - 8))}px`;
    this.#element.style.top = `${Math.max(8, Math.min(at.bottom + 4, innerHeight - offsetHeight - 8))}px`;
    this.#items[0].focus();
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const item = /** @type {HTMLElement} */ (event.target).closest("[role=menuitem]");
    if (!(item instanceof HTMLElement)) return;
    this.#element.hidePopover();
    this.#chosen(item.dataset.does ?? "");
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const items = this.#items;
    const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (event.key === "Tab") this.#element.hidePopover();
    if (event.key === "Escape") event.stopPropagation(); // it closes the menu alone, not the drawer around it
    if (to === undefined) return;
    event.preventDefault();
    items.at(to % items.length)?.focus();
  }

  /** @param {boolean} open */
  #toggled(open) {
    this.#button?.setAttribute("aria-expanded", String(open));
    if (!open && this.#element.contains(document.activeElement)) this.#button?.focus();
  }
}
