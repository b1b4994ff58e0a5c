/** Finds elements of the page, and copies its templates. */

/**
 * Return the first element that a selector matches. It has to be there.
 * @template {HTMLElement} T
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {T}
 */
export function find(root, selector) {
  return /** @type {T} */ (root.querySelector(selector));
}

/**
 * Return a copy of what a template of the page holds.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function copyOf(id) {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById(id));
  return /** @type {HTMLElement} */ (template.content.firstElementChild?.cloneNode(true));
}
