/**
 * Holds what the page knows: the open conversation with its messages, and the answer that is being written.
 * The store is told by frames and by HTTP and tells its listeners; it sends nothing and knows no DOM.
 *
 * Events: `thread` (which messages there are changed), `asked` (the visitor added to them), `text` (detail: message; it
 * has grown), `answer` (detail: message; its state, place or text changed as a whole).
 */

/**
 * @typedef {{position: number, size: number, eta: number | null}} Place
 * @typedef {import("../connection/api.js").Message & {nextSeq?: number, place?: Place}} Shown
 * @typedef {{conversation: string, message: string, answer: string, generation: string, temporary: boolean}} Accepted
 */

const LIVE = ["queued", "running"];

/**
 * Say whether a message is an answer that waits or is being written.
 * @param {Shown} message
 */
export function isLive(message) {
  return !!message.generation && LIVE.includes(message.generation.state);
}

/**
 * Say whether a message is an answer that has a beginning and no end, so that it can go on.
 * @param {Shown} message
 */
export function isCutOff(message) {
  return message.text !== "" && !!message.generation && message.generation.state !== "stop" && !isLive(message);
}

/** What is known of the open conversation. There is one store on the page. */
export class Store extends EventTarget {
  /** @type {string | null} */
  conversation = null;
  title = "";
  /** How answers are made, or are to be made once a new conversation begins.
   * @type {Record<string, unknown>} */
  settings = {};
  /** Whether the conversation is in the session alone, or is to be; undefined: as the site does it.
   * @type {boolean | undefined} */
  temporary = undefined;
  /** Whether it is known which conversation this is, but not yet what is in it. */
  loading = false;
  /** @type {Shown[]} */
  messages = [];
  /** @type {string | null} where the messages before these begin, if there are any */
  earlier = null;

  /** The answer that is being written. */
  get live() {
    return this.messages.find(isLive) ?? null;
  }

  /**
   * Begin with another conversation, of which nothing is known yet.
   * @param {string | null} id of a conversation that is to be loaded, null: a new one
   */
  open(id) {
    this.conversation = id;
    this.loading = id !== null;
    this.title = "";
    this.settings = {};
    this.temporary = undefined;
    this.messages = [];
    this.earlier = null;
    this.#tell("thread");
  }

  /**
   * Set what a new conversation is to be.
   * @param {Record<string, unknown>} settings
   * @param {boolean | undefined} temporary
   */
  plan(settings, temporary) {
    this.settings = settings;
    this.temporary = temporary;
  }

  /**
   * Take over the end of a conversation as the server has it. What is shown of a running answer stays, with the number
   * of the next delta, so that nothing is sent or drawn twice; so do earlier messages that lead to these, and an answer
   * that has ended since.
   * @param {import("../connection/api.js").Branch} branch
   */
  load({ conversation, messages, earlier = null, settings = {} }) {
    const before = new Map(this.messages.map((message) => [message.generation?.id, message]));
    /** @type {Shown[]} */
    const ended = [];
    const taken = messages.map((message) => {
      const shown = message.generation && before.get(message.generation.id);
      if (!shown) return message;
      if (isLive(message)) return Object.assign(shown, { siblings: message.siblings });
      if (isLive(shown)) ended.push(shown);
      return Object.assign(shown, message);
    });
    const joint = this.messages.findIndex(({ id }) => id === messages[0]?.id);
    const kept = conversation.id === this.conversation && joint > 0 && earlier !== null;
    this.conversation = conversation.id;
    this.title = conversation.title;
    this.temporary = conversation.temporary ?? false;
    this.settings = settings;
    this.loading = false;
    if (!kept) this.earlier = earlier;
    this.messages = kept ? [...this.messages.slice(0, joint), ...taken] : taken;
    this.#tell("thread");
    for (const message of ended) this.#tell("answer", message);
  }

  /**
   * Add earlier messages.
   * @param {import("../connection/api.js").Message[]} messages what comes before all that is known
   * @param {string | null} earlier
   */
  prepend(messages, earlier) {
    this.messages.unshift(...messages);
    this.earlier = earlier;
    this.#tell("thread");
  }

  /**
   * Add a message that the server has accepted, with an empty answer: after all others, or in the place of `instead`
   * and what follows that.
   * @param {Accepted} accepted
   * @param {string} text
   * @param {string | null} [instead]
   */
  accept(accepted, text, instead = null) {
    if (this.#has(accepted.answer)) return;
    const last = this.messages.at(-1);
    const replaced = this.#cut(instead ?? (last?.role === "user" ? last.id : null)); // one that lost its answer
    const parent = this.messages.at(-1)?.id ?? null;
    /** @type {Shown} */
    const question = { id: accepted.message, parent, role: "user", text, generation: null };
    question.siblings = [...(replaced?.siblings ?? []), question.id];
    this.conversation = accepted.conversation;
    this.temporary = accepted.temporary;
    this.title ||= [...text.trim().split("\n")[0]].slice(0, 60).join("");
    this.messages.push(question);
    this.#answer(accepted, [accepted.answer]);
  }

  /**
   * Put a further answer in the place of the one it was asked for, and of what follows that.
   * @param {Accepted} accepted
   * @param {string} instead
   */
  redo(accepted, instead) {
    if (this.#has(accepted.answer)) return;
    const replaced = this.#cut(instead);
    this.#answer(accepted, [...(replaced?.siblings ?? []), accepted.answer]);
  }

  /**
   * Mark an answer as going on; a snapshot with its text follows.
   * @param {Accepted} accepted
   */
  goOn(accepted) {
    const message = this.messages.find(({ id }) => id === accepted.answer);
    if (!message || message.generation?.id === accepted.generation) return;
    message.generation = begun(accepted.generation);
    delete message.nextSeq;
    delete message.place;
    this.#tell("answer", message);
  }

  /**
   * @param {Shown} message
   * @param {import("../connection/api.js").Feedback | null} feedback
   */
  rate(message, feedback) {
    message.feedback = feedback;
    this.#tell("answer", message);
  }

  /**
   * Apply a frame about a generation. Return false if a delta is missing, so that a snapshot is needed. What comes late
   * about one that has ended, since it was fetched whole meanwhile, changes nothing.
   * @param {any} frame
   */
  apply(frame) {
    const message = this.messages.find(({ generation }) => generation?.id === frame.generation);
    if (!message?.generation || (!isLive(message) && frame.type !== "generation.finished")) return true;
    switch (frame.type) {
      case "generation.queued":
        message.place = frame;
        this.#change(message, "queued");
        break;
      case "generation.started":
        this.#change(message, "running");
        break;
      case "generation.snapshot":
        message.text = frame.text;
        message.nextSeq = frame.next_seq;
        this.#change(message, LIVE.includes(frame.state) ? frame.state : "running");
        break;
      case "generation.delta":
        return this.#append(message, frame);
      case "generation.finished":
        Object.assign(message.generation, { code: null, message: null }, frame, { id: frame.generation });
        this.#change(message, frame.reason);
        break;
    }
    return true;
  }

  /**
   * @param {Shown} message
   * @param {{seq: number, text: string}} frame
   */
  #append(message, frame) {
    const next = message.nextSeq ?? -1;
    if (frame.seq > next) return false;
    if (frame.seq < next) return true;
    message.nextSeq = next + 1;
    message.text += frame.text;
    if (message.generation?.state === "queued") this.#change(message, "running");
    else this.#tell("text", message);
    return true;
  }

  /** @param {string} id */
  #has(id) {
    return this.messages.some((message) => message.id === id);
  }

  /**
   * Leave a message and what follows it out. Return that message.
   * @param {string | null} id
   */
  #cut(id) {
    const at = this.messages.findIndex((message) => message.id === id);
    return at < 0 ? undefined : this.messages.splice(at)[0];
  }

  /**
   * @param {Accepted} accepted
   * @param {string[]} siblings
   */
  #answer({ message, answer, generation }, siblings) {
    const role = /** @type {const} */ ("assistant");
    this.messages.push({
      id: answer,
      parent: message,
      role,
      text: "",
      generation: begun(generation),
      siblings,
      nextSeq: 0,
    });
    this.#tell("asked");
  }

  /**
   * @param {Shown} message
   * @param {string} state
   */
  #change(message, state) {
    if (message.generation) message.generation.state = state;
    this.#tell("answer", message);
  }

  /**
   * @param {string} type
   * @param {unknown} [detail]
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @param {string} id */
function begun(id) {
  return { id, state: "queued", code: null, message: null, usage: {}, timings: {} };
}
