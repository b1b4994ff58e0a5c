/**
 * Translates sentences into the page's language. The English sentence is the key; what has no translation stays
 * English. This module knows no sentences itself: they are in `words.js`.
 */

/** The language of the page, for dates and numbers. */
export const language = globalThis.document?.documentElement.lang || "en";

/** @type {Record<string, string>} */
const catalog = JSON.parse(globalThis.document?.getElementById("catalog")?.textContent || "{}");

/**
 * Translate a sentence.
 * @param {string} sentence may have {names}
 * @param {Record<string, string | number>} values what to put in their place
 */
export function t(sentence, values = {}) {
  return (catalog[sentence] ?? sentence).replace(/\{(\w+)\}/g, (name, key) => String(values[key] ?? name));
}
