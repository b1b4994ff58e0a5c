/** Puts a box in the place of a title, for another one. Enter and leaving it keep what was written, Escape does not. */

import { find } from "../controls/elements.js";
import { isComposing } from "../controls/keys.js";
import { WORDS } from "../language/words.js";

const LONGEST = 60;

/**
 * Let the visitor write another title.
 * @param {HTMLElement} line of the list
 * @param {string} title
 * @param {(title: string) => void} keep called with the new title, if there is one
 */
export function rename(line, title, keep) {
  const [link, box] = [find(line, "a"), document.createElement("input")];
  Object.assign(box, { type: "text", maxLength: LONGEST, dir: "auto", value: title, ariaLabel: WORDS.rename });
  const end = (/** @type {boolean} */ kept) => {
    if (link.hidden === false) return;
    link.hidden = false;
    const written = box.value.trim();
    box.remove();
    if (kept && written && written !== title) keep(written);
  };
  box.addEventListener("blur", () => setTimeout(() => document.activeElement !== box && end(true))); // moved, it is back
  box.addEventListener("keydown", (event) => {
    if (isComposing(event) || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    end(event.key === "Enter");
    link.focus();
  });
  link.hidden = true;
  line.prepend(box);
  box.select();
}
