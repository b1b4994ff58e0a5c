/** The socket's states, and how long it waits between them; the network is a double, the clock stands. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Refusal, Socket } from "../../chat/static/chat/js/connection/socket.js";

/** @type {FakeWebSocket[]} */
let sockets = [];
/** @type {Record<string, () => void>} */
let windowEvents = {};
/** @type {Record<string, () => void>} */
let documentEvents = {};

class FakeWebSocket {
  /** @type {any[]} */
  sent = [];
  closed = false;
  constructor() {
    sockets.push(this);
  }
  send(/** @type {string} */ text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  says(/** @type {object} */ frame) {
    this.onmessage({ data: JSON.stringify(frame) });
  }
  hello() {
    this.says({ type: "hello", limits: { frame_bytes: 65536 } });
  }
}

beforeEach(() => {
  sockets = [];
  windowEvents = {};
  documentEvents = {};
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  Object.assign(globalThis, {
    WebSocket: FakeWebSocket,
    addEventListener: (/** @type {string} */ name, /** @type {() => void} */ does) => {
      windowEvents[name] = does;
    },
    document: {
      addEventListener: (/** @type {string} */ name, /** @type {() => void} */ does) => {
        documentEvents[name] = does;
      },
      hidden: false,
    },
  });
  Object.defineProperty(globalThis, "navigator", { value: { onLine: true }, configurable: true });
});

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

const renew = async () => true;

function opened() {
  const socket = new Socket("ws://x/", renew);
  socket.connect();
  sockets[0].hello();
  return socket;
}

/** Seconds until the next socket is tried, after the last one was lost. */
function waited() {
  const before = sockets.length;
  for (let tenths = 0; tenths < 1_000; tenths++) {
    if (sockets.length > before) return tenths / 10;
    mock.timers.tick(100);
  }
  assert.fail("no further attempt");
}

test("it is open from hello on", () => {
  const socket = new Socket("ws://x/", renew);
  assert.equal(socket.state, "idle");
  socket.connect();
  assert.equal(socket.state, "connecting");
  sockets[0].hello();
  assert.equal(socket.state, "open");
});

test("full jitter: from nothing to a bound that doubles up to twenty seconds", () => {
  let luck = 0;
  mock.method(Math, "random", () => luck);
  for (const [random, bounds] of [
    [0, [0, 0, 0, 0, 0, 0, 0, 0]],
    [0.999999, [0.5, 1, 2, 4, 8, 16, 20, 20]],
  ]) {
    luck = /** @type {number} */ (random);
    const socket = new Socket("ws://x/", renew);
    socket.connect();
    const waits = /** @type {number[]} */ (bounds).map(() => {
      sockets.at(-1).onclose({ code: 1006 });
      return waited();
    });
    assert.ok(
      waits.every((wait, at) => Math.abs(wait - bounds[at]) <= 0.1),
      `${waits}`,
    );
    sockets.at(-1).onclose({ code: 4403 }); // and no more of this one
    sockets = [];
  }
});

test("a thousand pages come back spread over the whole time", () => {
  const waits = [];
  for (let page = 0; page < 1_000; page++) {
    const socket = new Socket("ws://x/", renew);
    sockets = [];
    socket.connect();
    for (let lost = 0; lost < 3; lost++) {
      sockets.at(-1).onclose({ code: 1006 });
      const wait = waited();
      if (lost === 2) waits.push(wait);
    }
    sockets.at(-1).onclose({ code: 4403 }); // and no more of this one
  }
  const inQuarters = [0, 0.5, 1, 1.5].map((from) => waits.filter((wait) => wait >= from && wait < from + 0.5).length);
  assert.ok(
    inQuarters.every((count) => count > 150),
    `${inQuarters}`,
  );
});

test("a connection begins the waits anew", () => {
  mock.method(Math, "random", () => 0.999999);
  opened();
  sockets[0].onclose({ code: 1006 });
  assert.ok(waited() <= 0.6);
  sockets[1].hello();
  sockets[1].onclose({ code: 1006 });
  assert.ok(waited() <= 0.6);
});

test("a server that restarts is not asked before the time it named", () => {
  mock.method(Math, "random", () => 0);
  const socket = opened();
  sockets[0].says({ type: "server.restarting", retry_after: 3 });
  assert.equal(socket.restarting, true);
  sockets[0].onclose({ code: 1012 });
  assert.ok(waited() >= 3);
  sockets[1].hello();
  assert.equal(socket.restarting, false);
});

test("a request without a reply is sent again, under its id, to the next socket", async () => {
  mock.method(Math, "random", () => 0);
  const socket = opened();
  const reply = socket.request({ type: "message.send", text: "x" });
  sockets[0].onclose({ code: 1006 });
  waited();
  sockets[1].hello();
  assert.deepEqual(sockets[1].sent, sockets[0].sent);
  sockets[1].says({ type: "message.accepted", id: sockets[1].sent[0].id, conversation: "c" });
  assert.equal((await reply).conversation, "c");
});

test("an error with its id refuses a request", async () => {
  const socket = opened();
  const reply = socket.request({ type: "message.send", text: "x" });
  sockets[0].says({ type: "error", id: sockets[0].sent[0].id, code: "overloaded", message: "", retry_after: 2 });
  await assert.rejects(
    reply,
    (error) => error instanceof Refusal && error.code === "overloaded" && error.retryAfter === 2,
  );
});

test("a socket that is silent after a ping, or never says hello, is given up", () => {
  mock.method(Math, "random", () => 0.5);
  const socket = opened();
  mock.timers.tick(25_000);
  assert.equal(sockets[0].sent.at(-1).type, "ping");
  mock.timers.tick(10_000);
  assert.equal(socket.state, "waiting");
  waited();
  mock.timers.tick(15_000);
  assert.equal(sockets[1].closed, true);
  assert.equal(socket.state, "waiting");
});

test("a silent connection is replaced at once when the page wakes, one that lives is kept", async () => {
  mock.method(Math, "random", () => 0.9);
  const socket = opened();
  documentEvents.visibilitychange();
  assert.equal(sockets[0].sent.at(-1).type, "ping");
  sockets[0].says({ type: "pong", id: sockets[0].sent.at(-1).id });
  await null; // the ping has its reply
  mock.timers.tick(2_000);
  assert.equal(sockets.length, 1);
  documentEvents.visibilitychange();
  mock.timers.tick(1_200);
  assert.equal(sockets[0].closed, true);
  assert.deepEqual([sockets.length, socket.state], [2, "connecting"]);
  documentEvents.visibilitychange(); // this one was begun in another sleep
  mock.timers.tick(1_200);
  assert.deepEqual([sockets.length, socket.state], [3, "connecting"]);
});

test("a machine that slept beneath a page that is shown wakes it", () => {
  const socket = opened();
  mock.method(Date, "now", () => 0);
  mock.timers.tick(1_000);
  mock.method(Date, "now", () => 600_000);
  mock.timers.tick(1_000);
  assert.equal(sockets[0].sent.at(-1).type, "ping");
  mock.timers.tick(1_200);
  assert.equal(socket.state, "connecting");
});

test("a request without a reply has the connection looked at", () => {
  const socket = opened();
  socket.request({ type: "generation.stop", generation: "g" });
  mock.timers.tick(3_000);
  assert.equal(sockets[0].sent.at(-1).type, "ping");
  mock.timers.tick(10_000);
  assert.equal(socket.state, "waiting");
});

test("a session that ended is renewed before the next connection; another's has none", async () => {
  mock.method(Math, "random", () => 0);
  let same = true;
  const socket = new Socket("ws://x/", async () => same);
  socket.connect();
  sockets[0].hello();
  sockets[0].onclose({ code: 4401 });
  await null;
  await null;
  waited();
  assert.equal(socket.state, "connecting");
  same = false;
  sockets[1].onclose({ code: 4401 });
  await null;
  await null;
  mock.timers.tick(60_000);
  assert.deepEqual([socket.state, sockets.length], ["left", 2]);
});

test("a network that comes back is used at once", () => {
  mock.method(Math, "random", () => 0.9);
  const socket = opened();
  windowEvents.offline();
  assert.equal(sockets[0].closed, true);
  sockets[0].onclose({ code: 1006 });
  windowEvents.online();
  assert.equal(socket.state, "connecting");
});

test("a refused origin is not tried again", () => {
  const socket = new Socket("ws://x/", renew);
  socket.connect();
  sockets[0].onclose({ code: 4403 });
  mock.timers.tick(60_000);
  assert.equal(socket.state, "refused");
  assert.equal(sockets.length, 1);
});
