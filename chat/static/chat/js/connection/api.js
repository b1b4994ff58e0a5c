/** Asks the server over HTTP, and describes what it answers. */

import { attempts } from "./patience.js";

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
 * Send a request. Return what the answer holds, null if that is nothing; throw a Failure if it is an error. What gets no
 * answer in time is asked again: whatever this module asks for comes to the same if it is done twice.
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 */
async function ask(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json" };
  if (method !== "GET") headers["X-CSRFToken"] = csrfToken();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const request = { method, headers, body: JSON.stringify(body) };
  for (const [times, limit] of attempts().entries()) {
    const answer = await fetched(path, limit, request);
    if (!answer) continue;
    const { response, text } = answer;
    const done = method === "DELETE" && times > 0 && response.status === 404; // by an attempt whose answer was lost
    if (response.ok || done) return done || !text ? null : JSON.parse(text);
    throw failure(response.status, path, text);
  }
  throw new Failure(0, "unreachable", path);
}

/**
 * Fetch from the server; null: there was no answer in time, or none at all.
 * @param {string} path
 * @param {number} limit in milliseconds
 * @param {RequestInit} [request]
 */
async function fetched(path, limit, request) {
  try {
    const response = await fetch(path, { ...request, cache: "no-store", signal: AbortSignal.timeout(limit) });
    return { response, text: await response.text() };
  } catch {
    return null;
  }
}

/**
 * Describe an answer that is an error. One that is not of the API, but of what is before it, has no code.
 * @param {number} status
 * @param {string} path
 * @param {string} text
 */
function failure(status, path, text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    found = {};
  }
  return new Failure(status, found.code ?? "error", found.message ?? `${path}: ${status}`);
}

/** Return what shows the server that a request comes from a page of its own. It is another one after each sign-in. */
export function csrfToken() {
  return document.cookie.match("(?:^|; )csrftoken=([^;]*)")?.[1] ?? "";
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

/**
 * Fetch the page, whose answer sets the cookie of a session. Return whose account the session is of, "" if nobody's;
 * null if the server does not say.
 */
export async function fetchAccount() {
  for (const limit of attempts()) {
    const answer = await fetched("/", limit);
    if (!answer?.response.ok) continue;
    return /<main [^>]*data-account="([^"]*)"/.exec(answer.text)?.[1] ?? ""; // the policy allows no markup to be parsed
  }
  return null;
}

/**
 * Say whether the server has a page at an address for whoever is its visitor now; also if it does not answer.
 * @param {string} path
 */
export async function hasPage(path) {
  const answer = await fetched(path, attempts()[0], { method: "HEAD" });
  return answer?.response.status !== 404;
}
