/** Asks the server over HTTP, and describes what it answers. */

/**
 * @typedef {{completion_tokens?: number, prompt_tokens?: number, cached_tokens?: number}} Usage
 * @typedef {{queue_time?: number | null, ttft?: number | null, tokens_per_second?: number | null}} Timings
 * @typedef {{id: string, state: string, code: string | null, message: string | null, usage: Usage, timings: Timings, model?: string}} Generation
 * @typedef {{value: 1 | -1, comment?: string}} Feedback
 * @typedef {{id: string, parent: string | null, role: "user" | "assistant", text: string, generation: Generation | null, siblings?: string[], feedback?: Feedback | null}} Message
 * @typedef {{id: string, title: string, updated: string, live: string | null, pinned?: boolean, temporary?: boolean}} Conversation
 * @typedef {{conversation: Conversation, messages: Message[], earlier?: string | null, settings?: Record<string, unknown>}} Branch
 */

/** Thrown when the server answers with an error, or not at all: then the code is `unreachable`. */
export class Failure extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * Send a request. Return what the answer holds, null if that is nothing; throw a Failure if it is an error.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 */
async function ask(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRFToken"] = cookie("csrftoken");
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: JSON.stringify(body), cache: "no-store" }).catch(() => {
    throw new Failure(0, "unreachable", path);
  });
  if (response.status === 204) return null;
  const found = await response.json().catch(() => ({}));
  if (!response.ok)
    throw new Failure(response.status, found.code ?? "error", found.message ?? `${path}: ${response.status}`);
  return found;
}

/** @param {string} name */
function cookie(name) {
  return document.cookie.match(`(?:^|; )${name}=([^;]*)`)?.[1] ?? "";
}

/**
 * Fetch a page of the visitor's conversations.
 * @param {string | null} after the `next` of the page before
 * @param {string} query what to search for
 * @returns {Promise<{conversations: Conversation[], next: string | null}>}
 */
export function fetchConversations(after = null, query = "") {
  const asked = new URLSearchParams();
  if (after) asked.set("after", after);
  if (query) asked.set("query", query);
  return ask("GET", `/api/conversations/?${asked}`);
}

/**
 * Fetch a conversation with the last messages of its branch, or with those before one.
 * @param {string} id
 * @param {string | null} before the first message that is known; none: the end of the branch
 * @returns {Promise<Branch>}
 */
export function fetchConversation(id, before = null) {
  return ask("GET", `/api/conversations/${id}/${before ? `?before=${before}` : ""}`);
}

/**
 * @param {string} id
 * @param {{title?: string, pinned?: boolean, shown?: string, settings?: Record<string, unknown>}} changes
 */
export function changeConversation(id, changes) {
  return ask("PATCH", `/api/conversations/${id}/`, changes);
}

/** @param {string} id */
export function deleteConversation(id) {
  return ask("DELETE", `/api/conversations/${id}/`);
}

/** @param {string} id */
export function restoreConversation(id) {
  return ask("POST", `/api/conversations/${id}/restore/`);
}

/**
 * Delete a message with everything that follows it.
 * @param {string} id
 */
export function deleteMessage(id) {
  return ask("DELETE", `/api/messages/${id}/`);
}

/**
 * Rate an answer.
 * @param {string} message
 * @param {Feedback | null} feedback null takes it back
 */
export function rate(message, feedback) {
  const path = `/api/messages/${message}/feedback/`;
  return feedback ? ask("PUT", path, feedback) : ask("DELETE", path);
}
