/**
 * Asks for answers, one at a time. A question stays in the composer's box until the server has accepted it, also over a
 * reload: then it is sent again under its first id, and the server carries out each id once.
 */

import { newId, Refusal } from "../connection/socket.js";
import { draftOf, dropDraft, keepDraft } from "../state/drafts.js";

/** @typedef {import("../state/store.js").Shown} Shown */
/** @typedef {import("../state/drafts.js").Frame} Frame */

/** Sends what the visitor asks. Events: `accepted` (the server has accepted what was asked). */
export class Turns extends EventTarget {
  #socket;
  #store;
  #composer;
  #conversation;
  #problem;

  /**
   * @param {import("../connection/socket.js").Socket} socket
   * @param {import("../state/store.js").Store} store
   * @param {import("../composer/composer.js").Composer} composer
   * @param {import("./conversation.js").Conversation} conversation
   * @param {import("../composer/problem.js").Problem} problem
   */
  constructor(socket, store, composer, conversation, problem) {
    super();
    this.#socket = socket;
    this.#store = store;
    this.#composer = composer;
    this.#conversation = conversation;
    this.#problem = problem;
    composer.addEventListener("message", (event) => this.send(/** @type {CustomEvent} */ (event).detail));
    composer.addEventListener("written", (event) => {
      keepDraft(store.conversation, { text: /** @type {CustomEvent} */ (event).detail });
    });
    conversation.addEventListener("opened", () => this.#recall());
  }

  /**
   * Send a question, to the open conversation or as the first of a new one.
   * @param {string} text
   */
  send(text) {
    const { conversation, settings, temporary } = this.#store;
    const how = conversation === null ? { settings, temporary } : { conversation };
    return this.#deliver({ type: "message.send", id: newId(), text, ...how });
  }

  /**
   * Send another text in the place of a question. It begins a branch beside that question.
   * @param {Shown} message
   * @param {string} text
   */
  resubmit(message, text) {
    const frame = { type: "message.send", text, conversation: this.#store.conversation, parent: message.parent };
    return this.#ask(frame, (accepted) => this.#store.accept(accepted, text, message.id));
  }

  /**
   * Ask for another answer in the place of one.
   * @param {Shown} message
   */
  regenerate(message) {
    const frame = { type: "message.regenerate", message: message.id };
    return this.#ask(frame, (accepted) => this.#store.redo(accepted, message.id));
  }

  /**
   * Have an answer that was cut off go on.
   * @param {Shown} message
   */
  goOn(message) {
    return this.#ask({ type: "message.continue", message: message.id }, (accepted) => this.#store.goOn(accepted));
  }

  /**
   * Send what is in the box. The frame with its id stays with the draft until there is a reply.
   * @param {Frame} frame
   */
  async #deliver(frame) {
    const from = this.#store.conversation;
    const mine = this.#conversation.view;
    keepDraft(from, { text: frame.text, frame });
    const done = await this.#ask(frame, (accepted) => {
      if (mine !== this.#conversation.view) return;
      this.#store.accept(accepted, frame.text);
      if (!from) history.pushState(null, "", `/c/${accepted.conversation}/`);
    });
    const here = mine === this.#conversation.view;
    const text = here ? this.#composer.text : draftOf(from).text;
    const left = done && text === frame.text ? "" : text; // what was typed since stays
    if (here) this.#composer.text = left;
    if (done && from === null) dropDraft(null);
    keepDraft(here ? this.#store.conversation : from, { text: left, frame: undefined });
  }

  /** Put the draft into the box; if it was sent and nobody knows how that ended, send it again. */
  #recall() {
    const { conversation } = this.#store;
    const { text, frame, settings, temporary } = draftOf(conversation);
    if (conversation === null) this.#store.plan(settings ?? {}, temporary);
    this.#composer.text = text;
    if (frame) this.#deliverAgain(frame);
  }

  /**
   * Send a frame again that has had no reply, and show the conversation: its answer may be complete by now.
   * @param {Frame} frame
   */
  async #deliverAgain(frame) {
    const mine = this.#conversation.view;
    await this.#deliver(frame);
    const { conversation } = this.#store;
    if (mine === this.#conversation.view && conversation) await this.#conversation.show(conversation);
  }

  /**
   * Send a frame that asks for an answer. Its reply goes to `accept`, unless another conversation was opened meanwhile.
   * @param {{type: string, [field: string]: unknown}} frame
   * @param {(accepted: import("../state/store.js").Accepted) => void} accept
   * @returns {Promise<boolean>} whether it was accepted
   */
  async #ask(frame, accept) {
    if (this.#composer.sending || this.#store.live) return false;
    const mine = this.#conversation.view;
    this.#composer.sending = true;
    this.#problem.clear();
    try {
      const accepted = await this.#socket.request(frame);
      if (mine === this.#conversation.view) accept(accepted);
      this.dispatchEvent(new Event("accepted"));
      return true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (mine === this.#conversation.view) this.#problem.refused(error);
      return false;
    } finally {
      this.#composer.sending = false;
    }
  }
}
