/** Makes blocks of code: a frame with the language and a copy button, and colours once the block is complete. */

import { copier } from "../controls/copying.js";

const LONGEST = 20_000; // characters; longer code stays plain

/** @type {any} */
let hljs = null;
/** @type {Promise<void> | null} */
let fetching = null;

/** Fetch the highlighter with the first block of code. Where it cannot be fetched, code stays plain. */
function fetchHighlighter() {
  fetching ??= import("../../../vendor/highlight/es/highlight.min.js").then(
    (module) => {
      hljs = module.default;
    },
    () => {
      fetching = null; // the next block tries again
    },
  );
  return fetching;
}

/**
 * Make an empty block.
 * @returns {{root: HTMLElement, code: HTMLElement}} the block, and the element its text goes into
 */
export function codeBlock() {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById("code-template"));
  const root = /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
  const code = /** @type {HTMLElement} */ (root.querySelector("code"));
  copier(/** @type {HTMLButtonElement} */ (root.querySelector("button")), () =>
    (code.textContent ?? "").replace(/\n$/, ""),
  );
  fetchHighlighter();
  return { root, code };
}

/**
 * Name the language of a block.
 * @param {HTMLElement} code
 * @param {string} language
 */
export function nameLanguage(code, language) {
  code.dataset.language = language; // as a class it could take our styles
  const label = code.closest(".code")?.querySelector(".language");
  if (label) label.textContent = language;
}

/**
 * Colour a block that is complete: at once, or as soon as the highlighter is there.
 * @param {HTMLElement} code
 */
export function colour(code) {
  if (hljs) draw(code);
  else fetchHighlighter().then(() => hljs && draw(code));
}

/**
 * Colour a block, unless it is too long or its language is not named or not known: a guess is wrong too often.
 * @param {HTMLElement} code
 */
function draw(code) {
  const text = code.textContent ?? "";
  const language = code.dataset.language;
  if (!text || text.length > LONGEST || !language || !hljs.getLanguage(language)) return;
  code.replaceChildren(spans(hljs.highlight(text, { language, ignoreIllegals: true }).value));
}

/** @type {Record<string, string>} */
const CHARACTERS = { amp: "&", lt: "<", gt: ">", quot: '"', "#x27": "'" };

/**
 * Turn the highlighter's markup into elements: spans with its classes and text only, whatever else it might say.
 * @param {string} markup
 */
function spans(markup) {
  const root = document.createDocumentFragment();
  /** @type {Node[]} */
  const open = [root];
  for (const [piece, name] of markup.matchAll(/<span class="([^"]*)">|<\/span>|[^<]+|</g)) {
    const into = /** @type {Node} */ (open.at(-1));
    if (name !== undefined) {
      const span = document.createElement("span");
      span.className = name;
      open.push(into.appendChild(span));
    } else if (piece === "</span>") {
      if (open.length > 1) open.pop();
    } else {
      const text = piece.replace(/&(amp|lt|gt|quot|#x27);/g, (_, character) => CHARACTERS[character]);
      into.appendChild(document.createTextNode(text));
    }
  }
  return root;
}
