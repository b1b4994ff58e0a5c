/** Holds the box that a visitor writes into. The text stays in it until the server has accepted it (`turns.js`). */

import { isComposing, isSending } from "../controls/keys.js";

const touched = matchMedia("(pointer: coarse)");

/**
 * The box with its buttons. Events: `message` (one is to be sent; detail: its text), `stop` (the answer is to end),
 * `written` (the text is another one now), `recall` (arrow up in an empty box).
 */
export class Composer extends EventTarget {
  #form;
  #text;
  #send;
  #stop;
  #sending = false;
  #live = false;

  /** @param {HTMLFormElement} form */
  constructor(form) {
    super();
    this.#form = form;
    this.#text = /** @type {HTMLTextAreaElement} */ (form.querySelector("#text"));
    this.#send = /** @type {HTMLButtonElement} */ (form.querySelector("#send"));
    this.#stop = /** @type {HTMLButtonElement} */ (form.querySelector("#stop"));
    form.addEventListener("submit", (event) => this.#submit(event));
    this.#text.addEventListener("keydown", (event) => this.#key(event));
    this.#text.addEventListener("input", () => this.#written());
    this.#stop.addEventListener("click", () => this.dispatchEvent(new Event("stop")));
    this.#update();
  }

  get text() {
    return this.#text.value;
  }

  set text(text) {
    if (this.#text.value !== text) this.#text.value = text;
    this.#update();
  }

  /** @param {boolean} live whether an answer is being written in the open conversation */
  set live(live) {
    this.#live = live;
    this.#update();
  }

  /** Whether a message is on its way: it was sent, or will be with the next connection, and has no reply yet. */
  get sending() {
    return this.#sending;
  }

  set sending(sending) {
    this.#sending = sending;
    this.#update();
  }

  /** Put the focus into the box, except where that would open a keyboard on the screen unasked. */
  focus() {
    if (!touched.matches) this.#text.focus();
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const text = this.#text.value;
    if (!text.trim() || this.#sending || this.#live) return;
    this.dispatchEvent(new CustomEvent("message", { detail: text }));
  }

  #written() {
    this.#update();
    this.dispatchEvent(new Event("written"));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (isSending(event)) {
      event.preventDefault();
      this.#form.requestSubmit();
    } else if (event.key === "ArrowUp" && !this.#text.value && !isComposing(event)) {
      event.preventDefault();
      this.dispatchEvent(new Event("recall"));
    }
  }

  #update() {
    const vanishing = [this.#send, this.#stop].some((button) => button === document.activeElement);
    this.#send.hidden = this.#live;
    this.#stop.hidden = !this.#live;
    this.#send.disabled = this.#sending || !this.#text.value.trim();
    this.#form.classList.toggle("sending", this.#sending);
    if (vanishing) this.focus();
    if (!CSS.supports("field-sizing", "content")) this.#fit();
  }

  /** Make the box as tall as its text, for browsers that do not do it by themselves. */
  #fit() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${this.#text.scrollHeight}px`;
  }
}
