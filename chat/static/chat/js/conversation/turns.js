/**
 * Asks for answers, one at a time. A question stays in the composer's box until the server has accepted it, also over a
 * reload: then it is sent again under its first id, and the server carries out each id once.
 */

import { newId, Refusal } from "../connection/socket.js";
import { drafts } from "../state/drafts.js";

/** @typedef {import("../state/store.js").Shown} Shown */
/** @typedef {import("../state/store.js").Accepted} Accepted */
/** @typedef {import("../state/drafts.js").Frame} Frame */

/** Sends what the visitor asks: in each conversation one thing at a time. */
export class Turns {
  #socket;
  #store;
  #composer;
  #conversation;
  #problem;
  /** @type {Set<string | null>} the conversations in which something is asked that has no reply yet; null: a new one */
  #asking = new Set();

  /**
   * @param {import("../connection/socket.js").Socket} socket
   * @param {import("../state/store.js").Store} store
   * @param {import("../composer/composer.js").Composer} composer
   * @param {import("./conversation.js").Conversation} conversation
   * @param {import("../composer/problem.js").Problem} problem
   */
  constructor(socket, store, composer, conversation, problem) {
    this.#socket = socket;
    this.#store = store;
    this.#composer = composer;
    this.#conversation = conversation;
    this.#problem = problem;
    composer.addEventListener("message", (event) => this.send(/** @type {CustomEvent} */ (event).detail));
    composer.addEventListener("written", () => drafts.writing(store.conversation, () => composer.text));
    conversation.addEventListener("opened", () => this.#recall());
  }

  /**
   * Send a question, to the open conversation or as the first of a new one.
   * @param {string} text
   */
  send(text) {
    const { conversation, settings, temporary } = this.#store;
    if (!this.#mayAsk) return Promise.resolve();
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
    drafts.keep(from, { text: frame.text, frame });
    const accepted = await this.#reply(frame);
    const here = this.#store.conversation === from;
    const text = here ? this.#composer.text : drafts.of(from).text;
    const left = accepted && text === frame.text ? "" : text; // what was typed since stays
    if (accepted && from === null) drafts.drop(null);
    if (accepted && here) {
      this.#store.accept(accepted, frame.text);
      if (from === null) history.pushState(null, "", `/c/${accepted.conversation}/`);
      this.#conversation.outdate();
    }
    if (here) this.#composer.text = left;
    drafts.keep(here ? this.#store.conversation : from, { text: left, frame: undefined });
  }

  /** Put the draft into the box; if it was sent and nobody knows how that ended, send it again. */
  #recall() {
    const { conversation } = this.#store;
    drafts.store();
    const { text, frame, settings, temporary } = drafts.of(conversation);
    if (conversation === null) this.#store.plan(settings ?? {}, temporary);
    this.#composer.text = text;
    this.#composer.sending = this.#asking.has(conversation);
    if (frame && !this.#composer.sending) this.#deliverAgain(frame);
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
   * @param {(accepted: Accepted) => void} accept
   */
  async #ask(frame, accept) {
    const from = this.#store.conversation;
    if (!this.#mayAsk) return;
    const accepted = await this.#reply(frame);
    if (!accepted || from !== this.#store.conversation) return;
    accept(accepted);
    this.#conversation.outdate();
  }

  get #mayAsk() {
    return !this.#asking.has(this.#store.conversation) && !this.#store.live;
  }

  /**
   * Send a frame that asks for an answer. Return its reply, or null if the server refuses, which is said.
   * @param {{type: string, [field: string]: unknown}} frame
   * @returns {Promise<Accepted | null>}
   */
  async #reply(frame) {
    const from = this.#store.conversation;
    this.#asking.add(from);
    this.#composer.sending = true;
    this.#problem.clear();
    try {
      return await this.#socket.request(frame);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (from === this.#store.conversation) this.#problem.refused(error);
      return null;
    } finally {
      this.#asking.delete(from);
      this.#composer.sending = this.#asking.has(this.#store.conversation);
    }
  }
}
