/** The messages of the open conversation on the page, and keeping the end in view for who is looking at it. */

import { Markdown } from "./markdown.js";
import { isCutOff, isLive } from "./store.js";
import { reasonText, waitingText } from "./words.js";

/** @typedef {import("./store.js").Shown} Shown */

const NEAR_END = 48;

/** Events: `continue` (detail: the message that is to go on). */
export class Thread extends EventTarget {
  #element;
  #scroller;
  #greeting;
  /**
   * @typedef {{text: HTMLElement, note: HTMLElement, more: HTMLElement, markdown: Markdown | null, ended: boolean, root: HTMLElement}} Part
   * @type {Map<string, Part>}
   */
  #parts = new Map();

  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} scroller
   * @param {HTMLElement} greeting
   * @param {import("./store.js").Store} store
   */
  constructor(element, scroller, greeting, store) {
    super();
    this.#element = element;
    this.#scroller = scroller;
    this.#greeting = greeting;
    this.store = store;
    store.addEventListener("thread", () => this.#reset());
    store.addEventListener("added", (event) => this.#add(/** @type {CustomEvent} */ (event).detail, true));
    store.addEventListener("answer", (event) => this.#redraw(/** @type {CustomEvent} */ (event).detail));
    store.addEventListener("text", (event) => this.#append(/** @type {CustomEvent} */ (event).detail));
  }

  #reset() {
    this.#parts.clear();
    this.#element.replaceChildren();
    this.#add(this.store.messages, true);
  }

  /**
   * @param {Shown[]} messages
   * @param {boolean} toEnd
   */
  #add(messages, toEnd) {
    for (const message of messages) {
      this.#element.append(this.#build(message));
      this.#draw(message);
    }
    this.#greeting.hidden = this.store.messages.length > 0;
    if (toEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** @param {Shown} message */
  #build(message) {
    const root = document.createElement("article");
    root.className = message.role === "user" ? "question" : "answer";
    root.dataset.id = message.id;
    const text = document.createElement("div");
    text.className = "text";
    text.dir = "auto";
    const note = document.createElement("p");
    note.className = "note";
    const more = document.createElement("button");
    more.type = "button";
    more.className = "quiet more";
    more.textContent = "Continue";
    more.hidden = true;
    more.addEventListener("click", () => this.dispatchEvent(new CustomEvent("continue", { detail: message })));
    root.append(text, note);
    if (message.role === "assistant") root.append(more);
    this.#parts.set(message.id, { root, text, note, more, markdown: null, ended: false });
    return root;
  }

  /** @param {Shown} message */
  #redraw(message) {
    this.#following(() => this.#draw(message));
  }

  /**
   * Draw the state of a message, and its text unless what is drawn of it is already growing.
   * @param {Shown} message
   */
  #draw(message) {
    const part = this.#parts.get(message.id);
    if (!part) return;
    if (message.role === "user") {
      part.text.textContent = message.text;
      return;
    }
    const live = isLive(message);
    const goesOn = live && part.ended; // Markdown that has ended takes no more
    if (!part.markdown || goesOn || part.root.dataset.drawn !== String(message.text.length)) {
      part.markdown = new Markdown(part.text);
      part.ended = false;
      part.markdown.append(message.text);
      part.root.dataset.drawn = String(message.text.length);
    }
    if (!live && !part.ended) {
      part.markdown.end();
      part.ended = true;
    }
    part.more.hidden = !isCutOff(message);
    part.root.classList.toggle("live", live);
    part.root.classList.toggle("empty", live && !message.text);
    part.note.textContent = live ? waitingText(message) : reasonText(message.generation, message.text);
  }

  /** @param {{message: Shown, text: string}} detail */
  #append({ message, text }) {
    const part = this.#parts.get(message.id);
    if (!part?.markdown) return;
    this.#following(() => {
      part.markdown?.append(text);
      part.root.dataset.drawn = String(message.text.length);
      part.root.classList.remove("empty");
    });
  }

  /**
   * Stay at the end if the reader is there; who has scrolled up is left alone.
   * @param {() => void} change
   */
  #following(change) {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    change();
    if (atEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}
