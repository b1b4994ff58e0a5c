/** Sentences of the page: what states, reasons and codes mean to a person. */

/** @type {Record<string, string>} */
const CODES = {
  bad_frame: "The server did not understand this. Reload the page and try again.",
  too_large: "This message is too long.",
  no_session: "Your session has ended. Reload the page.",
  not_found: "This conversation no longer exists.",
  bad_parent: "A question can only follow an answer.",
  nothing_to_continue: "This answer is complete, or empty.",
  turn_in_progress: "The answer before is still being written.",
  visitor_limit: "You have as many answers under way as one visitor may. Please wait for one to end.",
  queue_timeout: "Nobody could answer in time. Please try again.",
  generation_timeout: "The answer took too long.",
  rate_limited: "You have sent as many messages as one may in a minute.",
  too_many_sockets: "This chat is open in as many tabs as it may be. Close one to go on here.",
  unwatched: "The page was closed while this question waited for its turn.",
  overloaded: "Everyone is busy right now.",
  restarting: "The server is restarting.",
  unavailable: "The model is not available right now.",
  invalid_request: "A parameter is out of its range.",
  context_length_exceeded: "This is more text than the model can take in.",
  interrupted: "The server stopped while this answer was being written.",
  error: "Something went wrong while this answer was being written.",
};

/** What is gone when one tries again. */
const PASSING = ["overloaded", "rate_limited", "unavailable", "restarting"];

/** @type {Record<string, string>} */
const REASONS = {
  stop: "",
  length: "Cut at the longest answer allowed.",
  cancelled: "Stopped.",
  timeout: "This took too long.",
  error: CODES.error,
  interrupted: CODES.interrupted,
};

/** @param {import("./socket.js").Refusal} refusal */
export function refusalText(refusal) {
  const sentence = CODES[refusal.code] ?? refusal.message;
  if (!PASSING.includes(refusal.code)) return sentence;
  const when = refusal.retryAfter ? `in ${Math.ceil(refusal.retryAfter)} s` : "in a moment";
  return `${sentence} Your text is kept; please try again ${when}.`;
}

/** @param {import("./store.js").Shown} message */
export function waitingText({ generation, place }) {
  if (generation?.state !== "queued" || !place) return "";
  const eta = place.eta === null ? "" : `, about ${Math.ceil(place.eta)} s`;
  return `Waiting: ${place.position} of ${place.size} in line${eta}`;
}

/**
 * @param {import("./api.js").Generation | null} generation
 * @param {string} text
 */
export function reasonText(generation, text) {
  if (!generation) return "";
  if (generation.state === "stop" && !text) return "The model had nothing to say.";
  return CODES[generation.code ?? ""] ?? REASONS[generation.state] ?? "";
}

/**
 * @param {string} connection
 * @param {{state?: string, progress?: number, message?: string}} model
 * @param {boolean} restarting
 */
export function statusText(connection, model, restarting) {
  if (restarting) return "The server is restarting. Your conversation goes on in a moment.";
  if (connection === "refused") return "The server does not accept this page’s address (see CHAT_ORIGINS).";
  if (connection === "waiting") return "No connection. Trying again…";
  if (connection !== "open") return "";
  switch (model.state) {
    case "loading":
      return `The model is loading${model.progress === undefined ? "" : ` (${Math.round(model.progress * 100)} %)`}…`;
    case "paused":
      return "The model is paused.";
    case "down":
      return "The model is not running. It is being started again…";
    case "failed":
      return "The model cannot start. The operator has been told why.";
    default:
      return "";
  }
}
