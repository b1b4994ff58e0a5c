/**
 * Keeps what was begun and not accepted yet over a reload: for each conversation the text in the box, for a new one
 * also what it is to be, and for each answer a comment on it. A text that was sent is kept with the frame it was sent
 * as: sent again under the same id, it is carried out once.
 *
 * Drafts belong to the account that wrote them. What was written while nobody was signed in goes to the account that
 * signs in next, as the conversations do.
 */

import { account } from "./account.js";

/** @typedef {{type: string, id: string, text: string, [field: string]: unknown}} Frame */
/** @typedef {{text: string, frame?: Frame, settings?: Record<string, unknown>, temporary?: boolean}} Draft */

const PREFIX = "draft:";
const PAUSE = 1_000;

/** The drafts of one account. Event: `kept` (detail: whether the browser keeps them; it does not when it is full). */
export class Drafts extends EventTarget {
  #account;
  /** @type {Map<string | null, () => string>} the boxes that were written in since their drafts were stored */
  #written = new Map();
  #timer = 0;
  #kept = true;

  /** @param {string} account "" for nobody's */
  constructor(account) {
    super();
    this.#account = account;
    globalThis.addEventListener?.("pagehide", () => this.store());
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden && this.store());
    if (account) this.#adopt();
  }

  /**
   * Return the draft of a conversation or, by the id of an answer, of a comment on it.
   * @param {string | null} conversation null: a new one
   * @returns {Draft}
   */
  of(conversation) {
    if (this.#written.has(conversation)) this.store();
    return read(this.#key(conversation));
  }

  /**
   * Store what a box holds, after a while: to do it at every key would take longer than the key itself.
   * @param {string | null} conversation
   * @param {() => string} text returns what it holds
   */
  writing(conversation, text) {
    this.#written.set(conversation, text);
    this.#timer ||= setTimeout(() => whenIdle(() => this.store()), PAUSE);
  }

  /** Store now what is being written. Called before a box is given another text. */
  store() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const written = [...this.#written];
    this.#written.clear();
    for (const [conversation, text] of written) this.keep(conversation, { text: text() });
  }

  /**
   * Change a draft. One in which nothing is left is dropped.
   * @param {string | null} conversation
   * @param {Partial<Draft>} changes a text that is not of the frame leaves the frame behind
   */
  keep(conversation, changes) {
    const draft = { ...this.of(conversation), ...changes };
    if (draft.frame && draft.frame.text !== draft.text) delete draft.frame;
    const empty = !draft.text && draft.temporary === undefined && !Object.keys(draft.settings ?? {}).length;
    this.#tell(empty ? this.drop(conversation) : write(this.#key(conversation), draft));
  }

  /**
   * @param {string | null} conversation
   * @returns {boolean} true: nothing is left that could not be kept
   */
  drop(conversation) {
    this.#written.delete(conversation);
    try {
      localStorage.removeItem(this.#key(conversation));
    } catch {
      // There is none where there is no storage.
    }
    return true;
  }

  /** Take over what was written in this browser while nobody was signed in; whether it was sent is not known any more. */
  #adopt() {
    for (const key of keys(PREFIX + ":")) {
      const draft = { ...read(key), frame: undefined };
      const own = PREFIX + this.#account + key.slice(PREFIX.length);
      localStorage.removeItem(key);
      if (!read(own).text) write(own, draft);
    }
  }

  /** @param {string | null} conversation */
  #key(conversation) {
    return `${PREFIX}${this.#account}:${conversation ?? "new"}`;
  }

  /** @param {boolean} kept */
  #tell(kept) {
    if (kept === this.#kept) return;
    this.#kept = kept;
    this.dispatchEvent(new CustomEvent("kept", { detail: kept }));
  }
}

/** The drafts of whoever this page is for. */
export const drafts = new Drafts(account);

/** @param {string} key */
function read(key) {
  try {
    return /** @type {Draft} */ (JSON.parse(localStorage.getItem(key) ?? "") ?? { text: "" });
  } catch {
    return { text: "" };
  }
}

/**
 * @param {string} key
 * @param {Draft} draft
 * @returns {boolean} whether it is stored; it is not where the storage is full or forbidden
 */
function write(key, draft) {
  try {
    localStorage.setItem(key, JSON.stringify(draft));
    return true;
  } catch {
    return false;
  }
}

/** @param {string} prefix */
function keys(prefix) {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix));
  } catch {
    return [];
  }
}

/** @param {() => void} does */
function whenIdle(does) {
  if ("requestIdleCallback" in globalThis) requestIdleCallback(does, { timeout: PAUSE });
  else does();
}
