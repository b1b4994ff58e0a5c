/** Sentences and headings: what is pure enough to be tried without a page. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { t } from "../../chat/static/chat/js/language/i18n.js";
import { figuresText, reasonText, refusalText, waitingText } from "../../chat/static/chat/js/language/words.js";
import { heading } from "../../chat/static/chat/js/sidebar/headings.js";

test("values take the places of their names", () => {
  assert.equal(t("{a} of {b}, {c}", { a: 1, b: "{a}" }), "1 of {a}, {c}");
});

test("a refusal says when to try again where that helps", () => {
  const refusal = { code: "overloaded", message: "", retryAfter: 1.2 };
  assert.match(refusalText(/** @type {any} */ (refusal)), /try again in 2 s\.$/);
  assert.match(refusalText(/** @type {any} */ ({ ...refusal, retryAfter: undefined })), /in a moment\.$/);
  assert.doesNotMatch(refusalText(/** @type {any} */ ({ code: "too_large", message: "", retryAfter: 9 })), /again/);
  assert.equal(
    refusalText(/** @type {any} */ ({ code: "unheard_of", message: "So said the server." })),
    "So said the server.",
  );
});

test("an answer that the model left behind says so of its past, a refusal of now", () => {
  const generation = /** @type {any} */ ({ state: "error", code: "unavailable" });
  assert.equal(reasonText(generation, "Once upon"), "The model stopped while this answer was being written.");
  assert.equal(reasonText(generation, ""), "The model is not available right now.");
});

test("waiting has a place, and a time once there is one", () => {
  const generation = { state: "queued" };
  const place = { position: 2, size: 5, eta: null };
  assert.equal(waitingText(/** @type {any} */ ({ generation, place })), "Waiting: 2 of 5 in line");
  const times = /** @type {const} */ ([
    [0, "1 second"],
    [3.1, "4 seconds"],
    [21, "25 seconds"],
    [55.1, "1 minute"],
    [89, "1 minute"],
    [100, "2 minutes"],
  ]);
  for (const [eta, words] of times) {
    const text = waitingText(/** @type {any} */ ({ generation, place: { ...place, eta } }));
    assert.equal(text, `Waiting: 2 of 5 in line, about ${words}`);
  }
});

test("figures name what is known", () => {
  const timings = { tokens_per_second: 97.44, ttft: 0.1234 };
  const usage = { completion_tokens: 1234, cached_tokens: 40 };
  assert.equal(
    figuresText(/** @type {any} */ ({ usage, timings, model: "m" })),
    "1,234 tokens · 97.4 tokens/s · first after 0.12 s · 40 cached · m",
  );
  assert.equal(figuresText(/** @type {any} */ ({ usage: { completion_tokens: 1 }, timings: {} })), "1 token");
  assert.equal(figuresText(/** @type {any} */ ({ usage: {}, timings: {} })), "");
});

test("headings go by calendar days, not by hours", () => {
  const now = new Date(2026, 2, 30, 0, 10);
  const of = (/** @type {Date} */ date) => heading({ updated: date.toISOString() }, now);
  assert.equal(of(new Date(2026, 2, 30, 0, 5)), "Today");
  assert.equal(of(new Date(2026, 2, 29, 23, 55)), "Yesterday");
  assert.equal(of(new Date(2026, 2, 23, 12)), "The last seven days");
  assert.equal(of(new Date(2026, 2, 1)), "March");
  assert.equal(of(new Date(2025, 10, 1)), "November 2025");
  assert.equal(heading({ updated: now.toISOString(), pinned: true }, now), "Pinned");
});
