/** What is kept of texts that were begun: of each conversation, for each account, and when. The storage is a double. */

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Drafts } from "../../chat/static/chat/js/state/drafts.js";

/** A storage that holds so many characters. Its items are its own properties, as a browser's are. */
class Storage {
  #room;
  constructor(room = 1_000) {
    this.#room = room;
  }
  getItem(/** @type {string} */ key) {
    return /** @type {any} */ (this)[key] ?? null;
  }
  setItem(/** @type {string} */ key, /** @type {string} */ value) {
    if (value.length > this.#room) throw new DOMException("full", "QuotaExceededError");
    /** @type {any} */ (this)[key] = value;
  }
  removeItem(/** @type {string} */ key) {
    delete (/** @type {any} */ (this)[key]);
  }
}

const sent = { type: "message.send", id: "1", text: "sent" };

beforeEach(() => Object.assign(globalThis, { localStorage: new Storage() }));

test("drafts are kept for each conversation, and never throw", () => {
  const drafts = new Drafts("");
  drafts.keep(null, { text: "new" });
  drafts.keep("c", { text: "sent", frame: sent });
  assert.deepEqual([drafts.of(null).text, drafts.of("c").frame?.id, drafts.of("d").text], ["new", "1", ""]);
  drafts.keep("c", { text: "another" });
  assert.equal(drafts.of("c").frame, undefined);
  drafts.keep(null, { settings: { top_k: 3 } });
  drafts.keep(null, { text: "more" });
  assert.deepEqual(drafts.of(null), { text: "more", settings: { top_k: 3 } });
  drafts.drop(null);
  drafts.keep("c", { text: "" });
  assert.deepEqual(Object.keys(localStorage), []);
  localStorage.setItem("draft::new", "{broken");
  assert.deepEqual(drafts.of(null), { text: "" });
  Object.assign(globalThis, { localStorage: undefined });
  drafts.keep(null, { text: "nowhere" });
  assert.deepEqual(drafts.of(null), { text: "" });
});

test("what is being written is read and stored once in a while, and before it is asked for", () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  const drafts = new Drafts("");
  let [box, reads] = ["", 0];
  const text = () => {
    reads++;
    return box;
  };
  for (box of ["a", "ab", "abc"]) drafts.writing("c", text);
  assert.equal(reads, 0);
  mock.timers.tick(1_000);
  assert.deepEqual([reads, localStorage.getItem("draft::c")], [1, '{"text":"abc"}']);
  box = "abcd";
  drafts.writing("c", text);
  drafts.keep("c", { frame: { ...sent, text: "abcd" } });
  assert.deepEqual([drafts.of("c").text, drafts.of("c").frame?.id], ["abcd", "1"]);
  box = "gone";
  drafts.writing("c", text);
  drafts.drop("c");
  mock.timers.tick(1_000);
  assert.equal(drafts.of("c").text, "");
  mock.timers.reset();
});

test("drafts are their account's; nobody's go to the account that signs in, and are not sent for it", () => {
  const [nobody, ada] = [new Drafts(""), new Drafts("ada")];
  nobody.keep(null, { text: "before", settings: { seed: 1 } });
  nobody.keep("c", { text: "sent", frame: sent });
  assert.equal(ada.of(null).text, "");
  const signedIn = new Drafts("ada");
  assert.deepEqual(signedIn.of(null), { text: "before", settings: { seed: 1 } });
  assert.deepEqual(signedIn.of("c"), { text: "sent" });
  assert.equal(new Drafts("").of(null).text, "");
  assert.equal(new Drafts("bob").of(null).text, "");
  new Drafts("").keep(null, { text: "later" });
  assert.equal(new Drafts("ada").of(null).text, "before");
});

test("a draft that the browser has no room for is told of once, and so is that there is room again", () => {
  const drafts = new Drafts("");
  /** @type {boolean[]} */
  const told = [];
  drafts.addEventListener("kept", (event) => told.push(/** @type {CustomEvent} */ (event).detail));
  drafts.keep("c", { text: "short" });
  for (const length of [1_000, 2_000]) drafts.keep("c", { text: "x".repeat(length) });
  assert.deepEqual([told, drafts.of("c").text], [[false], "short"]);
  drafts.keep("c", { text: "shorter" });
  assert.deepEqual(told, [false, true]);
});
