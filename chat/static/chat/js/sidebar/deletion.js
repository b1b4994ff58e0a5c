/** Has the server delete a conversation, and finds out whether it did. */

import { deleteConversation, Failure, fetchConversation } from "../connection/api.js";

/**
 * Delete a conversation. Return whether it is deleted then; null: nobody knows, since the server failed at it, or its
 * answer was lost, and does not say.
 * @param {string} id
 * @returns {Promise<boolean | null>}
 */
export async function isDeleted(id) {
  const online = navigator.onLine;
  try {
    await deleteConversation(id);
    return true;
  } catch (error) {
    const status = statusOf(error);
    if (status === 404) return true;
    if (!online || (status > 0 && status < 500)) return false;
  }
  try {
    await fetchConversation(id);
    return false;
  } catch (error) {
    return statusOf(error) === 404 ? true : null;
  }
}

/** @param {unknown} error */
function statusOf(error) {
  if (error instanceof Failure) return error.status;
  throw error;
}
