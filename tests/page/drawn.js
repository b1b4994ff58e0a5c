/** Draws Markdown into the document of tests, in pieces or whole. */

import "./vendor.js";
import { document, outline } from "./dom.js";

Object.assign(globalThis, { document });

const { Markdown } = await import("../../chat/static/chat/js/markdown/markdown.js");
const { blocksOf } = await import("../../chat/static/chat/js/markdown/blocks.js");
const { draw } = await import("../../chat/static/chat/js/markdown/draw.js");
const parsing = await import("../../chat/static/chat/js/markdown/parser.js");
const { inlineTreeOf, treeOf } = await import("../../chat/static/chat/js/markdown/tree.js");

export const { draft, parser } = parsing;

/** @typedef {import("../../chat/static/chat/js/markdown/tree.js").Element} Tree */

/** An answer that is being drawn. */
export class Answer {
  element = /** @type {any} */ (document.createElement("div"));
  #markdown = new Markdown(this.element);

  /** @param {string} text */
  append(text) {
    this.#markdown.append(text);
    return this;
  }

  end() {
    this.#markdown.end();
    return this;
  }

  get outline() {
    return outline(this.element);
  }

  /** All its text, the names of languages too. @returns {string} */
  get text() {
    return this.element.textContent;
  }

  /** The names of its blocks. @returns {string[]} */
  get tags() {
    return this.element.children.map((/** @type {any} */ { nodeName }) => nodeName);
  }
}

/**
 * Return what is drawn of a text that comes in pieces.
 * @param {string[]} pieces
 */
export function streamed(pieces) {
  const answer = new Answer();
  for (const piece of pieces) answer.append(piece);
  return answer.end().outline;
}

/**
 * Return the trees of a text that is parsed whole, at once.
 * @param {string} text
 * @returns {Tree[]}
 */
export function trees(text) {
  const env = { references: Object.create(null) };
  const blocks = blocksOf(parsing.parseBlocks(parser, text.replace(/\r\n?/g, "\n").replaceAll("\0", "\ufffd"), env));
  const inline = (/** @type {string} */ content) => inlineTreeOf(parsing.parseInline(content, env));
  return blocks.filter(({ type }) => type !== "reference_definition").map(({ tokens }) => treeOf(tokens, inline));
}

/**
 * Return what is to be drawn of a text.
 * @param {string} text
 */
export function whole(text) {
  const element = /** @type {any} */ (document.createElement("div"));
  for (const tree of trees(text)) element.append(draw(tree));
  return outline(element);
}
