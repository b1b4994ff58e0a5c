/** The box a visitor writes into. The text stays in it until the server has accepted it. */

export class Composer extends EventTarget {
  #form;
  #text;
  #send;
  #stop;
  #problem;
  #sending = false;
  #live = false;

  /** @param {HTMLFormElement} form */
  constructor(form) {
    super();
    this.#form = form;
    this.#text = /** @type {HTMLTextAreaElement} */ (form.querySelector("#text"));
    this.#send = /** @type {HTMLButtonElement} */ (form.querySelector("#send"));
    this.#stop = /** @type {HTMLButtonElement} */ (form.querySelector("#stop"));
    this.#problem = /** @type {HTMLElement} */ (form.querySelector("#problem"));
    form.addEventListener("submit", (event) => this.#submit(event));
    this.#text.addEventListener("keydown", (event) => this.#key(event));
    this.#text.addEventListener("input", () => this.#update());
    this.#stop.addEventListener("click", () => this.dispatchEvent(new Event("stop")));
    this.#update();
  }

  /** @param {boolean} live an answer is being written in the open conversation */
  set live(live) {
    this.#live = live;
    this.#update();
  }

  /** @param {string} sentence */
  set problem(sentence) {
    this.#problem.textContent = sentence;
  }

  /** A message is on its way: it was sent, or will be with the next connection, and has no reply yet. */
  get sending() {
    return this.#sending;
  }

  set sending(sending) {
    this.#sending = sending;
    this.#update();
  }

  /** @param {string} text what was accepted; what was typed since stays */
  accepted(text) {
    if (this.#text.value === text) this.#text.value = "";
    this.problem = "";
    this.#update();
  }

  focus() {
    this.#text.focus();
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const text = this.#text.value;
    if (!text.trim() || this.#sending || this.#live) return;
    this.dispatchEvent(new CustomEvent("message", { detail: text }));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const composing = event.isComposing || event.keyCode === 229; // Safari ends a composition before this Enter
    if (event.key === "Enter" && !event.shiftKey && !composing) {
      event.preventDefault();
      this.#form.requestSubmit();
    }
    if (event.key === "Escape" && this.#live && !composing) this.dispatchEvent(new Event("stop"));
  }

  #update() {
    this.#send.hidden = this.#live;
    this.#stop.hidden = !this.#live;
    this.#send.disabled = this.#sending || !this.#text.value.trim();
    this.#form.classList.toggle("sending", this.#sending);
  }
}
