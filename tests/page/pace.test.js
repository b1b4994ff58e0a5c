/** How text that comes in gathers is spread over frames. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { portion } from "../../chat/static/chat/js/thread/pace.js";

const FRAME = 50; // every third of 60 a second

test("uneven gathers are drawn evenly", () => {
  const gather = "x".repeat(16);
  let [left, come, count] = ["", 0, 0];
  const drawn = [];
  for (let now = FRAME; now < 5000; now += FRAME) {
    for (; come <= now; come += count++ % 2 ? 70 : 10) left += gather;
    const piece = portion(left, FRAME);
    left = left.slice(piece.length);
    drawn.push(piece.length);
  }
  const steady = drawn.slice(20);
  assert.ok(Math.max(...steady) < 2 * Math.min(...steady), `${steady}`); // as they come: 0, 16 or 32
  assert.ok(left.length < 4 * gather.length);
});

test("what has piled up is drawn soon", () => {
  let left = "x".repeat(100_000);
  for (let frame = 0; frame < 60; frame++) left = left.slice(portion(left, FRAME).length);
  assert.equal(left, "");
  assert.equal(portion("abc", 5_000), "abc");
});

test("no character is cut in two", () => {
  let left = "😀a".repeat(50);
  while (left) {
    const piece = portion(left, FRAME);
    assert.ok(piece.length > 0);
    assert.ok(piece.isWellFormed());
    left = left.slice(piece.length);
  }
});
