/** Makes buttons copy text, and announce that they did. */

import { WORDS } from "../language/words.js";
import { announce } from "./announcer.js";

const SHOWN = 1600;

/**
 * Have a button copy a text when it is clicked.
 * @param {HTMLButtonElement} button
 * @param {() => string} text
 */
export function copier(button, text) {
  button.addEventListener("click", async () => {
    const done = await copy(text());
    announce(done ? WORDS.copied : WORDS.notCopied);
    if (!done) return;
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), SHOWN);
  });
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // secure origins only
    return true;
  } catch {
    return copyFromPage(text);
  }
}

/**
 * Copy a text in the old way, for a page that came over plain HTTP.
 * @param {string} text
 */
function copyFromPage(text) {
  const box = document.createElement("textarea");
  box.className = "unseen";
  box.value = text;
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  document.body.append(box);
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  focused?.focus();
  return done;
}
