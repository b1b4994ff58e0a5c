/** Leads away from a page whose visitor is another one now. */

import { hasPage } from "../connection/api.js";

/**
 * Say that the page is over, and load it again when that was read.
 * @param {HTMLDialogElement} dialog
 */
export function askToReload(dialog) {
  if (dialog.open) return;
  dialog.addEventListener("close", reload, { once: true });
  dialog.showModal();
}

/** Load the page for whoever is its visitor now; what it showed may be another one's. */
async function reload() {
  if (await hasPage(location.pathname)) location.reload();
  else location.assign("/");
}
