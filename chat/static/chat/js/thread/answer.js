/** Shows an answer: its text as it grows, its place while it waits, how it ended, and what can be done with it. */

import { copier } from "../controls/copying.js";
import { find } from "../controls/elements.js";
import { figuresText, reasonText, waitingText } from "../language/words.js";
import { Markdown } from "../markdown/markdown.js";
import { drafts } from "../state/drafts.js";
import { isCutOff, isLive } from "../state/store.js";
import { Comment, unsentComment } from "./comment.js";
import { MessageView } from "./message.js";
import { portion } from "./pace.js";

/** @typedef {import("../state/store.js").Shown} Shown */

/** An answer in the thread. The thread makes one for each message of the model. */
export class Answer extends MessageView {
  #waiting;
  #note;
  #more;
  #figures;
  /** @type {Comment | null} */
  #comment = null;
  /** @type {Markdown | null} */
  #markdown = null;
  #drawn = "";
  #ended = false;
  #first = 0; // the place in the queue it began with

  /**
   * @param {Shown} message
   * @param {(does: string, message: Shown, detail?: unknown) => void} act
   */
  constructor(message, act) {
    super("answer-template", message, act);
    this.#waiting = find(this.root, ".waiting");
    this.#note = find(this.root, ".note");
    this.#more = find(this.root, ".more");
    this.#figures = find(this.root, ".figures");
    copier(find(this.root, '[data-does="copy"]'), () => this.message.text);
  }

  /** @param {Shown} message */
  draw(message) {
    super.draw(message);
    const live = isLive(message);
    this.#drawText(message.text, live);
    this.#drawPlace();
    this.root.classList.toggle("live", live);
    this.root.classList.toggle("empty", live && !message.text && !this.#waitsVisibly);
    this.root.ariaBusy = String(live);
    this.#more.hidden = !isCutOff(message);
    this.#note.textContent = live ? "" : reasonText(message.generation, message.text);
    this.#figures.textContent = live || !message.generation ? "" : figuresText(message.generation);
    this.#drawFeedback();
  }

  /**
   * Draw text that has come since the drawing before: a share of it, or all if no time is given.
   * @param {number} [elapsed] milliseconds since the drawing before
   * @returns {boolean} whether some is left to draw
   */
  grow(elapsed) {
    if (!this.#markdown || this.#ended) return false;
    const rest = this.message.text.slice(this.#drawn.length);
    const drawn = elapsed === undefined ? rest : portion(rest, elapsed);
    this.root.classList.remove("empty");
    this.#markdown.append(drawn);
    this.#drawn += drawn;
    return drawn.length < rest.length;
  }

  /** Close the box for a comment if none was begun. Called when the visitor asks something else. */
  leave() {
    if (this.#comment?.isEmpty) this.#closeComment();
  }

  /**
   * @param {string} does
   * @param {unknown} [detail]
   */
  does(does, detail) {
    if (does === "good" || does === "bad") this.#rate(does === "good" ? 1 : -1);
    else super.does(does, detail);
  }

  /**
   * Draw the text from where the drawing before ended. It is drawn from the beginning only if it does not begin with
   * what is drawn, or goes on after its end: Markdown that has ended takes no more.
   * @param {string} text
   * @param {boolean} live
   */
  #drawText(text, live) {
    const grows = this.#markdown && (text === this.#drawn || (!this.#ended && text.startsWith(this.#drawn)));
    if (!grows || (live && this.#ended)) {
      this.#markdown = new Markdown(this.text);
      this.#drawn = "";
      this.#ended = false;
    }
    if (text !== this.#drawn) this.grow();
    if (!live && !this.#ended) {
      this.#markdown?.end();
      this.#ended = true;
    }
  }

  get #waitsVisibly() {
    return this.message.generation?.state === "queued" && this.message.place !== undefined;
  }

  #drawPlace() {
    const { place } = this.message;
    this.#waiting.hidden = !this.#waitsVisibly;
    if (this.#waiting.hidden || !place) return;
    this.#first = Math.max(this.#first, place.position + 1);
    /** @type {HTMLProgressElement} */ (find(this.#waiting, "progress")).value = 1 - place.position / this.#first;
    find(this.#waiting, ".place").textContent = waitingText(this.message);
  }

  #drawFeedback() {
    const value = this.message.feedback?.value;
    find(this.root, '[data-does="good"]').ariaPressed = String(value === 1);
    find(this.root, '[data-does="bad"]').ariaPressed = String(value === -1);
    this.#recallComment();
  }

  /**
   * Rate the answer. The same rating again takes it back, and drops a comment that is being written.
   * @param {1 | -1} value
   */
  #rate(value) {
    const taken = this.message.feedback?.value === value;
    if (taken) this.#closeComment();
    super.does("rate", taken ? null : { value });
    if (taken) return;
    this.#askWhy();
    this.#comment?.focus();
  }

  /** Show a comment again that an earlier page left unsent, or that did not reach the server. */
  #recallComment() {
    const { id, feedback } = this.message;
    if (feedback && !this.#comment && unsentComment(id)) this.#askWhy();
  }

  #askWhy() {
    const { id } = this.message;
    const send = (/** @type {string} */ comment) =>
      super.does("rate", { value: this.message.feedback?.value ?? -1, comment });
    this.#comment ??= new Comment(this.root, id, send, () => {
      this.#comment = null;
      find(this.root, '.actions [aria-pressed="true"]').focus();
    });
  }

  #closeComment() {
    this.#comment?.remove();
    this.#comment = null;
    drafts.drop(this.message.id);
  }
}
