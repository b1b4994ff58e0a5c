/** What the page knows, told by frames and fetches in every order that networks allow. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isCutOff, isLive, Store } from "../../chat/static/chat/js/state/store.js";

const ACCEPTED = { conversation: "c", message: "q", answer: "a", generation: "g" };

function asked() {
  const store = new Store();
  store.accept(ACCEPTED, "Why?\nBecause.");
  return store;
}

/** @param {Store} store */
function texts(store) {
  return store.messages.map(({ text }) => text);
}

function delta(/** @type {number} */ seq, /** @type {string} */ text) {
  return { type: "generation.delta", generation: "g", seq, text };
}

function branch(/** @type {any[]} */ messages, /** @type {object} */ more = {}) {
  return { conversation: { id: "c", title: "t", updated: "", live: null }, messages, ...more };
}

function stored(/** @type {string} */ id, /** @type {string} */ text, state = "stop") {
  const generation = { id: `g-${id}`, state, code: null, message: null, usage: {}, timings: {} };
  return { id, parent: null, role: /** @type {const} */ ("assistant"), text, generation, siblings: [id] };
}

test("an accepted message stands with its empty answer under way", () => {
  const store = asked();
  assert.deepEqual(texts(store), ["Why?\nBecause.", ""]);
  assert.equal(store.title, "Why?");
  assert.equal(store.live?.id, "a");
  store.accept(ACCEPTED, "Why?\nBecause."); // the reply came twice
  assert.equal(store.messages.length, 2);
});

test("deltas grow the answer once each, whatever repeats", () => {
  const store = asked();
  for (const frame of [delta(0, "1"), delta(0, "1"), delta(1, " 2"), delta(0, "1")])
    assert.equal(store.apply(frame), true);
  assert.equal(store.live?.text, "1 2");
});

test("a gap is reported, and a snapshot repairs it", () => {
  const store = asked();
  assert.equal(store.apply(delta(1, " 2")), false);
  assert.equal(store.live?.text, "");
  store.apply({ type: "generation.snapshot", generation: "g", state: "running", text: "1 2 3", next_seq: 3 });
  assert.equal(store.apply(delta(2, " 3")), true);
  assert.equal(store.apply(delta(3, " 4")), true);
  assert.equal(store.live?.text, "1 2 3 4");
});

test("the end carries figures and leaves nothing live", () => {
  const store = asked();
  store.apply(delta(0, "1"));
  store.apply({
    type: "generation.finished",
    generation: "g",
    reason: "length",
    usage: { completion_tokens: 1 },
    timings: {},
    model: "m",
  });
  assert.equal(store.live, null);
  assert.equal(isCutOff(store.messages[1]), true);
  assert.equal(store.messages[1].generation?.model, "m");
  assert.equal(store.messages[1].generation?.usage.completion_tokens, 1);
});

test("a further answer stands in the place of the first, as its sibling", () => {
  const store = asked();
  store.messages[1].generation = null;
  store.redo({ ...ACCEPTED, answer: "b", generation: "h" }, "a");
  assert.deepEqual(
    store.messages.map(({ id }) => id),
    ["q", "b"],
  );
  assert.deepEqual(store.messages[1].siblings, ["a", "b"]);
});

test("an edited question takes what followed it away", () => {
  const store = asked();
  store.messages[1].generation = null;
  store.accept({ conversation: "c", message: "q2", answer: "a2", generation: "g2" }, "And?");
  store.messages[3].generation = null;
  store.accept({ conversation: "c", message: "q3", answer: "a3", generation: "g3" }, "Or?", "q2");
  assert.deepEqual(
    store.messages.map(({ id }) => id),
    ["q", "a", "q3", "a3"],
  );
  assert.deepEqual(store.messages[2].siblings, ["q2", "q3"]);
  assert.equal(store.messages[2].parent, "a");
});

test("a question takes the place of one that lost its answer", () => {
  const store = asked();
  store.apply({ type: "generation.finished", generation: "g", reason: "stop", usage: {}, timings: {} });
  store.load(branch(store.messages.slice(0, 1))); // the answer was deleted
  store.accept({ conversation: "c", message: "q2", answer: "a2", generation: "g2" }, "Why not?");
  assert.deepEqual(texts(store), ["Why not?", ""]);
  assert.deepEqual(store.messages[0].siblings, ["q", "q2"]);
  assert.equal(store.messages[0].parent, null);
});

test("a fetch keeps the running answer that is shown", () => {
  const store = asked();
  store.apply(delta(0, "1"));
  const live = store.live;
  store.load(
    branch([
      { ...stored("a", "", "running"), generation: { ...stored("a", "").generation, id: "g", state: "running" } },
    ]),
  );
  assert.equal(store.live, live);
  assert.equal(store.live?.text, "1");
});

test("a fetch takes over an answer that has ended meanwhile", () => {
  const store = asked();
  store.apply(delta(0, "1"));
  const followed = store.live;
  /** @type {unknown[]} */
  const told = [];
  store.addEventListener("answer", (event) => told.push(/** @type {CustomEvent} */ (event).detail));
  const answer = stored("a", "1 2 3");
  store.load(branch([{ ...answer, generation: { ...answer.generation, id: "g" } }]));
  assert.deepEqual([isLive(store.messages[0]), texts(store)], [false, ["1 2 3"]]);
  assert.deepEqual(told, [followed]);
  const late = { type: "generation.snapshot", generation: "g", state: "running", text: "1", next_seq: 1 };
  for (const frame of [late, delta(1, " 2"), delta(7, " 8")]) assert.equal(store.apply(frame), true);
  assert.deepEqual([isLive(store.messages[0]), texts(store)], [false, ["1 2 3"]]);
});

test("an answer that ended while it was fetched stays as it ended", () => {
  const store = asked();
  store.apply(delta(0, "1"));
  store.apply({ type: "generation.finished", generation: "g", reason: "stop", usage: {}, timings: {} });
  const answer = stored("a", "", "running");
  store.load(branch([{ ...answer, generation: { ...answer.generation, id: "g" } }]));
  assert.deepEqual([isLive(store.messages[0]), texts(store)], [false, ["1"]]);
});

test("earlier pages stay when the end is fetched again", () => {
  const store = new Store();
  store.load(branch([stored("3", "three"), stored("4", "four")], { earlier: "3" }));
  store.prepend([stored("1", "one"), stored("2", "two")], null);
  store.load(branch([stored("3", "three"), stored("4", "four"), stored("5", "five")], { earlier: "3" }));
  assert.deepEqual(texts(store), ["one", "two", "three", "four", "five"]);
  assert.equal(store.earlier, null);
  store.load(branch([stored("7", "seven")], { earlier: "7" })); // another branch
  assert.deepEqual(texts(store), ["seven"]);
  assert.equal(store.earlier, "7");
});
