/** How long the server is waited for, and what is asked again. The network is a double, and says how long it may take. */

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { deleteConversation, Failure, fetchConversations, rate } from "../../chat/static/chat/js/connection/api.js";
import { noteSilence } from "../../chat/static/chat/js/connection/patience.js";

/** @type {(null | [number, string])[]} what the attempts get, in their order; null: no answer */
let answers = [];
/** @type {{method: string, limit: number}[]} */
let asked = [];

beforeEach(() => {
  mock.restoreAll();
  asked = [];
  let limit = 0;
  mock.method(AbortSignal, "timeout", (/** @type {number} */ time) => {
    limit = time;
  });
  Object.assign(globalThis, {
    document: { cookie: "csrftoken=secret" },
    fetch: async (/** @type {string} */ path, /** @type {RequestInit} */ { method }) => {
      asked.push({ method, limit });
      const answer = answers.shift();
      if (!answer) throw new TypeError("nothing came");
      return new Response(answer[0] === 204 ? null : answer[1], { status: answer[0] });
    },
  });
});

test("what gets no answer in time is asked once more, and then given up", async () => {
  answers = [null, [200, '{"conversations": [], "next": null}']];
  assert.deepEqual(await fetchConversations(), { conversations: [], next: null });
  answers = [null, null];
  await assert.rejects(fetchConversations(), (error) => error instanceof Failure && error.code === "unreachable");
  assert.deepEqual(
    asked.map(({ limit }) => limit),
    [10_000, 20_000, 10_000, 20_000],
  );
});

test("an error is an answer, also from what is before the site", async () => {
  answers = [[503, "<h1>Bad gateway</h1>"]];
  await assert.rejects(fetchConversations(), (error) => error instanceof Failure && error.status === 503);
  answers = [[400, '{"code": "invalid_request", "message": "no"}']];
  await assert.rejects(rate("a", null), (error) => error instanceof Failure && error.code === "invalid_request");
  assert.equal(asked.length, 2);
});

test("what is not there the second time was deleted the first", async () => {
  answers = [null, [404, '{"code": "not_found", "message": ""}']];
  assert.equal(await deleteConversation("c"), null);
  answers = [[404, '{"code": "not_found", "message": ""}']];
  await assert.rejects(deleteConversation("c"), (error) => error instanceof Failure && error.status === 404);
});

test("after a silence each of six dead connections is found out within a second", async () => {
  noteSilence();
  answers = [null, null, null, [200, '{"conversations": [], "next": null}']];
  await fetchConversations();
  assert.deepEqual(
    asked.map(({ limit }) => limit),
    [1_000, 1_000, 1_000, 1_000],
  );
});
