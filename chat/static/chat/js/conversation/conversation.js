/**
 * Brings what the server has of the open conversation to the store, and what its visitor changes to the server.
 * Questions are sent by `turns.js`.
 */

import { Again } from "../connection/again.js";
import { changeConversation, deleteMessage, Failure, fetchConversation, rate } from "../connection/api.js";
import { Refusal } from "../connection/socket.js";
import { WORDS } from "../language/words.js";
import { drafts } from "../state/drafts.js";

/** @typedef {import("../state/store.js").Shown} Shown */

/**
 * The conversation that is open. Events: `opened` (another one, or a new one), `changed` (something that is known of
 * it), `gone` (it does not exist any more; detail: whether that surprises the visitor).
 */
export class Conversation extends EventTarget {
  /** Counts the conversations opened, so that a slow reply does not change a later one. */
  view = 0;
  #socket;
  #store;
  #problem;
  #fetching = false;
  #removing = false;
  #asked = 0; // counts what is asked of the server, and what it said unasked
  #known = 0; // the latest of that which is shown
  #under = 0; // how many fetches of the conversation are under way
  /** @type {string | undefined} the generation that this connection follows */
  #followed;
  #again = new Again();

  /**
   * @param {import("../connection/socket.js").Socket} socket
   * @param {import("../state/store.js").Store} store
   * @param {import("../composer/problem.js").Problem} problem
   */
  constructor(socket, store, problem) {
    super();
    this.#socket = socket;
    this.#store = store;
    this.#problem = problem;
    socket.addEventListener("state", () => (this.#followed = undefined));
  }

  /**
   * Open a conversation, or begin a new one.
   * @param {string | null} id null: a new one
   */
  async open(id) {
    this.view++;
    this.#again.succeeded();
    this.#problem.clear();
    if (id === null || id !== this.#store.conversation) this.#store.open(id);
    this.dispatchEvent(new Event("opened"));
    this.#changed();
    if (id !== null) await this.show(id);
  }

  /**
   * Fetch a conversation and show it as the server has it; if it is being answered, follow the answer. An answer that is
   * known of already is followed before anything is fetched. What fails is tried again after a while.
   * @param {string} id
   */
  async show(id) {
    const mine = this.view;
    const order = ++this.#asked;
    this.#again.cancel();
    if (this.#store.live) this.watch(this.#store.live);
    let branch;
    try {
      this.#under++;
      branch = await fetchConversation(id);
    } catch (error) {
      if (mine === this.view) this.#missing(error);
      return;
    } finally {
      this.#under--;
    }
    if (mine !== this.view || order < this.#known) return;
    this.#known = order;
    this.#again.succeeded();
    this.#problem.retract(WORDS.notLoaded);
    this.#store.load(branch);
    this.#changed();
    if (this.#store.live) this.watch(this.#store.live);
  }

  /** Note that the server has said more than what is being fetched. That is fetched again. */
  outdate() {
    this.#known = ++this.#asked;
    if (this.#under > 0 && this.#store.conversation) this.show(this.#store.conversation);
    this.#changed();
  }

  /** Fetch the messages before those that are shown. */
  async earlier() {
    const { conversation, earlier } = this.#store;
    const mine = this.view;
    if (!conversation || !earlier || this.#fetching) return;
    this.#fetching = true;
    try {
      const branch = await fetchConversation(conversation, earlier);
      if (mine === this.view && this.#store.earlier === earlier)
        this.#store.prepend(branch.messages, branch.earlier ?? null);
    } catch {
      // Scrolling on tries again.
    } finally {
      this.#fetching = false;
    }
  }

  /**
   * Ask the server for the rest of an answer, unless it sends that already: from the next delta on, or all of it if that
   * is not known.
   * @param {Shown} message
   */
  async watch(message) {
    const generation = message.generation?.id;
    if (this.#socket.state !== "open" || generation === this.#followed) return; // a socket that opens asks again
    const next = message.nextSeq === undefined ? {} : { next_seq: message.nextSeq };
    const mine = this.view;
    this.#followed = generation;
    try {
      const conversation = this.#store.conversation;
      await this.#socket.request({ type: "conversation.open", conversation, generation, ...next });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#followed = undefined;
      if (mine === this.view) this.#later();
    }
  }

  /** Ask for the whole answer that is being written, because a delta of it is missing. */
  repair() {
    const { live } = this.#store;
    if (!live) return;
    delete live.nextSeq;
    this.#followed = undefined;
    this.watch(live);
  }

  /** Stop the answer that is being written. If the server refuses, it is said, and shown how the answer is. */
  async stop() {
    const { conversation, live } = this.#store;
    const mine = this.view;
    if (!live || !conversation) return;
    try {
      await this.#socket.request({ type: "generation.stop", generation: live.generation?.id });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (mine !== this.view) return;
      this.#problem.refused(error);
      await this.show(conversation);
    }
  }

  /**
   * Show another version of a message.
   * @param {string} version the id of a message beside the one that is shown
   */
  turnTo(version) {
    return this.#change((id) => changeConversation(id, { shown: version }));
  }

  /**
   * Delete a message and what follows it.
   * @param {Shown} message
   */
  async remove(message) {
    this.#removing = true;
    try {
      await this.#change(() => deleteMessage(message.id));
    } finally {
      this.#removing = false;
    }
  }

  /**
   * Rate an answer. The rating is shown at once, and taken back if it does not reach the server.
   * @param {Shown} message
   * @param {import("../connection/api.js").Feedback | null} feedback null takes a rating back
   */
  async rate(message, feedback) {
    const before = message.feedback;
    this.#store.rate(message, feedback);
    try {
      await rate(message.id, feedback);
    } catch {
      if (feedback?.comment) drafts.keep(message.id, { text: feedback.comment });
      this.#store.rate(message, before ?? null);
      this.#problem.say(WORDS.notDone);
    }
  }

  /**
   * Set how answers are made from now on; a new conversation takes it over when it begins. Rejects with a Failure.
   * @param {Record<string, unknown>} settings
   */
  async configure(settings) {
    const id = this.#store.conversation;
    const mine = this.view;
    if (id !== null) await changeConversation(id, { settings });
    if (mine !== this.view) return;
    this.#store.settings = settings;
    this.#changed();
  }

  /**
   * Have the server change something, and show the conversation as it is then.
   * @param {(id: string) => Promise<unknown>} change
   */
  async #change(change) {
    const id = this.#store.conversation;
    if (!id) return;
    const mine = this.view;
    this.#problem.clear();
    try {
      await change(id);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.#problem.refused(error);
      return;
    }
    if (mine === this.view) await this.show(id);
  }

  /**
   * Say that the conversation could not be fetched. What is shown already stays.
   * @param {unknown} error
   */
  #missing(error) {
    if (!(error instanceof Failure)) throw error;
    if (error.status === 404) {
      this.dispatchEvent(new CustomEvent("gone", { detail: !this.#removing }));
      return;
    }
    if (this.#store.loading) this.#problem.say(WORDS.notLoaded);
    this.#later();
  }

  #later() {
    const { conversation } = this.#store;
    if (conversation) this.#again.later(() => this.show(conversation));
  }

  #changed() {
    this.dispatchEvent(new Event("changed"));
  }
}
