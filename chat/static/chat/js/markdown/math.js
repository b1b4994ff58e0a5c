/**
 * Finds formulas: `$ $` and `\( \)` in a line, `$$ $$` and `\[ \]` on lines of their own or in a line. A single dollar is
 * one of a formula by pandoc's rule, by which prices stay text: no blank behind the first, none before the second, and no
 * digit behind it. Formulas come before all else that Markdown makes of their characters.
 */

/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").MarkdownIt} Parser */
/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").StateBlock} StateBlock */
/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").StateInline} StateInline */

/** @type {[open: string, close: string, display: boolean][]} */
const INLINE = [
  ["$$", "$$", true],
  ["$", "$", false],
  ["\\(", "\\)", false],
  ["\\[", "\\]", true],
];

/** @type {Record<string, string>} */
const BLOCK = { $$: "$$", "\\[": "\\]" };

/**
 * Give a parser formulas.
 * @param {Parser} markdown
 */
export function math(markdown) {
  markdown.inline.ruler.before("escape", "math", parseInline);
  const alt = ["paragraph", "reference", "blockquote", "list"];
  markdown.block.ruler.before("fence", "math", parseBlock, { alt });
}

/**
 * @param {StateInline} state
 * @param {boolean} silent
 */
function parseInline(state, silent) {
  const { src, pos, posMax } = state;
  const [open, close, display] = INLINE.find(([open]) => src.startsWith(open, pos)) ?? [];
  if (!open || !close) return false;
  const start = pos + open.length;
  const end = src.lastIndexOf(close) < start ? -1 : endOf(src.slice(0, posMax), close, start);
  const tex = src.slice(start, end);
  if (end < 0 || tex.includes("`") || !isFormula(tex, open, src[end + 1])) return open === "$$" && skip(state, silent);
  if (!silent) {
    const token = state.push("math", "math", 0);
    Object.assign(token, { content: tex.trim(), markup: open, meta: { display, source: open + tex + close } });
  }
  state.pos = end + close.length;
  return true;
}

/**
 * Take two dollars for text, or the second would be looked at alone.
 * @param {StateInline} state
 * @param {boolean} silent
 */
function skip(state, silent) {
  if (!silent) state.pending += "$$";
  state.pos += 2;
  return true;
}

/**
 * Say whether a text between delimiters is a formula.
 * @param {string} tex
 * @param {string} open
 * @param {string | undefined} next the character behind it
 */
function isFormula(tex, open, next = "") {
  if (open === "$") return /^\S(?:.*\S)?$/s.test(tex) && !/\d/.test(next);
  return /[\p{L}\p{N}]/u.test(tex); // `\[` and `\(` are also brackets that are none of Markdown's
}

/**
 * Formulas that begin a line and end one. Which lines they have is known with the last of them: as long as that may be
 * still to come (`env.open`), all lines are taken to be of the formula; a blank one, or the end, makes text of them.
 * @param {StateBlock} state
 * @param {number} startLine
 * @param {number} endLine
 * @param {boolean} silent
 */
function parseBlock(state, startLine, endLine, silent) {
  if (state.sCount[startLine] - state.blkIndent >= 4) return false;
  const first = lineOf(state, startLine);
  const open = first.slice(0, 2);
  const close = BLOCK[open];
  if (!close || first.startsWith("$$$")) return false;
  const found = endOf(first, close, 2);
  if (found >= 0 && (!isLast(first, found) || !isFormula(first.slice(2, found), open))) return false;
  if (silent) return found >= 0 || isLast(first, 0); // what goes on behind it can be part of a paragraph
  const end = found >= 0 ? startLine : lastLine(state, startLine, endLine, close);
  const pending = end === endLine && state.env.open && endLine === state.bMarks.length - 1;
  if (end < 0 || (end === endLine && !pending)) return false;
  const source = state.getLines(startLine, Math.min(end + 1, endLine), state.blkIndent, false).trim();
  const tex = source.slice(2, -2).trim();
  if (!pending && !isFormula(tex, open)) return false;
  state.line = Math.min(end + 1, endLine);
  const token = state.push("math_block", "math", 0);
  Object.assign(token, { content: tex, markup: open, map: [startLine, state.line], meta: { pending, source } });
  return true;
}

/**
 * Return the line that a formula ends on: the one behind all if there is none, -1 if there can be none.
 * @param {StateBlock} state
 * @param {number} startLine
 * @param {number} endLine
 * @param {string} close
 */
function lastLine(state, startLine, endLine, close) {
  for (let line = startLine + 1; line < endLine; line++) {
    if (state.isEmpty(line) || state.sCount[line] < state.blkIndent) return -1;
    const text = lineOf(state, line);
    const end = endOf(text, close, 0);
    if (end >= 0) return isLast(text, end) ? line : -1;
  }
  return endLine;
}

/**
 * @param {StateBlock} state
 * @param {number} line
 */
function lineOf({ src, bMarks, tShift, eMarks }, line) {
  return src.slice(bMarks[line] + tShift[line], eMarks[line]);
}

/**
 * Return where the delimiter of two characters at the end of a formula stands: is it the last thing of its line?
 * @param {string} line
 * @param {number} end
 */
function isLast(line, end) {
  return /^[ \t]*$/.test(line.slice(end + 2));
}

/**
 * Return where a formula ends that began before a place, or -1. A backslash takes the character behind it along.
 * @param {string} text
 * @param {string} close
 * @param {number} place
 */
function endOf(text, close, place) {
  for (; place < text.length; place++) {
    if (text.startsWith(close, place)) return place;
    if (text[place] === "\\") place++;
  }
  return -1;
}
