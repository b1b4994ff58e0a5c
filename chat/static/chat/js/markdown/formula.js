/**
 * Sets formulas with KaTeX, which is fetched with the first one. What it cannot set stays as it was written. Copying
 * what is selected gives formulas as they were written, too.
 */

import { copyAsWritten } from "./copied.js";

const LONGEST = 4000; // characters; a longer formula stays as it was written

const OPTIONS = {
  throwOnError: true,
  strict: "ignore",
  trust: () => {
    throw new Error("Links, images and what names classes of the page are not set.");
  },
  maxSize: 10, // em; so that no formula reaches over what is around the answer
  macros: {
    "\\pmb": "\\boldsymbol{#1}", // these two set a style that the policy of the page does not allow
    "\\fcolorbox": "\\@firstoftwo{\\fbox{\\colorbox{#2}{#3}}}{#1}",
  },
};

/** @type {any} */
let katex = null;
/** @type {Promise<void> | null} */
let fetching = null;

/** Fetch KaTeX and its styles. Where it cannot be fetched, formulas stay as they were written. */
function fetchKatex() {
  fetching ??= Promise.all([import("../../../vendor/katex/katex.min.js"), fetchStyles()]).then(
    () => {
      katex = /** @type {any} */ (globalThis).katex; // it is no module
      document.addEventListener("copy", copyAsWritten);
    },
    () => {
      fetching = null; // the next formula tries again
    },
  );
  return fetching;
}

/** Add the styles to the page; its template knows their address. */
function fetchStyles() {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById("formula-template"));
  const link = /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode());
  document.head.append(link);
  return new Promise((resolve, reject) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", () => reject(link.remove()));
  });
}

/**
 * Make a formula.
 * @param {string} tex
 * @param {string} source the same as it was written, with what is around it
 * @param {string} place it is set in a `line`, or set off as a `display` in a line or a `block` of its own
 */
export function drawFormula(tex, source, place) {
  const root = document.createElement(place === "block" ? "div" : "span");
  root.className = "math";
  root.textContent = source;
  root.dataset.source = source;
  const set = () => setFormula(root, tex, place !== "line");
  if (katex) set();
  else fetchKatex().then(() => katex && set());
  return root;
}

/**
 * Put a formula in the place of what was written.
 * @param {HTMLElement} root
 * @param {string} tex
 * @param {boolean} display
 */
function setFormula(root, tex, display) {
  if (tex.length > LONGEST) return;
  const formula = document.createElement("span");
  try {
    katex.render(tex, formula, { ...OPTIONS, displayMode: display });
  } catch {
    return; // a mistake in it, or more depth than there is stack
  }
  root.replaceChildren(formula);
  if (!display) return;
  root.classList.add("display");
  root.tabIndex = 0; // a wide one scrolls
}
