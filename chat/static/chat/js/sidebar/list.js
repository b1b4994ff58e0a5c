/** Lists the visitor's conversations: finds them by their words, fetches more as one scrolls, changes them in place. */

import { Again } from "../connection/again.js";
import { changeConversation, Failure, fetchConversations, restoreConversation } from "../connection/api.js";
import { find } from "../controls/elements.js";
import { isComposing } from "../controls/keys.js";
import { deletedText, WORDS } from "../language/words.js";
import { isDeleted } from "./deletion.js";
import { Lines } from "./lines.js";
import { rename } from "./rename.js";

/** @typedef {import("../connection/api.js").Conversation} Conversation */

const UNDO = 60_000;
const TYPING = 200;

/**
 * The list in the sidebar. Events: `open` (detail: the id of a conversation to open), `removed` (detail: the id of one
 * that was deleted), `failed` (what the visitor wanted could not be done).
 */
export class List extends EventTarget {
  #element;
  #lines;
  #menu;
  #toasts;
  #nothing;
  #search;
  #older;
  #bottom;
  /** @type {Map<string, Conversation>} */
  #items = new Map();
  /** @type {Set<string>} deleted here; what the server said before it knew does not bring them back */
  #removed = new Set();
  /** @type {string | null} */
  #next = null;
  #query = "";
  #asked = 0; // counts the questions to the server, so that a slow answer does not replace a later one
  #typing = 0;
  #fetching = false;
  #again = new Again();

  /**
   * @param {HTMLElement} root the sidebar
   * @param {import("../controls/menu.js").Menu} menu
   * @param {import("../controls/toast.js").Toasts} toasts
   */
  constructor(root, menu, toasts) {
    super();
    this.#element = find(root, "#list");
    this.#lines = new Lines(this.#element);
    this.#nothing = find(root, "#nothing");
    this.#search = /** @type {HTMLInputElement} */ (find(root, "#search"));
    this.#older = find(root, "#older");
    this.#menu = menu;
    this.#toasts = toasts;
    this.#element.addEventListener("click", (event) => this.#clicked(event));
    this.#search.addEventListener("input", () => this.#searched());
    this.#search.addEventListener("keydown", (event) => this.#key(event));
    this.#bottom = new IntersectionObserver((seen) => seen.at(-1)?.isIntersecting && this.#more(), {
      root: find(root, "#conversations"),
      rootMargin: "0px 0px 400px",
    });
  }

  /** @param {string | null} id the conversation that is open */
  set current(id) {
    this.#lines.current = id;
  }

  /** Put the focus into the search field. */
  search() {
    this.#search.focus();
    this.#search.select();
  }

  /** Fetch what changed lately. What fails is tried again after a while. Return whether it worked. */
  async refresh() {
    const asked = ++this.#asked;
    const query = this.#query;
    this.#again.cancel();
    try {
      const page = await fetchConversations(null, query);
      if (asked !== this.#asked || query !== this.#query) return true;
      this.#again.succeeded();
      this.#forget(page);
      this.#take(page.conversations);
      return true;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (asked === this.#asked) this.#again.later(() => this.refresh());
      return false;
    }
  }

  /**
   * Forget the conversations that the first page would have if they still existed. They are taken over from it again.
   * @param {{conversations: Conversation[], next: string | null}} page
   */
  #forget({ conversations, next }) {
    const last = conversations.at(-1)?.updated ?? "";
    const further = next !== null && this.#items.size > conversations.length;
    for (const [id, item] of this.#items)
      if (!further || item.pinned || item.temporary || item.updated >= last) this.#items.delete(id);
    if (!further) this.#next = next;
  }

  async #more() {
    if (this.#next === null || this.#fetching) return;
    const query = this.#query;
    this.#fetching = true;
    try {
      const page = await fetchConversations(this.#next, query);
      if (query !== this.#query) return;
      this.#next = page.next;
      this.#take(page.conversations);
    } catch {
      // Scrolling on tries again.
    } finally {
      this.#fetching = false;
    }
  }

  #searched() {
    clearTimeout(this.#typing);
    this.#typing = setTimeout(async () => {
      this.#query = this.#search.value.trim();
      this.#items.clear();
      this.#next = null;
      if (!(await this.refresh())) this.dispatchEvent(new Event("failed"));
    }, TYPING);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.key !== "Escape" || isComposing(event) || !this.#search.value) return;
    event.preventDefault();
    event.stopPropagation(); // it empties the field, and closes no drawer
    this.#search.value = "";
    this.#searched();
  }

  /** @param {Conversation[]} conversations */
  #take(conversations) {
    for (const item of conversations) if (!this.#removed.has(item.id)) this.#items.set(item.id, item);
    this.#draw();
  }

  #draw() {
    this.#lines.draw([...this.#items.values()].sort(order));
    this.#element.ariaBusy = "false";
    this.#nothing.hidden = this.#items.size > 0;
    this.#nothing.textContent = this.#query ? WORDS.noneFound : WORDS.noneYet;
    this.#bottom.disconnect(); // observed anew it tells whether the end is still in view
    if (this.#next !== null) this.#bottom.observe(this.#older);
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const line = /** @type {HTMLElement | null} */ (target.closest(".line"));
    const item = line && this.#items.get(line.dataset.id ?? "");
    if (!item) return;
    const button = target.closest("button");
    if (button) {
      this.#openMenu(button, line, item);
    } else if (target.closest("a") && !(event.metaKey || event.ctrlKey || event.shiftKey)) {
      event.preventDefault();
      this.dispatchEvent(new CustomEvent("open", { detail: item.id }));
    }
  }

  /**
   * @param {HTMLElement} button
   * @param {HTMLElement} line
   * @param {Conversation} item
   */
  #openMenu(button, line, item) {
    find(document, "#pin-label").textContent = item.pinned ? WORDS.unpin : WORDS.pin;
    for (const ending of ["md", "json"]) {
      const link = /** @type {HTMLAnchorElement} */ (find(document, `#conversation-menu [data-does="${ending}"]`));
      link.href = `/c/${item.id}/export.${ending}`;
    }
    const without = item.temporary ? ["rename", "pin", "md", "json"] : [];
    this.#menu.open(button, without, (does) => {
      if (does === "rename") rename(line, item.title, (title) => this.#change(item.id, { title }));
      else if (does === "pin") this.#change(item.id, { pinned: !item.pinned });
      else if (does === "delete") this.#remove(item);
    });
  }

  /**
   * Change a conversation. The change is shown at once, and taken back if the server refuses it.
   * @param {string} id
   * @param {{title?: string, pinned?: boolean}} changes
   */
  async #change(id, changes) {
    const before = this.#items.get(id);
    if (!before) return;
    this.#take([{ ...before, ...changes }]);
    try {
      await changeConversation(id, changes);
    } catch {
      this.#take([before]);
      this.dispatchEvent(new Event("failed"));
    }
  }

  /**
   * Delete a conversation. It vanishes at once, and comes back if the server refuses or the visitor undoes it in time.
   * The way back stays for as long as it may be deleted, also where the server failed at it or its answer was lost.
   * @param {Conversation} item
   */
  async #remove(item) {
    this.#removed.add(item.id);
    this.#items.delete(item.id);
    this.#draw();
    this.dispatchEvent(new CustomEvent("removed", { detail: item.id }));
    const deleted = isDeleted(item.id);
    const toast = this.#toasts.show(
      deletedText(item.title),
      UNDO,
      item.temporary ? null : () => this.#restore(item, deleted),
    );
    if (document.activeElement === document.body) toast.focus(); // the line that is gone had the focus
    const known = await deleted;
    if (known === true) return;
    if (known === false) toast.hide();
    this.#back(item);
    this.dispatchEvent(new Event("failed"));
  }

  /**
   * @param {Conversation} item
   * @param {Promise<unknown>} deleted settled when the server has been asked to delete it
   */
  async #restore(item, deleted) {
    await deleted;
    try {
      await restoreConversation(item.id);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.dispatchEvent(new Event("failed"));
      return;
    }
    this.#back(item);
    this.dispatchEvent(new CustomEvent("open", { detail: item.id }));
  }

  /** @param {Conversation} item */
  #back(item) {
    this.#removed.delete(item.id);
    this.#take([item]);
  }
}

/**
 * Compare two conversations: pinned ones come first, then the latest.
 * @param {Conversation} a
 * @param {Conversation} b
 */
function order(a, b) {
  return Number(b.pinned ?? false) - Number(a.pinned ?? false) || (a.updated < b.updated ? 1 : -1);
}
