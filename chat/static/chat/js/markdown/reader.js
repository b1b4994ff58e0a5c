/**
 * Reads Markdown that comes in pieces. Of the text only what is open is kept and parsed again with what has come: the
 * last block, and in it the last item, row or line. It makes trees and knows nothing of the page.
 */

import { blocksOf, openFrom } from "./blocks.js";
import { cutOf, isLoose, setLoose } from "./cut.js";
import { Definitions } from "./definitions.js";
import { Inside } from "./inside.js";
import { draft, parseBlocks, parser } from "./parser.js";
import { firstParts, markOpen, treeOf, withoutParts, withParts } from "./tree.js";

/** @typedef {import("./blocks.js").Block} Block */
/** @typedef {import("./cut.js").Cut} Cut */
/** @typedef {import("./parser.js").Env} Env */
/** @typedef {import("./tree.js").Element} Element */

/**
 * @typedef {object} Reading
 * @property {Element[]} blocks what is to be shown from the first block on that was open before
 * @property {Element[]} open the last of them, without the parts of the first that are finished
 * @property {boolean} loosened whether the list that was open turned out to be loose
 */

/**
 * What stands for what was cut off the open block: its text, how many parts of the block that makes, and what it does
 * not say of the block.
 * @typedef {{text: string, parts: number, attributes: Record<string, string>, loose: boolean}} Head
 */

/** @typedef {{finished: Element[], parts: Element | null, loosened: boolean}} Settled */

/** @type {Settled} */
const SAME = { finished: [], parts: null, loosened: false };

/** @type {Head} */
const NONE = { text: "", parts: 0, attributes: {}, loose: false };

/** A beginning of a line of which nobody knows yet what it begins: a heading, an item, bold text. */
const MARKS = /(?<![^\n])[ \t]*[-=+*_#`~|>:$[\\]*[ \t]*$/;

/** A text, from its first piece to its last. */
export class Reader {
  #source = "";
  #rest = ""; // of the source, from where it is open
  #half = ""; // of a line end, where a piece ended between its two characters
  #head = NONE;
  #finished = 0; // blocks before the rest
  #definitions = new Definitions();
  #inside = new Inside(this.#definitions);

  /**
   * Read a further piece.
   * @param {string} piece
   * @returns {Reading}
   */
  read(piece) {
    const text = this.#half + piece;
    this.#half = text.endsWith("\r") ? "\r" : "";
    const added = this.#add(text.slice(0, text.length - this.#half.length));
    this.#inside.turn();
    const lines = this.#rest.slice(0, this.#rest.lastIndexOf("\n") + 1);
    const { finished, parts, loosened } = added.includes("\n") ? this.#settle(lines, false) : SAME;
    const open = this.#draft();
    const shown = parts ? [withParts(open[0], parts), ...open.slice(1)] : open;
    return { blocks: [...finished, ...shown], open, loosened };
  }

  /**
   * Take all that is there for finished.
   * @returns {Reading}
   */
  end() {
    this.#add(this.#half);
    this.#inside.turn();
    const { finished, loosened } = this.#settle(this.#rest, true);
    return { blocks: finished, open: [], loosened };
  }

  /**
   * Return the blocks that lack a link because its definition came after them, by their places.
   * @returns {[number, Element][]}
   */
  late() {
    const { late } = this.#definitions;
    if (!late.size) return [];
    const trees = this.#trees(blocksOf(parseBlocks(parser, this.#source, this.#definitions.sheet(false))), 0);
    return [...late].map((place) => [place, trees[place]]);
  }

  /** @param {string} text */
  #add(text) {
    const added = text.replace(/\r\n?/g, "\n").replaceAll("\0", "\ufffd");
    this.#source += added;
    this.#rest += added;
    return added;
  }

  /**
   * Take what is finished off the rest.
   * @param {string} lines complete ones, or all if the text has ended
   * @param {boolean} ended
   * @returns {Settled}
   */
  #settle(lines, ended) {
    const text = this.#head.text + lines;
    const sheet = this.#definitions.sheet(!ended);
    const blocks = this.#blocks(parser, text, sheet);
    const loosened = this.#loosen(blocks[0]);
    const split = text.replace(/\n$/, "").split("\n");
    const from = ended ? blocks.length : openFrom(blocks, split);
    const cut = from === blocks.length - 1 ? this.#cut(blocks, split) : null;
    const line = cut?.line ?? blocks[from]?.start ?? split.length;
    this.#definitions.take(blocks, line, sheet, this.#finished + (this.#head.text ? 1 : 0));
    const finished = this.#trees(cut ? blocks : blocks.slice(0, from), this.#finished, this.#head);
    const container = cut && /** @type {Element} */ (finished.pop());
    const parts = cut && container && firstParts(container, cut.parts - (from ? 0 : this.#head.parts));
    this.#finished += finished.length;
    this.#advance(text, split, line, cut && headOf(cut, blocks[from], container?.attributes ?? {}));
    return { finished, parts, loosened };
  }

  /**
   * Let the rest begin at a line of what was parsed.
   * @param {string} text the head's, and lines of the rest
   * @param {string[]} lines the same
   * @param {number} line
   * @param {Head | null} head what stands for what is cut off there
   */
  #advance(text, lines, line, head) {
    if (!line) return;
    const end = lines.slice(0, line).reduce((length, { length: more }) => length + more + 1, 0);
    this.#rest = text.slice(end) + this.#rest.slice(text.length - this.#head.text.length);
    this.#head = head ?? NONE;
  }

  /** Return the blocks of what is left, as far as they can be told. */
  #draft() {
    const text = this.#head.text + this.#rest.replace(MARKS, "");
    const trees = this.#trees(this.#blocks(draft, text, { open: true }), this.#finished, this.#head, true);
    markOpen(trees.at(-1));
    return trees;
  }

  /**
   * Return the blocks of a text that begins with the head.
   * @param {import("./parser.js").Parser} markdown
   * @param {string} text
   * @param {import("./parser.js").Env} env
   */
  #blocks(markdown, text, env) {
    const blocks = blocksOf(parseBlocks(markdown, text, env));
    if (this.#head.loose) setLoose(blocks[0]);
    return blocks;
  }

  /**
   * @param {Block[]} blocks the last of them is open
   * @param {string[]} lines
   */
  #cut(blocks, lines) {
    const cut = cutOf(blocks[blocks.length - 1], lines);
    return cut && cut.parts > (blocks.length > 1 ? 0 : this.#head.parts) ? cut : null;
  }

  /**
   * Note of the open list if it turns out to be loose, and say so: what was cut off it was drawn tight.
   * @param {Block | undefined} list
   */
  #loosen(list) {
    const turns = this.#head.parts > 0 && !this.#head.loose && list !== undefined && isLoose(list) === true;
    if (turns) this.#head = { ...this.#head, loose: true };
    return turns;
  }

  /**
   * Return the trees of blocks, of which the first may go on where the head was cut off.
   * @param {Block[]} blocks
   * @param {number} place of the first
   * @param {Head} head
   * @param {boolean} written whether they are being written
   */
  #trees(blocks, place, head = NONE, written = false) {
    const drawn = blocks.filter(({ type }) => type !== "reference_definition");
    const trees = drawn.map(({ tokens }, more) => treeOf(tokens, this.#inside.at(place + more, written)));
    if (!head.text || !trees.length) return trees;
    const [first, ...others] = trees;
    return [withoutParts({ ...first, attributes: head.attributes }, head.parts), ...others];
  }
}

/**
 * @param {Cut} cut
 * @param {Block} block
 * @param {Record<string, string>} attributes
 * @returns {Head}
 */
function headOf({ head, behind }, block, attributes) {
  return { text: head.join("\n") + "\n", parts: behind, attributes, loose: isLoose(block) === true };
}
