/**
 * Draws trees: it makes elements and text node by node, never from HTML, and changes of what is on the page only what
 * differs. Nothing is fetched from anywhere; an image becomes a link to it.
 */

import { codeBlock, colour, nameLanguage } from "./code.js";
import { drawFormula } from "./formula.js";
import { lead } from "./links.js";

/** @typedef {import("./tree.js").Node} Tree */
/** @typedef {import("./tree.js").Element} Element */

/**
 * Change the last children of an element.
 * @param {HTMLElement} parent
 * @param {readonly Tree[]} before what its last children show
 * @param {readonly Tree[]} after what is to be there instead
 */
export function redraw(parent, before, after) {
  const same = before.findIndex((tree, place) => tree !== after[place]);
  if (same < 0 && before.length === after.length) return;
  let place = same < 0 ? before.length : same;
  let child = lastOf(parent, before.length - place);
  for (; place < after.length; place++) {
    if (!child) parent.append(draw(after[place]));
    else child = /** @type {ChildNode} */ (change(child, before[place], after[place]).nextSibling);
  }
  while (child) {
    const next = /** @type {ChildNode | null} */ (child.nextSibling);
    child.remove();
    child = next;
  }
}

/**
 * Make what shows a tree.
 * @param {Tree} tree
 * @returns {ChildNode}
 */
export function draw(tree) {
  if (typeof tree === "string") return document.createTextNode(tree);
  if (tree.tag === "pre") return drawCode(tree);
  const drawn = ELEMENTS[tree.tag]?.(tree) ?? document.createElement(tree.tag);
  const inner = innerOf(drawn, tree);
  for (const child of tree.children) inner.append(draw(child));
  return drawn;
}

/**
 * Have the paragraphs of a tight list's item stand apart.
 * @param {HTMLElement} item
 */
export function loosen(item) {
  /** @type {HTMLElement | null} */
  let paragraph = null;
  for (const child of [...item.childNodes]) {
    if (BLOCKS.has(child.nodeName)) paragraph = null;
    else {
      if (!paragraph) child.before((paragraph = document.createElement("p")));
      paragraph.append(child);
    }
  }
}

/** What is a block where it stands in a list item; all else is in a line. */
const BLOCKS = new Set(["P", "UL", "OL", "BLOCKQUOTE", "DIV", "HR", "H1", "H2", "H3", "H4", "H5", "H6"]);

/** @type {Record<string, (element: Element) => HTMLElement>} */
const ELEMENTS = {
  a: ({ attributes }) => linkTo(attributes.href, attributes.title),
  img: drawImage,
  input: ({ attributes }) => textIn("span", attributes.checked === "true" ? "☑ " : "☐ "),
  li: (item) => classed("li", isTask(item) ? "task" : ""),
  ol: ({ attributes }) => Object.assign(document.createElement("ol"), attributes.start && { start: attributes.start }),
  math: ({ attributes: { source, place }, text }) => drawFormula(text, source, place),
  table: drawTable,
  td: ({ attributes }) => cell("td", attributes.align),
  th: ({ attributes }) => cell("th", attributes.align),
};

/**
 * @param {string} tag
 * @param {string} [align]
 */
function cell(tag, align) {
  return classed(tag, align && `align-${align}`);
}

function drawTable() {
  const root = classed("div", "table");
  root.tabIndex = 0; // a wide one scrolls
  root.append(document.createElement("table"));
  return root;
}

/** @param {Element} code */
function drawCode({ attributes, text, complete }) {
  const { root, code } = codeBlock();
  nameLanguage(code, attributes.language ?? "");
  code.append(text);
  if (complete) colour(code);
  return root;
}

/** @param {Element} image */
function drawImage({ attributes: { src, alt, title, linked } }) {
  const link = linked ? document.createElement("span") : linkTo(src, title);
  link.textContent = alt || src;
  return link;
}

/**
 * Change a node that shows one tree so that it shows another, or put another in its place.
 * @param {ChildNode} node
 * @param {Tree} before
 * @param {Tree} after
 * @returns {ChildNode} the one that is there now
 */
function change(node, before, after) {
  if (before === after) return node;
  if (typeof before === "string" && typeof after === "string") {
    changeText(/** @type {Text} */ (node), before, after);
  } else if (typeof before === "string" || typeof after === "string" || !isAlike(before, after)) {
    const other = draw(after);
    node.replaceWith(other);
    return other;
  } else if (after.tag === "pre") changeCode(/** @type {HTMLElement} */ (node), before, after);
  else redraw(innerOf(/** @type {HTMLElement} */ (node), after), before.children, after.children);
  return node;
}

/**
 * Change the end of a text. What stands before it may have been cut off what is compared.
 * @param {Text} node
 * @param {string} before
 * @param {string} after
 */
function changeText(node, before, after) {
  if (after.startsWith(before)) node.appendData(after.slice(before.length));
  else node.replaceData(node.length - before.length, before.length, after);
}

/**
 * @param {HTMLElement} root
 * @param {Element} before
 * @param {Element} after
 */
function changeCode(root, before, after) {
  const code = /** @type {HTMLElement} */ (root.querySelector("code"));
  if (before.attributes.language !== after.attributes.language) nameLanguage(code, after.attributes.language ?? "");
  if (before.text !== after.text) changeText(/** @type {Text} */ (code.firstChild), before.text, after.text);
  if (after.complete && !before.complete) colour(code);
}

/**
 * Say whether what shows one tree can be changed to show another.
 * @param {Element} before
 * @param {Element} after
 */
function isAlike(before, after) {
  if (before.tag !== after.tag) return false;
  if (after.tag === "pre") return !before.complete || (after.complete && before.text === after.text);
  if (after.tag === "li") return isTask(before) === isTask(after);
  const names = Object.keys(after.attributes);
  return (
    names.length === Object.keys(before.attributes).length &&
    names.every((name) => before.attributes[name] === after.attributes[name])
  );
}

/**
 * Return the element that the children of a tree are in.
 * @param {HTMLElement} drawn
 * @param {Element} tree
 */
function innerOf(drawn, tree) {
  return tree.tag === "table" ? /** @type {HTMLElement} */ (drawn.firstElementChild) : drawn;
}

/**
 * Say whether an item of a list begins with a box to tick, in a paragraph or without one.
 * @param {Element} item
 */
function isTask({ children: [first] }) {
  if (typeof first === "object" && first.tag === "p") [first] = first.children;
  return typeof first === "object" && first.tag === "input";
}

/**
 * @param {string} address
 * @param {string} [title]
 */
function linkTo(address, title) {
  const link = document.createElement("a");
  lead(link, address);
  if (title) link.title = title;
  return link;
}

/**
 * @param {string} tag
 * @param {string} [name]
 */
function classed(tag, name) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  return element;
}

/**
 * @param {string} tag
 * @param {string} text
 */
function textIn(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

/**
 * Return the first of the last so many children.
 * @param {HTMLElement} parent
 * @param {number} count
 */
function lastOf(parent, count) {
  let child = null;
  for (let last = parent.lastChild; last && count; count--, last = last.previousSibling) child = last;
  return child;
}
