/** Has every sentence that scripts put on the page: what states, reasons, codes and figures mean to a person. */

import { language, t } from "./i18n.js";

/** @type {Record<string, string>} */
const CODES = {
  bad_frame: t("The server did not understand this. Reload the page and try again."),
  too_large: t("This message is too long."),
  no_session: t("Your session has ended. Reload the page."),
  forbidden: t("The server does not accept this from this page. Reload the page and try again."),
  not_found: t("This conversation no longer exists."),
  not_offered: t("This kind of chat is not offered here."),
  bad_parent: t("A question can only follow an answer."),
  nothing_to_continue: t("This answer is complete, or empty."),
  turn_in_progress: t("The answer before is still being written."),
  visitor_limit: t("You have as many answers under way as one visitor may. Please wait for one to end."),
  queue_timeout: t("Nobody could answer in time. Please try again."),
  generation_timeout: t("The answer took too long."),
  rate_limited: t("You have sent as many messages as one may in a minute."),
  too_many_sockets: t("This chat is open in as many tabs as it may be. Close one to go on here."),
  unwatched: t("The page was closed while this question waited for its turn."),
  overloaded: t("Everyone is busy right now."),
  restarting: t("The server is restarting."),
  unavailable: t("The model is not available right now."),
  invalid_request: t("A parameter is out of its range."),
  context_length_exceeded: t("This is more text than the model can take in."),
  unreachable: t("The server cannot be reached right now."),
  interrupted: t("The server stopped while this answer was being written."),
  error: t("Something went wrong while this answer was being written."),
};

const SHORT_TITLE = 24; // the words after it are in view on a phone too

/** The codes of refusals that do not last: the same may be accepted when one tries again. */
const PASSING = ["overloaded", "rate_limited", "unavailable", "restarting"];

/** @type {Record<string, string>} */
const REASONS = {
  stop: "",
  length: t("Cut at the longest answer allowed."),
  cancelled: t("Stopped."),
  timeout: t("This took too long."),
  error: CODES.error,
  interrupted: CODES.interrupted,
};

const decimal = new Intl.NumberFormat(language, { maximumSignificantDigits: 3 });
const brief = new Intl.NumberFormat(language, {
  maximumFractionDigits: 2,
  maximumSignificantDigits: 3,
  roundingPriority: "lessPrecision",
});
const whole = new Intl.NumberFormat(language);
const typed = new Intl.NumberFormat(language, { maximumFractionDigits: 3, useGrouping: false });

/**
 * Say why the server refused something, and when to try again if that helps.
 * @param {{code: string, message: string, retryAfter?: number}} refusal
 */
export function refusalText(refusal) {
  const why = CODES[refusal.code] ?? refusal.message;
  if (!PASSING.includes(refusal.code)) return why;
  const seconds = Math.ceil(refusal.retryAfter ?? 0);
  return seconds
    ? t("{why} Your text is kept; please try again in {seconds} s.", { why, seconds })
    : t("{why} Your text is kept; please try again in a moment.", { why });
}

/**
 * Say where in the queue an answer waits; nothing if it does not wait.
 * @param {import("../state/store.js").Shown} message
 */
export function waitingText({ generation, place }) {
  if (generation?.state !== "queued" || !place) return "";
  const { position, size, eta } = place;
  return eta === null
    ? t("Waiting: {position} of {size} in line", { position, size })
    : t("Waiting: {position} of {size} in line, about {time}", { position, size, time: aboutText(eta) });
}

/**
 * Write a time no more exactly than a forecast is.
 * @param {number} seconds
 */
function aboutText(seconds) {
  if (seconds > 55) return unit("minute").format(Math.round(seconds / 60));
  const step = seconds > 10 ? 5 : 1;
  return unit("second").format(Math.max(1, Math.ceil(seconds / step) * step));
}

/**
 * Return a format that writes a unit out, in the singular or plural that a number asks for.
 * @param {string} name
 */
function unit(name) {
  return new Intl.NumberFormat(language, { style: "unit", unit: name, unitDisplay: "long" });
}

/**
 * Say why an answer ended as it did; nothing if that needs no words.
 * @param {import("../connection/api.js").Generation | null} generation
 * @param {string} text
 */
export function reasonText(generation, text) {
  if (!generation) return "";
  if (generation.state === "stop" && !text) return t("The model had nothing to say.");
  if (generation.state === "cancelled" && !text) return t("You left the queue.");
  if (generation.code === "unavailable" && text) return t("The model stopped while this answer was being written.");
  return CODES[generation.code ?? ""] ?? REASONS[generation.state] ?? "";
}

/**
 * Say what an answer took: tokens, speed, time to the first text, what the cache gave, which model.
 * @param {import("../connection/api.js").Generation} generation
 */
export function figuresText({ usage, timings, model }) {
  const { completion_tokens: tokens = 0, cached_tokens: cached = 0 } = usage;
  if (!tokens) return "";
  const figures = [tokens === 1 ? t("1 token") : t("{count} tokens", { count: whole.format(tokens) })];
  const { tokens_per_second: rate, ttft } = timings;
  if (rate) figures.push(t("{rate} tokens/s", { rate: decimal.format(rate) }));
  if (ttft) figures.push(t("first after {seconds} s", { seconds: brief.format(ttft) }));
  if (cached) figures.push(t("{count} cached", { count: whole.format(cached) }));
  if (model) figures.push(model);
  return figures.join(" · ");
}

/**
 * Say what keeps the page from being answered; nothing if all is well.
 * @param {string} connection
 * @param {{state?: string, progress?: number, message?: string}} model
 * @param {boolean} restarting
 */
export function statusText(connection, model, restarting) {
  if (restarting) return t("The server is restarting. Your conversation goes on in a moment.");
  if (connection === "refused") return t("The server does not accept this page’s address (see CHAT_ORIGINS).");
  if (connection === "waiting") return t("No connection. Trying again…");
  if (connection !== "open") return "";
  switch (model.state) {
    case "loading":
      return model.progress === undefined
        ? t("The model is loading…")
        : t("The model is loading ({percent} %)…", { percent: Math.round(model.progress * 100) });
    case "paused":
      return t("The model is paused.");
    case "down":
      return t("The model is not running. It is being started again…");
    case "failed":
      return t("The model cannot start. The operator has been told why.");
    default:
      return "";
  }
}

/**
 * Say what a screen reader is told of an answer that is under way.
 * @param {import("../state/store.js").Shown} message
 */
export function progressText(message) {
  return waitingText(message) || t("The answer is being written.");
}

/**
 * @param {number} place from 1
 * @param {number} count
 */
export function versionText(place, count) {
  return t("{place} / {count}", { place, count });
}

/** @param {string} title */
export function deletedText(title) {
  const short = title.length > SHORT_TITLE ? `${title.slice(0, SHORT_TITLE)}…` : title;
  return t("“{title}” was deleted.", { title: short });
}

/** @param {string} title */
export function menuText(title) {
  return t("What to do with “{title}”", { title });
}

/** @param {number} value as one would type it */
export function defaultText(value) {
  return t("Default ({value})", { value: typed.format(value) });
}

/**
 * @param {string} least
 * @param {string} most
 * @param {boolean} isWhole
 */
export function outOfRangeText(least, most, isWhole) {
  return isWhole
    ? t("A whole number from {least} to {most}.", { least, most })
    : t("A number from {least} to {most}.", { least, most });
}

/**
 * @param {number} count
 * @param {number} length
 */
export function tooManyText(count, length) {
  return t("{count} lines at most, of at most {length} characters each.", { count, length });
}

export const WORDS = {
  product: t("Chat"),
  untitled: t("New chat"),
  copied: t("Copied."),
  notCopied: t("The browser did not allow the copy."),
  gone: t("This conversation no longer exists."),
  notLoaded: t("This conversation could not be loaded."),
  notKept: t("This text is too long for the browser to keep: it is gone when the page is closed."),
  notDone: t("That did not work. Please try again."),
  tryNow: t("You can try again now."),
  pinned: t("Pinned"),
  today: t("Today"),
  yesterday: t("Yesterday"),
  week: t("The last seven days"),
  pin: t("Pin"),
  unpin: t("Unpin"),
  rename: t("New title"),
  noneFound: t("Nothing found."),
  noneYet: t("Your conversations will be listed here."),
  saved: t("Saved."),
  notAccepted: t("The server does not accept this."),
};
