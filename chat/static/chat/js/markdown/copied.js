/** Makes texts of what is on the page, in which formulas stand as they were written. */

/**
 * Return what an element says, its blocks on lines of their own.
 * @param {HTMLElement} element
 */
export function textOf(element) {
  if (!element.querySelector(".math")) return element.innerText;
  const range = document.createRange();
  range.selectNodeContents(element);
  return shown(range.cloneContents(), ({ innerText }) => innerText);
}

/**
 * Put formulas on the clipboard as they were written, if any are selected. One that is selected in part counts whole.
 * @param {ClipboardEvent} event
 */
export function copyAsWritten(event) {
  const selection = document.getSelection();
  if (!selection?.rangeCount || !event.clipboardData) return;
  const range = selection.getRangeAt(0).cloneRange();
  const [first, last] = [range.startContainer, range.endContainer].map(formulaOf);
  if (first) range.setStartBefore(first);
  if (last) range.setEndAfter(last);
  const part = range.cloneContents();
  if (!part.querySelector(".math")) return;
  const [text, html] = shown(part, ({ innerText, innerHTML }) => [innerText, innerHTML]);
  event.clipboardData.setData("text/plain", text);
  event.clipboardData.setData("text/html", html);
  event.preventDefault();
}

/** @param {Node} node */
function formulaOf(node) {
  const element = node instanceof Element ? node : node.parentElement;
  return element?.closest(".math") ?? null;
}

/**
 * Return what is read from a part while it is laid out, unseen: only then blocks are on lines of their own.
 * @template Read
 * @param {DocumentFragment} part
 * @param {(box: HTMLElement) => Read} read
 */
function shown(part, read) {
  for (const formula of part.querySelectorAll(".math")) {
    formula.textContent = /** @type {HTMLElement} */ (formula).dataset.source ?? "";
  }
  const box = document.createElement("div");
  const text = document.createElement("div");
  box.className = "unseen answer";
  text.className = "text";
  text.append(part);
  box.append(text);
  document.body.append(box);
  try {
    return read(text);
  } finally {
    box.remove();
  }
}
