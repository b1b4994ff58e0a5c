/**
 * Makes trees of tokens: plain values that say what is to be on the page, to be compared with what is there.
 *
 * @typedef {string | Element} Node
 *
 * @typedef {object} Element
 * @property {string} tag
 * @property {Record<string, string>} attributes as Markdown has them: where a link leads is not looked at here
 * @property {Node[]} children
 * @property {string} text what a block of code or a formula says
 * @property {boolean} complete whether a block of code gets no more text
 */

import { parser } from "./parser.js";

/** @typedef {import("./parser.js").Token} Token */
/** @typedef {(content: string) => readonly Node[]} Inline what stands inside a block */

const TASK = /^\[([ xX])\][ \t\n]+(?=\S)/;

/**
 * Make the tree of a block.
 * @param {Token[]} tokens
 * @param {Inline} inline
 */
export function treeOf(tokens, inline) {
  const root = element("");
  const open = [root];
  tokens.forEach((token, place) => {
    const into = open[open.length - 1];
    if (token.hidden) return;
    if (token.nesting > 0) open.push(append(into, element(token.tag, blockAttributes(token))));
    else if (token.nesting < 0) open.pop();
    else if (token.type === "inline") fill(into, token.content, isTask(tokens, place), inline);
    else if (token.type === "hr") append(into, element("hr"));
    else if (token.tag === "code") append(into, codeOf(token));
    else if (token.tag === "math") append(into, mathOf(token));
  });
  return /** @type {Element} */ (root.children[0]);
}

/**
 * Make the tree of what stands inside a block.
 * @param {Token[]} tokens
 */
export function inlineTreeOf(tokens) {
  const root = element("");
  const open = [root];
  for (const token of tokens) {
    const into = open[open.length - 1];
    if (token.nesting > 0) open.push(append(into, element(token.tag, attributesOf(token))));
    else if (token.nesting < 0) open.pop();
    else if (token.type === "math") append(into, mathOf(token));
    else if (token.type === "image") append(into, imageOf(token, open));
    else if (token.type === "hardbreak") append(into, element("br"));
    else if (token.type === "code_inline") write(append(into, element("code")), token.content);
    else write(into, token.type === "softbreak" ? "\n" : token.content);
  }
  return root.children;
}

/**
 * Return a block with its first parts only: items of a list, rows of a table, blocks in a quote, lines of code.
 * @param {Element} block
 * @param {number} count
 * @returns {Element}
 */
export function firstParts(block, count) {
  return block.tag === "pre" ? block : holding(block, partsOf(block).slice(0, count)); // code has only finished lines
}

/**
 * Return a block without its first parts.
 * @param {Element} block
 * @param {number} count
 * @returns {Element}
 */
export function withoutParts(block, count) {
  if (block.tag === "pre") return { ...block, text: block.text.split("\n").slice(count).join("\n") };
  return holding(block, partsOf(block).slice(count));
}

/**
 * Return a block with the parts of another before its own.
 * @param {Element} block
 * @param {Element} parts
 * @returns {Element}
 */
export function withParts(block, parts) {
  if (block.tag === "pre") return { ...block, text: parts.text + block.text };
  return holding(block, [...partsOf(parts), ...partsOf(block)]);
}

/**
 * Mark the code at the end of a block, if it ends with code, as such that may get more text.
 * @param {Node | undefined} block
 */
export function markOpen(block) {
  if (typeof block !== "object") return;
  if (block.tag === "pre") block.complete = false;
  else markOpen(block.children.at(-1));
}

/** @param {Element} block */
function partsOf({ tag, children }) {
  return tag === "table" ? /** @type {Element} */ (children[1]).children : children;
}

/**
 * @param {Element} block
 * @param {Node[]} parts
 * @returns {Element}
 */
function holding(block, parts) {
  if (block.tag !== "table") return { ...block, children: parts };
  const [head, body] = /** @type {Element[]} */ (block.children);
  return { ...block, children: [head, { ...body, children: parts }] };
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @returns {Element}
 */
function element(tag, attributes = {}) {
  return { tag, attributes, children: [], text: "", complete: true };
}

/**
 * @param {Element} into
 * @param {Element} child
 */
function append(into, child) {
  into.children.push(child);
  return child;
}

/**
 * @param {Element} into
 * @param {string} text
 */
function write(into, text) {
  const last = into.children.length - 1;
  if (typeof into.children[last] === "string") into.children[last] += text;
  else if (text) into.children.push(text);
}

/**
 * @param {Element} into
 * @param {string} content
 * @param {boolean} task whether it may begin with a box to tick
 * @param {Inline} inline
 */
function fill(into, content, task, inline) {
  const box = task && TASK.exec(content);
  if (box) append(into, element("input", { checked: String(box[1] !== " ") }));
  for (const node of inline(box ? content.slice(box[0].length) : content)) into.children.push(node);
}

/**
 * Say whether what stands inside a block is the first of a list item.
 * @param {Token[]} tokens
 * @param {number} place
 */
function isTask(tokens, place) {
  return tokens[place - 1].type === "paragraph_open" && tokens[place - 2]?.type === "list_item_open";
}

/** @param {Token} token */
function codeOf({ info, content }) {
  const language = info && parser.utils.unescapeAll(info).trim().split(/\s/)[0];
  return { ...element("pre", language ? { language } : {}), text: content };
}

/**
 * A formula on lines of its own, of which more may come, is shown as it is written.
 * @param {Token} token
 */
function mathOf({ type, content, meta }) {
  const source = String(meta?.source);
  if (meta?.pending) return { ...element("p"), children: [source] };
  const place = type === "math_block" ? "block" : meta?.display ? "display" : "line";
  return { ...element("math", { source, place }), text: content };
}

/**
 * @param {Token} token
 * @param {Element[]} open
 */
function imageOf(token, open) {
  const alt = textOf(token.children ?? []);
  const linked = open.some(({ tag }) => tag === "a");
  return element("img", { ...attributesOf(token), alt, ...(linked && { linked: "true" }) });
}

/**
 * @param {Token[]} tokens
 * @returns {string} without what marks it up
 */
function textOf(tokens) {
  return tokens
    .map(({ type, content, children }) =>
      type === "softbreak" || type === "hardbreak" ? "\n" : type === "image" ? textOf(children ?? []) : content,
    )
    .join("");
}

/**
 * A cell says how it is aligned by a style, which the policy of the page does not allow.
 * @param {Token} token
 * @returns {Record<string, string>}
 */
function blockAttributes(token) {
  const { style, ...attributes } = attributesOf(token);
  return style ? { align: style.replace("text-align:", "") } : attributes;
}

/**
 * @param {Token} token
 * @returns {Record<string, string>}
 */
function attributesOf({ attrs }) {
  return Object.fromEntries((attrs ?? []).map(([name, value]) => [name, String(value)]));
}
