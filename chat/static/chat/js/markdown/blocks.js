/**
 * Tells blocks of which no later text can change anything from those that are still open. Only complete lines count:
 * what has no line end yet can become anything.
 */

/** @typedef {import("./parser.js").Token} Token */

/**
 * A block, or a part of one.
 * @typedef {object} Block
 * @property {string} type of its first token
 * @property {string} markup of its first token
 * @property {number} start its first line
 * @property {number} end the line after its last one
 * @property {Token[]} tokens
 */

/** What a blank line does not end. */
const LASTING = new Set(["bullet_list_open", "ordered_list_open", "code_block", "fence"]);
/** What the next line cannot belong to, even if it says nothing of its own. */
const CLOSED = new Set(["fence", "code_block", "hr", "atx_heading", "math_block"]);
/** What a paragraph below it is the rest of, unless it ends with a definition or with what is closed. */
const CONTAINERS = new Set(["bullet_list_open", "ordered_list_open", "blockquote_open"]);
/** A line with nothing in it, which JavaScript's `\s` is too generous to say. */
const BLANK = /^[ \t]*$/;
/** The same in a quote. */
export const QUOTED_BLANK = /^[ \t>]*$/;
/** What may turn out to be the rest of a definition above it, whose title goes over several lines. */
const SOFT = new Set(["paragraph_open", "setext_heading", "reference_definition"]);

/**
 * Divide tokens into the blocks of a level.
 * @param {Token[]} tokens
 * @param {number} level
 */
export function blocksOf(tokens, level = 0) {
  /** @type {Block[]} */
  const blocks = [];
  for (const token of tokens) {
    if (token.level === level && token.nesting >= 0) {
      const [start, end] = token.map ?? [0, 0];
      blocks.push({ type: typeOf(token), markup: token.markup, start, end, tokens: [] });
    }
    blocks.at(-1)?.tokens.push(token);
  }
  return blocks;
}

/**
 * Return the place of the first block that later text can change; all before it are finished.
 *
 * A block is finished when another begins below it on a complete line, or when a blank line ends it. Only the lines of
 * a definition of a link are not told from those of a paragraph before the last of them is there, so what stands close
 * together with a definition is finished together.
 * @param {Block[]} blocks
 * @param {string[]} lines complete ones
 * @param {RegExp} blank
 */
export function openFrom(blocks, lines, blank = BLANK) {
  const last = blocks.at(-1);
  if (!last) return 0;
  if (blank.test(lines[lines.length - 1]) && !LASTING.has(last.type)) return blocks.length;
  const isClose = (/** @type {number} */ place) => place > 0 && !blank.test(lines[blocks[place].start - 1]);
  const isSoft = (/** @type {number} */ place) => isClose(place) && SOFT.has(blocks[place].type);
  let open = blocks.length - 1;
  while (isSoft(open) && !CLOSED.has(blocks[open - 1].type)) open--;
  if (blocks.slice(open).every(({ type }) => type === "reference_definition")) open = blocks.length - 1;
  for (let place = blocks.length - 1; isClose(place); place--)
    if (isSoft(place) && CONTAINERS.has(blocks[place - 1].type)) open = Math.min(open, place - 1);
  return open;
}

/** @param {Token} token */
function typeOf({ type, markup }) {
  if (type !== "heading_open") return type;
  return markup.startsWith("#") ? "atx_heading" : "setext_heading";
}
