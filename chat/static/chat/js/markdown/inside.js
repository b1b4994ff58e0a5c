/** Parses what stands inside blocks, and remembers it as long as the same is asked for again. */

import { parseInline } from "./parser.js";
import { inlineTreeOf } from "./tree.js";

/** @typedef {import("./tree.js").Node} Tree */
/** @typedef {{tree: Tree[], missing: string[]}} Parsed with the names of the definitions that it asked for in vain */

const LONG = 4000; // characters
const GROWTH = 1 / 64; // of what is parsed of a long one, before it is parsed again

/** What stands inside the blocks of one text. */
export class Inside {
  #definitions;
  #count = 0; // of definitions when it was parsed
  /** @type {Map<string, Parsed>} */
  #before = new Map();
  /** @type {Map<string, Parsed>} */
  #now = new Map();
  #long = ""; // one that is being written, as far as it is parsed

  /** @param {import("./definitions.js").Definitions} definitions */
  constructor(definitions) {
    this.#definitions = definitions;
  }

  /** Begin another drawing: what is not asked for in it is forgotten after it. */
  turn() {
    this.#before = this.#now;
    this.#now = new Map();
  }

  /**
   * Return what parses the inside of the block at a place. While it is written, a long one is not parsed again with
   * every piece, which would take longer with each: what came last is shown as it was written.
   * @param {number} place
   * @param {boolean} written
   */
  at(place, written = false) {
    return (/** @type {string} */ content) => {
      if (written && content.length > LONG) return this.#written(content);
      const { tree, missing } = this.#parsed(content);
      for (const name of missing) this.#definitions.miss(name, place);
      return tree;
    };
  }

  /** @param {string} content */
  #written(content) {
    const more = content.length - this.#long.length;
    if (more > this.#long.length * GROWTH || !content.startsWith(this.#long)) this.#long = content;
    const { tree } = this.#parsed(this.#long);
    if (content === this.#long) return tree;
    const last = tree.at(-1);
    const rest = content.slice(this.#long.length);
    return typeof last === "string" ? [...tree.slice(0, -1), last + rest] : [...tree, rest];
  }

  /**
   * @param {string} content
   * @returns {Parsed}
   */
  #parsed(content) {
    if (this.#count !== this.#definitions.count) this.#forget();
    const known = this.#now.get(content) ?? this.#before.get(content) ?? this.#parse(content);
    this.#now.set(content, known);
    return known;
  }

  /** @param {string} content */
  #parse(content) {
    /** @type {string[]} */
    const missing = [];
    const tokens = parseInline(
      content,
      this.#definitions.lookup((name) => missing.push(name)),
    );
    return { tree: inlineTreeOf(tokens), missing };
  }

  #forget() {
    this.#count = this.#definitions.count;
    this.#before.clear();
    this.#now.clear();
  }
}
