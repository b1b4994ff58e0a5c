/**
 * Draws Markdown as it streams: text is only ever appended, and finished blocks are never touched again.
 *
 * What a model writes is not trusted: no HTML passes, links lead to http, https and mailto addresses only, and nothing
 * is fetched from anywhere; an image becomes a link to it.
 */

import {
  CHECKBOX,
  CHECKED,
  CODE_BLOCK,
  CODE_FENCE,
  default_renderer,
  HREF,
  IMAGE,
  LANG,
  LINK,
  parser,
  parser_end,
  parser_write,
  SRC,
  TABLE,
} from "../../../vendor/streaming-markdown/smd.min.js";
import { codeBlock, colour, nameLanguage } from "./code.js";

const SCHEMES = ["http:", "https:", "mailto:"];

/** A text in Markdown that is drawn into an element, which it empties first. */
export class Markdown {
  #parser;
  #element;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
    element.replaceChildren();
    this.#parser = parser(safe(default_renderer(element)));
  }

  /** @param {string} text */
  append(text) {
    parser_write(this.#parser, text);
  }

  end() {
    parser_end(this.#parser);
    const code = this.#element.querySelector(":scope > .code:last-child code:not(:has(span))");
    if (code) colour(/** @type {HTMLElement} */ (code)); // it was cut off in the middle, so nothing closed it
  }
}

/**
 * Change a renderer so that it keeps the rules above, and draws code, tables and boxes to tick as this page does.
 * @typedef {{nodes: HTMLElement[], index: number}} Data the open elements, and which is the innermost
 * @param {any} renderer
 */
function safe({ add_token, end_token, set_attr, ...rest }) {
  return {
    ...rest,
    add_token: (/** @type {Data} */ data, /** @type {number} */ type) => {
      if (type === CODE_BLOCK || type === CODE_FENCE) {
        const { root, code } = codeBlock();
        open(data, root, code);
      } else if (type === TABLE) {
        const root = document.createElement("div");
        root.className = "table";
        root.tabIndex = 0; // a wide one scrolls
        open(data, root, root.appendChild(document.createElement("table")));
      } else if (type === CHECKBOX) {
        const box = document.createElement("span");
        box.textContent = "☐ ";
        open(data, box, box);
      } else {
        add_token(data, type === IMAGE ? LINK : type);
      }
    },
    end_token: (/** @type {Data} */ data) => {
      const ended = data.nodes[data.index];
      end_token(data);
      if (ended.parentElement?.tagName === "PRE") colour(ended);
    },
    set_attr: (/** @type {Data} */ data, /** @type {number} */ type, /** @type {string} */ value) => {
      const element = data.nodes[data.index];
      if (type === HREF || type === SRC) setLink(/** @type {HTMLAnchorElement} */ (element), value);
      else if (type === LANG) nameLanguage(element, value);
      else if (type === CHECKED) element.textContent = "☑ ";
      else set_attr(data, type, value);
    },
  };
}

/**
 * Add an element to the innermost open one, and open it.
 * @param {Data} data
 * @param {HTMLElement} root
 * @param {HTMLElement} inner where the text goes
 */
function open(data, root, inner) {
  data.nodes[data.index].append(root);
  data.nodes[++data.index] = inner;
}

/**
 * @param {HTMLAnchorElement} link
 * @param {string} address
 */
function setLink(link, address) {
  if (!isSafe(address)) return;
  link.href = address;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
}

/**
 * Say whether a link may lead to an address. It has to be absolute: a model knows no pages of this site.
 * @param {string} address
 */
function isSafe(address) {
  try {
    return SCHEMES.includes(new URL(address).protocol);
  } catch {
    return false;
  }
}
