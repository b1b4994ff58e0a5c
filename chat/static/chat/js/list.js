/** The visitor's conversations in the sidebar. */

import { fetchConversations } from "./api.js";

/** Events: `open` (detail: a conversation's id). */
export class List extends EventTarget {
  #element;
  #older;
  /** @type {Map<string, import("./api.js").Conversation>} */
  #items = new Map();
  /** @type {string | null} */
  #next = null;
  /** @type {string | null} */
  #current = null;

  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} older
   */
  constructor(element, older) {
    super();
    this.#element = element;
    this.#older = older;
    older.addEventListener("click", () => this.#load(this.#next));
    element.addEventListener("click", (event) => this.#clicked(event));
  }

  /** @param {string | null} id */
  set current(id) {
    this.#current = id;
    this.#draw();
  }

  /** Fetch what changed lately. */
  refresh() {
    return this.#load(null);
  }

  /** @param {string | null} after */
  async #load(after) {
    const page = await fetchConversations(after);
    for (const item of page.conversations) this.#items.set(item.id, item);
    if (after !== null || this.#items.size === page.conversations.length) this.#next = page.next;
    this.#draw();
  }

  #draw() {
    const items = [...this.#items.values()].sort((a, b) => (a.updated < b.updated ? 1 : -1));
    this.#element.replaceChildren(...items.map((item) => this.#line(item)));
    this.#older.hidden = this.#next === null;
  }

  /** @param {import("./api.js").Conversation} item */
  #line(item) {
    const link = document.createElement("a");
    link.href = `/c/${item.id}/`;
    link.dataset.id = item.id;
    link.textContent = item.title;
    link.title = item.title;
    link.dir = "auto";
    link.classList.toggle("live", item.live !== null);
    if (item.id === this.#current) link.setAttribute("aria-current", "page");
    const line = document.createElement("li");
    line.append(link);
    return line;
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const link = /** @type {HTMLElement} */ (event.target).closest("a");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    this.dispatchEvent(new CustomEvent("open", { detail: link.dataset.id }));
  }
}
