/** The messages of the open conversation on the page; text that streams is drawn at most every fourth frame. */

import { Answer } from "./answer.js";
import { copyOf } from "./part.js";
import { Question } from "./question.js";

/** @typedef {import("./store.js").Shown} Shown */

const still = matchMedia("(prefers-reduced-motion: reduce)");
const PAUSE = 55; // milliseconds between two drawings, at least: a frame costs the same however little is new in it

/** Events: `act` (detail: {does, message, detail}), `earlier` (the first message known is coming into view). */
export class Thread extends EventTarget {
  #element;
  #greeting;
  #follow;
  /** @type {Map<string, Question | Answer>} */
  #parts = new Map();
  /** @type {Set<Answer>} */
  #growing = new Set();
  #scheduled = false;
  #drawn = 0; // when
  #top;
  #skeleton = copyOf("skeleton-template");

  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} greeting
   * @param {import("./follow.js").Follow} follow
   * @param {import("./store.js").Store} store
   */
  constructor(element, greeting, follow, store) {
    super();
    this.#element = element;
    this.#greeting = greeting;
    this.#follow = follow;
    this.store = store;
    this.#top = new IntersectionObserver((seen) => this.#reached(seen), {
      root: element.parentElement,
      rootMargin: "600px 0px 0px",
    });
    store.addEventListener("thread", () => this.#sync());
    store.addEventListener("asked", () => {
      for (const part of this.#parts.values()) if (part instanceof Answer) part.leave();
      this.#sync();
      follow.toEnd();
    });
    store.addEventListener("answer", (event) => this.#changed(/** @type {CustomEvent} */ (event).detail));
    store.addEventListener("text", (event) => this.#grew(/** @type {CustomEvent} */ (event).detail));
  }

  /**
   * The text of an answer without its Markdown, as it is on the page.
   * @param {Shown} message
   */
  textOf(message) {
    return this.#parts.get(message.id)?.text.innerText ?? "";
  }

  /** Write the last message of the visitor anew. */
  editLast() {
    const last = this.store.messages.findLast(({ role }) => role === "user");
    const part = last && this.#parts.get(last.id);
    if (part instanceof Question) part.edit();
  }

  /** Have on the page what is in the store; parts that are there already stay the same elements. */
  #sync() {
    const { messages } = this.store;
    const wanted = new Set(messages.map(({ id }) => id));
    const another = !messages.some(({ id }) => this.#parts.has(id));
    for (const [id, part] of this.#parts) if (!wanted.has(id)) this.#remove(id, part);
    const above = messages.length > 0 && !another && !this.#parts.has(messages[0].id);
    if (above) this.#follow.above(() => this.#place(messages));
    else this.#place(messages);
    this.#greeting.hidden = messages.length > 0 || this.store.conversation !== null;
    if (this.store.loading) this.#element.append(this.#skeleton);
    else this.#skeleton.remove();
    this.#element.ariaBusy = String(this.store.loading);
    if (another) this.#follow.toEnd();
    else if (!above) this.#follow.keep();
    this.#watchTop();
  }

  /** @param {Shown[]} messages */
  #place(messages) {
    /** @type {Element | null} */
    let next = this.#element.firstElementChild;
    for (const message of messages) {
      const part = this.#parts.get(message.id) ?? this.#build(message);
      if (part.root === next) next = next.nextElementSibling;
      else this.#element.insertBefore(part.root, next);
      part.draw(message);
    }
  }

  /** @param {Shown} message */
  #build(message) {
    const act = (/** @type {string} */ does, /** @type {Shown} */ message, /** @type {unknown} */ detail) =>
      this.dispatchEvent(new CustomEvent("act", { detail: { does, message, detail } }));
    const part = message.role === "user" ? new Question(message, act) : new Answer(message, act);
    this.#parts.set(message.id, part);
    return part;
  }

  /**
   * @param {string} id
   * @param {Question | Answer} part
   */
  #remove(id, part) {
    part.root.remove();
    this.#parts.delete(id);
    if (part instanceof Answer) this.#growing.delete(part);
  }

  /** @param {Shown} message */
  #changed(message) {
    const part = this.#parts.get(message.id);
    if (!part) return;
    part.draw(message);
    this.#follow.keep();
  }

  /** @param {Shown} message */
  #grew(message) {
    const part = this.#parts.get(message.id);
    if (!(part instanceof Answer)) return;
    this.#growing.add(part);
    this.#schedule();
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame((now) => this.#drawFrame(now));
  }

  /** @param {number} now */
  #drawFrame(now) {
    const elapsed = still.matches ? undefined : Math.max(PAUSE, now - this.#drawn);
    this.#drawn = now;
    for (const part of this.#growing) if (!part.grow(elapsed)) this.#growing.delete(part);
    this.#follow.keep();
    setTimeout(() => {
      this.#scheduled = false;
      if (this.#growing.size) this.#schedule();
    }, PAUSE);
  }

  #watchTop() {
    this.#top.disconnect();
    const first = this.#element.firstElementChild;
    if (first && this.store.earlier !== null) this.#top.observe(first);
  }

  /** @param {IntersectionObserverEntry[]} seen */
  #reached(seen) {
    if (seen.some(({ isIntersecting }) => isIntersecting)) this.dispatchEvent(new Event("earlier"));
  }
}
