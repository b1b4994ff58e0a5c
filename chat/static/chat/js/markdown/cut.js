/**
 * Cuts what is finished off the text of a block that is still open: all items of a list but the last, all rows of a
 * table, all lines of code, all blocks in a quote. So what is parsed again stays short however long the block gets.
 *
 * The rest is parsed behind a few lines that stand for what was cut off, so that it is read as what it is.
 */

import { blocksOf, openFrom, QUOTED_BLANK } from "./blocks.js";

/** @typedef {import("./blocks.js").Block} Block */

/**
 * @typedef {object} Cut
 * @property {number} line where the text goes on
 * @property {string[]} head the lines to put before it
 * @property {number} parts how many items, rows, blocks or lines come before that line, those in the head included
 * @property {number} behind how many of them the head makes
 */

/** @type {Record<string, (block: Block, lines: string[]) => Cut | null>} */
const CUTS = {
  bullet_list_open: cutList,
  ordered_list_open: cutList,
  blockquote_open: cutQuote,
  table_open: cutTable,
  fence: cutCode,
};

/**
 * Return where an open block can be cut, if it can.
 * @param {Block} block
 * @param {string[]} lines complete ones, from the beginning of what was parsed
 */
export function cutOf(block, lines) {
  return CUTS[block.type]?.(block, lines) ?? null;
}

/**
 * Say whether blank lines stand between the items of a list or the blocks in them, or null if nothing in it shows.
 * @param {Block} list
 */
export function isLoose({ tokens }) {
  const paragraph = tokens.find(({ type, level }) => type === "paragraph_open" && level === 2);
  return paragraph ? !paragraph.hidden : null;
}

/**
 * Have a list be loose.
 * @param {Block} list
 */
export function setLoose({ tokens }) {
  for (const token of tokens) if (token.level === 2 && token.hidden) token.hidden = false;
}

/**
 * Keep the last item. In the place of the others comes one of the same kind: alone, the last could be another block,
 * as the first line of a table.
 * @param {Block} list
 * @param {string[]} lines
 */
function cutList(list, lines) {
  const items = blocksOf(list.tokens.slice(1, -1), 1);
  const line = items[items.length - 1].start;
  if (isLoose(list) === null) return null;
  const indent = lines[line].slice(0, lines[line].search(/[^ ]/));
  const marker = list.type === "bullet_list_open" ? list.markup : `1${list.markup}`;
  return { line, head: [`${indent}${marker} x`], parts: items.length - 1, behind: 1 };
}

/**
 * Keep the blocks in it that are open.
 * @param {Block} quote
 * @param {string[]} lines
 */
function cutQuote(quote, lines) {
  const blocks = blocksOf(quote.tokens.slice(1, -1), 1);
  const open = Math.min(openFrom(blocks, lines, QUOTED_BLANK), blocks.length - 1);
  if (open < 1) return null;
  const drawn = blocks.slice(0, open).filter(({ type }) => type !== "reference_definition");
  return { line: blocks[open].start, head: [">"], parts: drawn.length, behind: 0 };
}

/**
 * Keep the last row, and rows whose number of cells is another than the head's: of the cells they lack only so many are
 * made up for in a table.
 * @param {Block} table
 * @param {string[]} lines
 */
function cutTable(table, lines) {
  const columns = table.tokens.filter(({ type }) => type === "th_open").length;
  const rows = lines.slice(table.start + 2, table.end - 1);
  const uneven = rows.findIndex((row) => cellsOf(row) !== columns);
  const parts = uneven < 0 ? rows.length : uneven;
  const head = lines.slice(table.start, table.start + 2);
  return { line: table.start + 2 + parts, head, parts, behind: 0 };
}

/**
 * Return how many cells a row has.
 * @param {string} row
 */
function cellsOf(row) {
  const cells = row.trim().split(/(?<!\\)\|/);
  if (cells[0] === "") cells.shift();
  if (cells.at(-1) === "") cells.pop();
  return cells.length;
}

/**
 * Keep the fence alone, if it is not closed: each line of code is finished. An empty line comes in their place: behind
 * the fence alone the next could make a table of it.
 * @param {Block} fence
 * @param {string[]} lines
 */
function cutCode(fence, lines) {
  const parts = fence.tokens[0].content.split("\n").length - 1;
  if (parts < fence.end - fence.start - 1) return null;
  return { line: fence.end, head: [lines[fence.start], ""], parts, behind: 1 };
}
