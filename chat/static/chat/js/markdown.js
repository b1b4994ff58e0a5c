/**
 * Markdown as it streams: text is only ever appended, finished blocks are never touched again.
 *
 * What a model writes is not trusted: no HTML passes, links lead to http, https and mailto addresses only, and nothing
 * is fetched from anywhere; an image becomes a link to it.
 */

import {
  default_renderer,
  HREF,
  IMAGE,
  LANG,
  LINK,
  parser,
  parser_end,
  parser_write,
  SRC,
} from "../../vendor/streaming-markdown/smd.min.js";

const SCHEMES = ["http:", "https:", "mailto:"];

export class Markdown {
  #parser;

  /** @param {HTMLElement} element */
  constructor(element) {
    element.replaceChildren();
    this.#parser = parser(safe(default_renderer(element)));
  }

  /** @param {string} text */
  append(text) {
    parser_write(this.#parser, text);
  }

  end() {
    parser_end(this.#parser);
  }
}

/** @param {any} renderer */
function safe({ add_token, set_attr, ...rest }) {
  return {
    ...rest,
    add_token: (/** @type {any} */ data, /** @type {number} */ type) => add_token(data, type === IMAGE ? LINK : type),
    set_attr: (/** @type {any} */ data, /** @type {number} */ type, /** @type {string} */ value) => {
      if (type === HREF || type === SRC) setLink(data.nodes[data.index], value);
      else if (type === LANG) data.nodes[data.index].dataset.language = value; // as a class it could take our styles
      else set_attr(data, type, value);
    },
  };
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

/** @param {string} address absolute, or it leads nowhere: a model knows no pages of this site */
function isSafe(address) {
  try {
    return SCHEMES.includes(new URL(address).protocol);
  } catch {
    return false;
  }
}
