/**
 * Draws conversations as lines under headings. A line that is in its place already is not touched, however many there
 * are.
 */

import { copyOf, find } from "../controls/elements.js";
import { menuText } from "../language/words.js";
import { heading } from "./headings.js";

/** @typedef {import("../connection/api.js").Conversation} Conversation */

/** The lines of the list. `list.js` says which conversations there are, and in which order. */
export class Lines {
  #element;
  /** @type {Map<string, HTMLElement>} by conversation */
  #lines = new Map();
  /** @type {Map<string, HTMLElement>} by heading */
  #sections = new Map();
  /** @type {string | null} */
  #current = null;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /** @param {string | null} id the conversation that is open */
  set current(id) {
    this.#mark(this.#current, false);
    this.#current = id;
    this.#mark(id, true);
  }

  /** @param {Conversation[]} items in their order */
  draw(items) {
    this.#element.querySelector(":scope > .skeletons")?.remove();
    const now = new Date();
    /** @type {Map<string, Conversation[]>} */
    const groups = new Map();
    for (const item of items) {
      const name = heading(item, now);
      const group = groups.get(name);
      if (group) group.push(item);
      else groups.set(name, [item]);
    }
    this.#drop(new Set(items.map(({ id }) => id)), groups);
    place(
      this.#element,
      [...groups].map(([name, group]) => this.#section(name, group)),
    );
  }

  /**
   * @param {Set<string>} wanted
   * @param {Map<string, unknown>} groups
   */
  #drop(wanted, groups) {
    for (const [id, line] of this.#lines) {
      if (wanted.has(id)) continue;
      line.remove();
      this.#lines.delete(id);
    }
    for (const [name, section] of this.#sections) {
      if (groups.has(name)) continue;
      section.remove();
      this.#sections.delete(name);
    }
  }

  /**
   * @param {string} name
   * @param {Conversation[]} items
   */
  #section(name, items) {
    let section = this.#sections.get(name);
    if (!section) {
      section = document.createElement("section");
      const title = document.createElement("h2");
      title.textContent = name;
      section.append(title, document.createElement("ul"));
      this.#sections.set(name, section);
      this.#element.append(section); // a line can be moved into it with the focus only once it is there
    }
    place(
      find(section, "ul"),
      items.map((item) => this.#line(item)),
    );
    return section;
  }

  /** @param {Conversation} item */
  #line(item) {
    let line = this.#lines.get(item.id);
    if (!line) {
      line = copyOf("line-template");
      line.dataset.id = item.id;
      /** @type {HTMLAnchorElement} */ (find(line, "a")).href = `/c/${item.id}/`;
      this.#lines.set(item.id, line);
      this.#mark(item.id, item.id === this.#current);
    }
    const link = /** @type {HTMLAnchorElement} */ (find(line, "a"));
    if (link.title !== item.title) {
      find(link, ".name").textContent = item.title;
      link.title = item.title;
      find(line, "button").ariaLabel = menuText(item.title);
    }
    find(link, ".passing").hidden = !item.temporary;
    find(link, ".live").hidden = item.live === null;
    return line;
  }

  /**
   * @param {string | null} id
   * @param {boolean} current
   */
  #mark(id, current) {
    const link = id === null ? null : this.#lines.get(id)?.querySelector("a");
    if (current) link?.setAttribute("aria-current", "page");
    else link?.removeAttribute("aria-current");
  }
}

/**
 * Put elements into their parent, in this order. One that has the focus keeps it, also if it has to be moved.
 * @param {HTMLElement & {moveBefore?: (child: Element, next: Element | null) => void}} parent
 * @param {HTMLElement[]} children what else is in it has gone already
 */
function place(parent, children) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  let next = parent.firstElementChild;
  for (const child of children) {
    if (child === next) next = next.nextElementSibling;
    else if (parent.moveBefore && child.isConnected) parent.moveBefore(child, next);
    else parent.insertBefore(child, next);
  }
  if (focused !== document.activeElement && focused?.isConnected) focused.focus();
}
