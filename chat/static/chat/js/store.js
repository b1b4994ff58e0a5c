/**
 * What the page knows: the open conversation with its messages, and the answer that is being written.
 * It is told by frames and by HTTP and tells its listeners; it sends nothing and knows no DOM.
 *
 * Events: `thread` (everything changed), `added` (detail: messages), `text` (detail: {message, text}),
 * `answer` (detail: message; its state, place or text changed as a whole).
 */

/**
 * @typedef {import("./api.js").Message & {nextSeq?: number, place?: {position: number, size: number, eta: number | null}}} Shown
 */

const LIVE = ["queued", "running"];

/** @param {Shown} message */
export function isLive(message) {
  return message.generation !== null && LIVE.includes(message.generation.state);
}

/** @param {Shown} message */
export function isCutOff(message) {
  return message.text !== "" && message.generation !== null && message.generation.state !== "stop" && !isLive(message);
}

export class Store extends EventTarget {
  /** @type {string | null} */
  conversation = null;
  title = "";
  /** @type {Shown[]} */
  messages = [];

  /** The answer that is being written. */
  get live() {
    return this.messages.find(isLive) ?? null;
  }

  /** Show an empty, new conversation. */
  clear() {
    this.conversation = null;
    this.title = "";
    this.messages = [];
    this.#tell("thread");
  }

  /**
   * Take over a conversation as the server has it. What is shown of a running answer stays, with the number of the
   * next delta, so that nothing is sent or drawn twice.
   * @param {import("./api.js").Conversation} conversation
   * @param {import("./api.js").Message[]} messages
   */
  load(conversation, messages) {
    const before = new Map(this.messages.map((message) => [message.generation?.id, message]));
    this.conversation = conversation.id;
    this.title = conversation.title;
    this.messages = messages.map((message) => {
      const shown = message.generation && before.get(message.generation.id);
      return shown && isLive(message) && isLive(shown) ? shown : message;
    });
    this.#tell("thread");
  }

  /**
   * @param {{conversation: string, message: string, answer: string, generation: string}} accepted
   * @param {string} text
   */
  accept(accepted, text) {
    if (this.messages.some(({ id }) => id === accepted.answer)) return;
    const generation = { id: accepted.generation, state: "queued", code: null, message: null, usage: {}, timings: {} };
    const parent = this.messages.at(-1)?.id ?? null;
    /** @type {Shown[]} */
    const added = [
      { id: accepted.message, parent, role: "user", text, generation: null },
      { id: accepted.answer, parent: accepted.message, role: "assistant", text: "", generation, nextSeq: 0 },
    ];
    this.conversation = accepted.conversation;
    this.title ||= text.trim().split("\n")[0].slice(0, 60);
    this.messages.push(...added);
    this.#tell("added", added);
  }

  /**
   * An answer goes on; a snapshot with its text follows.
   * @param {{answer: string, generation: string}} accepted
   */
  goOn(accepted) {
    const message = this.messages.find(({ id }) => id === accepted.answer);
    if (!message || message.generation?.id === accepted.generation) return;
    message.generation = { id: accepted.generation, state: "queued", code: null, message: null, usage: {}, timings: {} };
    delete message.nextSeq;
    delete message.place;
    this.#tell("answer", message);
  }

  /**
   * Apply a frame about a generation. False if a delta is missing, so that a snapshot is needed.
   * @param {any} frame
   */
  apply(frame) {
    const message = this.messages.find(({ generation }) => generation?.id === frame.generation);
    if (!message?.generation) return true;
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
        Object.assign(message.generation, { code: null, message: null, ...frame, id: frame.generation });
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
    else this.#tell("text", { message, text: frame.text });
    return true;
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
