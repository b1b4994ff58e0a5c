/** Puts the page together: frames and fetches go to the store, what the visitor does goes to the socket. */

import { fetchConversation } from "./api.js";
import { Composer } from "./composer.js";
import { List } from "./list.js";
import { Refusal, Socket } from "./socket.js";
import { Store } from "./store.js";
import { Thread } from "./thread.js";
import { refusalText, statusText } from "./words.js";

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

const socket = new Socket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/chat/`);
const store = new Store();
const thread = new Thread(element("thread"), element("scroller"), element("greeting"), store);
const composer = new Composer(/** @type {HTMLFormElement} */ (element("composer")));
const list = new List(element("list"), element("older"));
/** @type {{state?: string, progress?: number, message?: string}} */
let model = {};
let view = 0; // counts the conversations shown, so that a slow fetch does not replace a later one

/** Show a conversation as the server has it, and go on with its answer where it is. */
async function show(/** @type {string} */ id) {
  const mine = ++view;
  let found;
  try {
    found = await fetchConversation(id);
  } catch {
    // What is shown already stays, and the next connection begins with another try.
    if (mine === view && store.conversation !== id) composer.problem = "This conversation could not be loaded.";
    return;
  }
  if (mine !== view) return;
  store.load(found.conversation, found.messages);
  changed();
  if (store.live) watch(store.live);
}

/** Have the rest of an answer sent: from the next delta on, or all of it if none is known. */
function watch(/** @type {import("./store.js").Shown} */ message) {
  if (socket.state !== "open") return; // every opened socket begins with it
  const next = message.nextSeq === undefined ? {} : { next_seq: message.nextSeq };
  const frame = { type: "conversation.open", conversation: store.conversation, generation: message.generation?.id, ...next };
  socket.request(frame).catch(ignore);
}

async function send(/** @type {string} */ text) {
  const mine = view;
  await asking(async () => {
    const conversation = store.conversation ?? undefined;
    const accepted = await socket.request({ type: "message.send", text, conversation });
    composer.accepted(text);
    if (mine !== view) return;
    store.accept(accepted, text);
    if (!conversation) history.pushState(null, "", `/c/${accepted.conversation}/`);
    changed();
  });
}

async function goOn(/** @type {import("./store.js").Shown} */ message) {
  if (composer.sending || store.live) return;
  await asking(async () => {
    store.goOn(await socket.request({ type: "message.continue", message: message.id }));
    changed();
  });
}

/** One request at a time; what refuses it is said at the composer. */
async function asking(/** @type {() => Promise<void>} */ request) {
  composer.sending = true;
  composer.problem = "";
  try {
    await request();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    composer.problem = refusalText(error);
  } finally {
    composer.sending = false;
  }
}

function stop() {
  const generation = store.live?.generation?.id;
  if (generation) socket.request({ type: "generation.stop", generation }).catch(ignore);
}

/** Follow the address: a conversation or a new one. */
function navigate() {
  const id = location.pathname.match(/^\/c\/([0-9a-f-]{36})\/$/)?.[1];
  document.body.classList.remove("open");
  composer.problem = "";
  if (id) return show(id);
  view++;
  store.clear();
  changed();
  composer.focus();
}

function go(/** @type {string} */ path) {
  history.pushState(null, "", path);
  navigate();
}

/** What depends on which conversation is open and whether it is being answered. */
function changed() {
  composer.live = store.live !== null;
  list.current = store.conversation;
  element("title").textContent = store.title;
  document.title = store.title || "Chat";
}

function status() {
  element("status").textContent = statusText(socket.state, model, socket.restarting);
}

function received(/** @type {any} */ frame) {
  if (frame.type === "status" || frame.type === "hello") {
    if (frame.type === "status") model = frame;
    element("model").textContent = frame.model;
    status();
  } else if (frame.type === "server.restarting") {
    status();
  } else if (frame.type === "conversation.changed") {
    list.refresh().catch(ignore);
    const known = store.live !== null || composer.sending; // then it is about this page's own message
    if (frame.conversation === store.conversation && !known) show(frame.conversation);
  } else if (frame.type === "error") {
    composer.problem = refusalText(new Refusal(frame));
  } else if (!store.apply(frame) && store.live) {
    delete store.live.nextSeq; // a gap: have it whole
    watch(store.live);
  } else if (frame.type === "generation.finished") {
    changed();
    if (frame.reason === "interrupted" && store.conversation) show(store.conversation); // the stored text counts
  }
}

/** An open socket knows nothing of the one before: fetch what was missed, and watch again. */
function opened() {
  list.refresh().catch(ignore);
  if (store.conversation) show(store.conversation);
}

function ignore() {}

socket.addEventListener("frame", (event) => received(/** @type {CustomEvent} */ (event).detail));
socket.addEventListener("state", () => {
  status();
  if (socket.state === "open") opened();
});
composer.addEventListener("message", (event) => send(/** @type {CustomEvent} */ (event).detail));
composer.addEventListener("stop", stop);
thread.addEventListener("continue", (event) => goOn(/** @type {CustomEvent} */ (event).detail));
list.addEventListener("open", (event) => go(`/c/${/** @type {CustomEvent} */ (event).detail}/`));
element("new").addEventListener("click", (event) => {
  event.preventDefault();
  go("/");
});
for (const id of ["drawer", "scrim"]) {
  element(id).addEventListener("click", () => {
    const open = document.body.classList.toggle("open");
    element("drawer").setAttribute("aria-expanded", String(open));
  });
}
addEventListener("popstate", navigate);
navigate();
socket.connect();
