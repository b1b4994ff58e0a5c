/** What the server answers over HTTP. */

/**
 * @typedef {{id: string, state: string, code: string | null, message: string | null, usage: object, timings: object}} Generation
 * @typedef {{id: string, parent: string | null, role: "user" | "assistant", text: string, generation: Generation | null}} Message
 * @typedef {{id: string, title: string, updated: string, live: string | null}} Conversation
 */

/** @param {string} path */
async function get(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/**
 * @param {string | null} after
 * @returns {Promise<{conversations: Conversation[], next: string | null}>}
 */
export function fetchConversations(after = null) {
  return get(`/api/conversations/${after ? `?after=${encodeURIComponent(after)}` : ""}`);
}

/**
 * @param {string} id
 * @returns {Promise<{conversation: Conversation, messages: Message[]}>}
 */
export function fetchConversation(id) {
  return get(`/api/conversations/${id}/`);
}
