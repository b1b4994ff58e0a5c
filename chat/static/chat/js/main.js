/** Puts the page together: makes its parts, and passes on to the others what one of them reports. */

import { Composer } from "./composer/composer.js";
import { Problem } from "./composer/problem.js";
import { fetchAccount } from "./connection/api.js";
import { Refusal, Socket } from "./connection/socket.js";
import { Announcer } from "./controls/announcer.js";
import { isComposing, nameKeys, shortcuts } from "./controls/keys.js";
import { askToReload } from "./controls/leaving.js";
import { Menu } from "./controls/menu.js";
import { Toasts } from "./controls/toast.js";
import { Conversation } from "./conversation/conversation.js";
import { Settings } from "./conversation/settings.js";
import { Temporary } from "./conversation/temporary.js";
import { Turns } from "./conversation/turns.js";
import { languageSwitch } from "./language/switch.js";
import { statusText, WORDS } from "./language/words.js";
import { Drawer } from "./sidebar/drawer.js";
import { List } from "./sidebar/list.js";
import { account, watchAccount } from "./state/account.js";
import { drafts } from "./state/drafts.js";
import { themeSwitch } from "./state/preferences.js";
import { Store } from "./state/store.js";
import { Follow } from "./thread/follow.js";
import { Thread } from "./thread/thread.js";

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {string} id */
const dialog = (id) => /** @type {HTMLDialogElement} */ (document.getElementById(id));

const socket = new Socket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/chat/`, renew);
const store = new Store();
const thread = new Thread(
  element("thread"),
  element("greeting"),
  new Follow(element("scroller"), element("to-end")),
  store,
);
const problem = new Problem(element("problem"));
const composer = new Composer(/** @type {HTMLFormElement} */ (element("composer")));
const conversation = new Conversation(socket, store, problem);
const turns = new Turns(socket, store, composer, conversation, problem);
const list = new List(element("sidebar"), new Menu(element("conversation-menu")), new Toasts(element("toasts")));
const drawer = new Drawer(element("sidebar"), element("menu"), element("scrim"), [element("main"), element("skip")]);
const settings = new Settings(dialog("settings"), element("settings-button"), configure);
const temporary = new Temporary(element("main"), element("temporary"));
/** @type {{state?: string, progress?: number, message?: string}} */
let model = {};

/** Return the conversation that the address leads to, or null for a new one. */
function addressed() {
  return location.pathname.match(/^\/c\/([0-9a-f-]{36})\/$/)?.[1] ?? null;
}

function navigate() {
  const id = addressed();
  drawer.close();
  conversation.open(id);
  if (id === null) composer.focus();
}

function go(/** @type {string} */ path) {
  history.pushState(null, "", path);
  navigate();
}

/** Begin a new conversation where one was that is gone, to which the way back leads no more. */
function leaveGone() {
  history.replaceState(null, "", "/");
  navigate();
}

/** Fetch another session. Return whether it is of the same account, so that this page goes on. */
async function renew() {
  const owner = await fetchAccount();
  if (owner === null || owner === account) return true;
  left();
  return false;
}

function left() {
  socket.leave();
  askToReload(dialog("left-dialog"));
}

/** Update what depends on which conversation is open, how its answers are made, and whether it is being answered. */
function changed() {
  composer.live = store.live !== null;
  list.current = store.conversation;
  settings.values = store.settings;
  temporary.show(store);
  element("title").textContent = store.title || WORDS.untitled;
  document.title = store.title || WORDS.product;
}

function status() {
  element("status").textContent = statusText(socket.state, model, socket.restarting);
}

function modelIs(/** @type {any} */ frame) {
  model = frame;
  settings.defaults = frame.defaults;
}

function received(/** @type {any} */ frame) {
  if (frame.type === "status" || frame.type === "hello") {
    if (frame.type === "status") modelIs(frame);
    element("model").textContent = frame.model;
    status();
  } else if (frame.type === "server.restarting") {
    status();
  } else if (frame.type === "conversation.changed") {
    list.refresh();
    if (frame.conversation === store.conversation) conversation.show(frame.conversation);
  } else if (frame.type === "error") {
    problem.refused(new Refusal(frame));
  } else if (!store.apply(frame)) {
    conversation.repair();
  } else if (frame.type === "generation.finished") {
    changed();
    if (frame.reason === "interrupted" && store.conversation) conversation.show(store.conversation); // the stored text counts
  }
}

/** Fetch what was missed, and watch again: a socket that has opened knows nothing of the one before. */
function opened() {
  list.refresh();
  if (store.conversation) conversation.show(store.conversation);
}

/**
 * Carry out what the visitor wants of a message.
 * @param {{does: string, message: import("./state/store.js").Shown, detail: any}} wish
 */
function act({ does, message, detail }) {
  if (does === "regenerate") turns.regenerate(message);
  else if (does === "resubmit") turns.resubmit(message, detail);
  else if (does === "continue") turns.goOn(message);
  else if (does === "leave") conversation.stop();
  else if (does === "rate") conversation.rate(message, detail);
  else if (does === "before" || does === "after") conversation.turnTo(detail);
  else if (does === "delete") askToDelete(message);
  if (["regenerate", "resubmit", "continue", "leave"].includes(does)) composer.focus(); // the button vanishes
}

function askToDelete(/** @type {import("./state/store.js").Shown} */ message) {
  const asked = dialog("delete-dialog");
  asked.returnValue = "";
  asked.showModal();
  asked.onclose = () => {
    if (asked.returnValue !== "delete") return;
    conversation.remove(message);
    composer.focus();
  };
}

/**
 * Set how answers are made, in the open conversation or in the new one.
 * @param {Record<string, unknown>} values
 */
async function configure(values) {
  await conversation.configure(values);
  if (store.conversation === null) drafts.keep(null, { settings: values });
}

/** @param {boolean} chosen whether the new chat is to be temporary */
function choose(chosen) {
  store.plan(store.settings, chosen);
  drafts.keep(null, { temporary: chosen });
  temporary.show(store);
  composer.focus();
}

socket.addEventListener("frame", (event) => received(/** @type {CustomEvent} */ (event).detail));
socket.addEventListener("state", () => {
  status();
  if (socket.state === "open") opened();
});
conversation.addEventListener("changed", changed);
conversation.addEventListener("gone", (event) => {
  leaveGone();
  if (/** @type {CustomEvent} */ (event).detail) problem.say(WORDS.gone);
});
drafts.addEventListener("kept", (event) => {
  if (/** @type {CustomEvent} */ (event).detail) problem.retract(WORDS.notKept);
  else problem.say(WORDS.notKept);
});
thread.addEventListener("act", (event) => act(/** @type {CustomEvent} */ (event).detail));
thread.addEventListener("earlier", () => conversation.earlier());
composer.addEventListener("stop", () => conversation.stop());
composer.addEventListener("recall", () => thread.editLast());
temporary.addEventListener("chosen", (event) => choose(/** @type {CustomEvent} */ (event).detail));
list.addEventListener("open", (event) => go(`/c/${/** @type {CustomEvent} */ (event).detail}/`));
list.addEventListener(
  "removed",
  (event) => /** @type {CustomEvent} */ (event).detail === store.conversation && leaveGone(),
);
list.addEventListener("failed", () => problem.say(WORDS.notDone));
new Announcer(element("announced-log"), store, (message) => thread.textOf(message));
themeSwitch(element("theme"));
for (const form of document.querySelectorAll("form.language")) languageSwitch(/** @type {HTMLFormElement} */ (form));

element("new").addEventListener("click", (event) => {
  if (/** @type {MouseEvent} */ (event).metaKey || /** @type {MouseEvent} */ (event).ctrlKey) return;
  event.preventDefault();
  go("/");
});
element("greeting").addEventListener("click", (event) => {
  const question = /** @type {HTMLElement} */ (event.target).closest(".try")?.textContent;
  if (!question || composer.sending) return;
  composer.text = question;
  turns.send(question);
  composer.focus();
});
element("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address stays
  element("text").focus();
});
element("settings-button").addEventListener("click", () => settings.open());
element("shortcuts-button").addEventListener("click", () => dialog("shortcuts").showModal());
nameKeys(dialog("shortcuts"));
shortcuts({
  "/": () => dialog("shortcuts").showModal(),
  k: () => {
    drawer.toggle(true);
    list.search();
  },
  "shift+o": () => go("/"),
  "shift+s": () => drawer.toggle(),
});
addEventListener("keydown", (event) => {
  const elsewhere =
    event.defaultPrevented ||
    isComposing(event) ||
    /** @type {Element} */ (event.target).matches("#search") ||
    document.querySelector("dialog[open], :popover-open");
  if (event.key === "Escape" && !elsewhere) conversation.stop();
});
addEventListener("popstate", navigate);
if (composer.text && !drafts.of(addressed()).text) drafts.keep(addressed(), { text: composer.text }); // typed before this
navigate();
watchAccount(left);
if (document.body.dataset.session === "none") await fetchAccount(); // it begins a session for browsers that keep cookies
socket.connect();
