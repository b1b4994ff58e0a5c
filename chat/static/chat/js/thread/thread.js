/** Shows the messages of the open conversation. Text that streams is drawn at most every fourth frame. */

import { copyOf } from "../controls/elements.js";
import { textOf } from "../markdown/copied.js";
import { Answer } from "./answer.js";
import { holdingFocus } from "./focus.js";
import { Question } from "./question.js";

/** @typedef {import("../state/store.js").Shown} Shown */

const still = matchMedia("(prefers-reduced-motion: reduce)");
const PAUSE = 55; // milliseconds between two drawings, at least: a frame costs the same however little is new in it

/**
 * The messages on the page. Events: `act` (the visitor wants something of a message; detail: {does, message, detail}),
 * `earlier` (the first message known is coming into view).
 */
export class Thread extends EventTarget {
  #element;
  #greeting;
  #follow;
  /** @type {Map<string, Question | Answer>} */
  #views = new Map();
  /** @type {Set<Answer>} */
  #growing = new Set();
  #scheduled = false;
  #drawn = 0; // when text was drawn last
  #top;
  #skeleton = copyOf("skeleton-template");

  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} greeting
   * @param {import("./follow.js").Follow} follow
   * @param {import("../state/store.js").Store} store
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
    store.addEventListener("thread", () => holdingFocus(element, () => this.#sync()));
    store.addEventListener("asked", () => {
      for (const view of this.#views.values()) if (view instanceof Answer) view.leave();
      holdingFocus(element, () => this.#sync());
      follow.toEnd();
    });
    store.addEventListener("answer", (event) => this.#changed(/** @type {CustomEvent} */ (event).detail));
    store.addEventListener("text", (event) => this.#grew(/** @type {CustomEvent} */ (event).detail));
  }

  /**
   * Return the text of an answer without its Markdown, as it is on the page.
   * @param {Shown} message
   */
  textOf(message) {
    const view = this.#views.get(message.id);
    return view ? textOf(view.text) : "";
  }

  /** Let the visitor write their last message anew. */
  editLast() {
    const last = this.store.messages.findLast(({ role }) => role === "user");
    const view = last && this.#views.get(last.id);
    if (view instanceof Question) view.edit();
  }

  /** Bring the page in line with the store. Messages that are on the page already keep their elements. */
  #sync() {
    const { messages } = this.store;
    const wanted = new Set(messages.map(({ id }) => id));
    const another = !messages.some(({ id }) => this.#views.has(id));
    for (const [id, view] of this.#views) if (!wanted.has(id)) this.#remove(id, view);
    const above = messages.length > 0 && !another && !this.#views.has(messages[0].id);
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
      const view = this.#views.get(message.id) ?? this.#build(message);
      if (view.root === next) next = next.nextElementSibling;
      else this.#element.insertBefore(view.root, next);
      view.draw(message);
    }
  }

  /** @param {Shown} message */
  #build(message) {
    const act = (/** @type {string} */ does, /** @type {Shown} */ message, /** @type {unknown} */ detail) =>
      this.dispatchEvent(new CustomEvent("act", { detail: { does, message, detail } }));
    const view = message.role === "user" ? new Question(message, act) : new Answer(message, act);
    this.#views.set(message.id, view);
    return view;
  }

  /**
   * @param {string} id
   * @param {Question | Answer} view
   */
  #remove(id, view) {
    view.root.remove();
    this.#views.delete(id);
    if (view instanceof Answer) this.#growing.delete(view);
  }

  /** @param {Shown} message */
  #changed(message) {
    const view = this.#views.get(message.id);
    if (!view) return;
    holdingFocus(this.#element, () => view.draw(message));
    this.#follow.keep();
  }

  /** @param {Shown} message */
  #grew(message) {
    const view = this.#views.get(message.id);
    if (!(view instanceof Answer)) return;
    this.#growing.add(view);
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
    for (const view of this.#growing) if (!view.grow(elapsed)) this.#growing.delete(view);
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
