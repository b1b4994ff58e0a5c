/**
 * Draws Markdown as it streams. What is finished is never touched again, but for one case: a link whose definition comes
 * after it becomes one at the end. Where the text was cut does not matter: at the end the page shows what it would had
 * the text come whole.
 *
 * What a model writes is not trusted: no HTML passes, links lead to http, https and mailto addresses only, and nothing
 * is fetched from anywhere.
 */

import { draw, loosen, redraw } from "./draw.js";
import { Reader } from "./reader.js";

/** @typedef {import("./tree.js").Element} Tree */

/** A text in Markdown that is drawn into an element, which it empties first. */
export class Markdown {
  #element;
  #reader = new Reader();
  /** @type {Tree[]} what the last children of the element show, as far as it is open */
  #open = [];

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  /** @param {string} text */
  append(text) {
    this.#show(this.#reader.read(text));
  }

  end() {
    this.#show(this.#reader.end());
    const children = [...this.#element.children];
    for (const [place, tree] of this.#reader.late()) children[place].replaceWith(draw(tree));
  }

  /** @param {import("./reader.js").Reading} reading */
  #show({ blocks, open, loosened }) {
    if (loosened) this.#loosen();
    redraw(this.#element, this.#open, blocks);
    this.#open = open;
  }

  /** Have the finished items of the open list stand apart; those that are open are drawn anew anyway. */
  #loosen() {
    const list = this.#element.children[this.#element.children.length - this.#open.length];
    const items = [...list.children].slice(0, list.children.length - this.#open[0].children.length);
    for (const item of items) loosen(/** @type {HTMLElement} */ (item));
  }
}
