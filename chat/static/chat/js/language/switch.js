/** Has the language switch lead back to where one is: the form was made for the address that the page was loaded at. */

import { csrfToken } from "../connection/api.js";

/** @param {HTMLFormElement} form */
export function languageSwitch(form) {
  form.addEventListener("submit", () => {
    field(form, "next").value = location.pathname;
    field(form, "csrfmiddlewaretoken").value = csrfToken();
  });
}

/**
 * @param {HTMLFormElement} form
 * @param {string} name
 */
function field(form, name) {
  return /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
}
