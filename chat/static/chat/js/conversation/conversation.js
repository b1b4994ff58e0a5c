/**
 * The open conversation: what the server has of it goes to the store, what its visitor changes goes to the server.
 * Asking for an answer is `turns.js`.
 */

import { changeConversation, deleteMessage, Failure, fetchConversation, rate } from "../connection/api.js";
import { WORDS } from "../language/words.js";
import { keepDraft } from "../state/drafts.js";

/** @typedef {import("../state/store.js").Shown} Shown */

/**
 * Events: `opened` (another one, or a new one), `changed` (what is known of it), `gone` (it does not exist any more;
 * `detail`: to the visitor's surprise).
 */
export class Conversation extends EventTarget {
  /** Counts the conversations opened, so that a slow reply does not change a later one. */
  view = 0;
  #socket;
  #store;
  #problem;
  #fetching = false;
  #removing = false;

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
  }

  /** @param {string | null} id null: a new one */
  async open(id) {
    this.view++;
    this.#problem.clear();
    if (id === null || id !== this.#store.conversation) this.#store.open(id);
    this.dispatchEvent(new Event("opened"));
    this.#changed();
    if (id !== null) await this.show(id);
  }

  /**
   * Show it as the server has it, and go on with its answer where it is.
   * @param {string} id
   */
  async show(id) {
    const mine = this.view;
    let branch;
    try {
      branch = await fetchConversation(id);
    } catch (error) {
      if (mine === this.view) this.#missing(error);
      return;
    }
    if (mine !== this.view) return;
    this.#store.load(branch);
    this.#changed();
    if (this.#store.live) this.watch(this.#store.live);
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
   * Have the rest of an answer sent: from the next delta on, or all of it if none is known.
   * @param {Shown} message
   */
  watch(message) {
    if (this.#socket.state !== "open") return; // every opened socket begins with it
    const next = message.nextSeq === undefined ? {} : { next_seq: message.nextSeq };
    const conversation = this.#store.conversation;
    this.#socket
      .request({ type: "conversation.open", conversation, generation: message.generation?.id, ...next })
      .catch(ignore);
  }

  /** A delta is missing: have it whole. */
  repair() {
    const { live } = this.#store;
    if (!live) return;
    delete live.nextSeq;
    this.watch(live);
  }

  stop() {
    const generation = this.#store.live?.generation?.id;
    if (generation) this.#socket.request({ type: "generation.stop", generation }).catch(ignore);
  }

  /** @param {string} version a message beside the one that is shown */
  turnTo(version) {
    return this.#change((id) => changeConversation(id, { shown: version }));
  }

  /** @param {Shown} message */
  async remove(message) {
    this.#removing = true;
    try {
      await this.#change(() => deleteMessage(message.id));
    } finally {
      this.#removing = false;
    }
  }

  /**
   * @param {Shown} message
   * @param {import("../connection/api.js").Feedback | null} feedback
   */
  async rate(message, feedback) {
    const before = message.feedback;
    this.#store.rate(message, feedback);
    try {
      await rate(message.id, feedback);
    } catch {
      if (feedback?.comment) keepDraft(message.id, { text: feedback.comment });
      this.#store.rate(message, before ?? null);
      this.#problem.say(WORDS.notDone);
    }
  }

  /**
   * How its answers are to be made from now on; of a new one, once it begins. Rejected with a Failure.
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
   * Have the server change something, and show what came of it.
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

  /** @param {unknown} error what is shown already stays, and the next connection begins with another try */
  #missing(error) {
    if (error instanceof Failure && error.status === 404)
      this.dispatchEvent(new CustomEvent("gone", { detail: !this.#removing }));
    else if (this.#store.loading) this.#problem.say(WORDS.notLoaded);
  }

  #changed() {
    this.dispatchEvent(new Event("changed"));
  }
}

function ignore() {}
