/**
 * As much of a document as answers are drawn with, for tests without a browser: a tree of elements and texts. Siblings
 * are found by looking through all, so trees are to be small.
 */

/** What elements and texts have in common. */
class Node {
  /** @type {Element | null} */
  parentElement = null;

  get #siblings() {
    return this.parentElement?.childNodes ?? [];
  }

  get nextSibling() {
    return this.#siblings[this.#siblings.indexOf(this) + 1] ?? null;
  }

  get previousSibling() {
    return this.#siblings[this.#siblings.indexOf(this) - 1] ?? null;
  }

  remove() {
    if (this.parentElement) this.#siblings.splice(this.#siblings.indexOf(this), 1);
    this.parentElement = null;
  }

  /** @param {Node} other */
  before(other) {
    other.remove();
    this.#siblings.splice(this.#siblings.indexOf(this), 0, other);
    other.parentElement = this.parentElement;
  }

  /** @param {Node} other */
  replaceWith(other) {
    this.before(other);
    this.remove();
  }
}

/** A text. */
class Text extends Node {
  nodeName = "#text";

  /** @param {string} data */
  constructor(data) {
    super();
    this.data = data;
  }

  get length() {
    return this.data.length;
  }

  get textContent() {
    return this.data;
  }

  /** @param {string} data */
  appendData(data) {
    this.data += data;
  }

  /**
   * @param {number} offset
   * @param {number} count
   * @param {string} data
   */
  replaceData(offset, count, data) {
    if (offset < 0 || offset > this.length) throw new RangeError(`${offset} of ${this.length}`);
    this.data = this.data.slice(0, offset) + data + this.data.slice(offset + count);
  }
}

/** An element. Its properties are what they are set to; none is an attribute. */
class Element extends Node {
  /** @type {any[]} */
  childNodes = [];
  className = "";
  dataset = {};

  /** @param {string} tag */
  constructor(tag) {
    super();
    this.nodeName = tag.toUpperCase();
  }

  get children() {
    return this.childNodes.filter((child) => child instanceof Element);
  }

  get firstChild() {
    return this.childNodes[0] ?? null;
  }

  get firstElementChild() {
    return this.children[0] ?? null;
  }

  get lastChild() {
    return this.childNodes.at(-1) ?? null;
  }

  /** @returns {string} */
  get textContent() {
    return this.childNodes.map(({ textContent }) => textContent).join("");
  }

  set textContent(text) {
    this.replaceChildren(...(text ? [text] : []));
  }

  /** @param {any[]} added nodes or texts */
  append(...added) {
    for (const each of added) {
      const child = typeof each === "string" ? new Text(each) : each;
      child.remove();
      child.parentElement = this;
      this.childNodes.push(child);
    }
  }

  /** @param {any[]} children */
  replaceChildren(...children) {
    for (const child of [...this.childNodes]) child.remove();
    this.append(...children);
  }

  /**
   * Find the first element inside by its tag or class.
   * @param {string} selector
   * @returns {any}
   */
  querySelector(selector) {
    for (const child of this.children) {
      const found = matches(child, selector) ? child : child.querySelector(selector);
      if (found) return found;
    }
    return null;
  }

  /**
   * @param {string} selector
   * @returns {any}
   */
  closest(selector) {
    return matches(this, selector) ? this : (this.parentElement?.closest(selector) ?? null);
  }

  /** @returns {Element} */
  cloneNode() {
    const copy = Object.assign(new Element(this.nodeName), { className: this.className });
    copy.append(...this.children.map((child) => child.cloneNode()));
    return copy;
  }

  addEventListener() {}
}

/**
 * @param {Element} element
 * @param {string} selector a tag or a class
 */
function matches({ nodeName, className }, selector) {
  return selector === `.${className}` || selector.toUpperCase() === nodeName;
}

/**
 * Make an element with a class, around others.
 * @param {string} selector
 * @param {Element[]} children
 */
function element(selector, ...children) {
  const [tag, className = ""] = selector.split(".");
  const made = Object.assign(new Element(tag), { className });
  made.append(...children);
  return made;
}

const CODE = element(
  "div.code",
  element("div.bar", element("span.language"), element("button")),
  element("pre", element("code")),
);

/** The document, whose only template is that of code. */
export const document = {
  documentElement: { lang: "en" },
  head: new Element("head"),
  createElement: (/** @type {string} */ tag) => new Element(tag),
  createTextNode: (/** @type {string} */ data) => new Text(data),
  getElementById: () => ({ content: { firstElementChild: CODE } }),
};

/**
 * Return all there is of a node, each on a line.
 * @param {any} node
 * @returns {string}
 */
export function outline(node, depth = 0) {
  const indent = "  ".repeat(depth);
  if (node instanceof Text) return indent + JSON.stringify(node.data);
  const { nodeName, childNodes, ...properties } = node;
  const line = `${indent}${nodeName} ${JSON.stringify({ ...properties, parentElement: undefined })}`;
  return [line, ...childNodes.map((/** @type {any} */ child) => outline(child, depth + 1))].join("\n");
}
