/** The open conversation over a server that is slow, answers out of order, or fails; server and socket are doubles. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { setImmediate as settled } from "node:timers/promises";
import { Refusal } from "../../chat/static/chat/js/connection/socket.js";
import { Conversation } from "../../chat/static/chat/js/conversation/conversation.js";
import { Store } from "../../chat/static/chat/js/state/store.js";

const ACCEPTED = { conversation: "c", message: "q", answer: "a", generation: "g", temporary: false };

/** @type {((answer: Response) => void)[]} the fetches that have no answer yet */
let fetches = [];

class FakeSocket extends EventTarget {
  state = "open";
  /** @type {any[]} */
  sent = [];
  /** @type {string | null} the code of the refusal */
  refuses = null;
  async request(/** @type {any} */ frame) {
    this.sent.push(frame);
    if (this.refuses) throw new Refusal({ code: this.refuses, message: "no" });
    return { type: "ok" };
  }
}

class FakeProblem {
  said = "";
  clear() {
    this.said = "";
  }
  say(/** @type {string} */ sentence) {
    this.said = sentence;
  }
  retract(/** @type {string} */ sentence) {
    if (this.said === sentence) this.said = "";
  }
  refused(/** @type {Error} */ refusal) {
    this.said = refusal.message;
  }
}

function opened() {
  const [socket, store, problem] = [new FakeSocket(), new Store(), new FakeProblem()];
  const conversation = new Conversation(/** @type {any} */ (socket), store, /** @type {any} */ (problem));
  return { socket, store, problem, conversation };
}

/** A branch of one question and its answer. */
function branch(/** @type {string} */ text, state = "stop") {
  const generation = { id: "g", state, code: null, message: null, usage: {}, timings: {} };
  const messages = [
    { id: "q", parent: null, role: "user", text: "Why?", generation: null },
    { id: "a", parent: "q", role: "assistant", text, generation },
  ];
  return { conversation: { id: "c", title: "t", updated: "", live: null }, messages };
}

async function answer(/** @type {number} */ which, /** @type {object} */ body, status = 200) {
  fetches[which](new Response(JSON.stringify(body), { status }));
  await settled();
}

beforeEach(() => {
  fetches = [];
  mock.timers.enable({ apis: ["setTimeout"] });
  Object.assign(globalThis, { fetch: () => new Promise((resolve) => fetches.push(resolve)) });
});

afterEach(() => mock.timers.reset());

test("what was asked for later is what is shown, whatever comes first", async () => {
  const { store, conversation } = opened();
  conversation.open("c");
  conversation.show("c");
  await answer(1, branch("new"));
  await answer(0, branch("old"));
  assert.equal(store.messages[1].text, "new");
});

test("a fetch that began before a question was accepted does not take it away", async () => {
  const { store, conversation } = opened();
  conversation.open("c");
  await answer(0, { ...branch(""), messages: [] });
  conversation.show("c");
  store.accept(ACCEPTED, "Why?");
  conversation.outdate();
  await answer(1, { ...branch(""), messages: [] });
  assert.deepEqual(
    store.messages.map(({ id }) => id),
    ["q", "a"],
  );
  await answer(2, branch("", "running"));
  assert.equal(store.live?.id, "a");
});

test("an answer that is known of is followed before anything is fetched", async () => {
  const { socket, store, conversation } = opened();
  store.accept(ACCEPTED, "Why?");
  store.apply({ type: "generation.delta", generation: "g", seq: 0, text: "Be" });
  conversation.show("c");
  assert.deepEqual(socket.sent, [{ type: "conversation.open", conversation: "c", generation: "g", next_seq: 1 }]);
  await answer(0, branch("Be", "running"));
  assert.equal(socket.sent.length, 1);
  socket.dispatchEvent(new Event("state")); // another connection, which follows nothing
  conversation.show("c");
  assert.equal(socket.sent.length, 2);
});

test("an answer that cannot be followed is fetched until it has ended", async () => {
  const { socket, store, conversation } = opened();
  socket.refuses = "unavailable";
  conversation.open("c");
  await answer(0, branch("Be", "running"));
  mock.timers.tick(1_000);
  await answer(1, { code: "unavailable", message: "" }, 503);
  assert.equal(store.live?.text, "Be");
  mock.timers.tick(4_000);
  await answer(2, branch("Because."));
  assert.equal(store.live, null);
  assert.equal(store.messages[1].text, "Because.");
  mock.timers.tick(60_000);
  assert.equal(fetches.length, 3);
});

test("a conversation that cannot be fetched is fetched again, and never into another one", async () => {
  const { store, problem, conversation } = opened();
  conversation.open("c");
  await answer(0, {}, 503);
  assert.match(problem.said, /could not be loaded/);
  mock.timers.tick(1_000);
  await answer(1, branch("Because."));
  assert.deepEqual([store.messages.length, problem.said], [2, ""]);
  conversation.show("c");
  await answer(2, {}, 503);
  conversation.open(null);
  mock.timers.tick(60_000);
  assert.equal(fetches.length, 3);
});

test("a stop that is refused is said, and the answer shown as it is", async () => {
  const { socket, store, problem, conversation } = opened();
  store.accept(ACCEPTED, "Why?");
  socket.refuses = "unavailable";
  conversation.stop();
  await settled();
  assert.equal(problem.said, "no");
  await answer(0, branch("Because."));
  assert.equal(store.live, null);
});
