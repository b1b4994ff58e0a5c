/** Knows what keys mean: which Enter sends, which keys belong to a composition, what the page's shortcuts are. */

/**
 * Say whether a key sends what was written: Enter does, but not one that makes a new line, nor one that ends a
 * composition (Japanese, Chinese, Korean).
 * @param {KeyboardEvent} event
 */
export function isSending(event) {
  return event.key === "Enter" && !event.shiftKey && !isComposing(event);
}

/**
 * Say whether a key belongs to a composition.
 * @param {KeyboardEvent} event
 */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229; // Safari ends a composition before the keydown of this Enter
}

/** Say whether Command is what Ctrl is elsewhere, as with Apple, where Ctrl edits text as in Emacs. */
function isApple() {
  const { userAgentData, platform } = /** @type {Navigator & {userAgentData?: {platform: string}}} */ (navigator);
  return /mac|iphone|ipad|ios/i.test(userAgentData?.platform || platform);
}

/**
 * Name the keys of shortcuts by what is on the visitor's keyboard.
 * @param {ParentNode} root where they are named
 */
export function nameKeys(root) {
  if (!isApple()) return;
  for (const key of root.querySelectorAll("[data-command]")) key.textContent = "⌘";
}

/**
 * Listen for shortcuts, which hold everywhere on the page, with Ctrl or, on a Mac, Command.
 * @param {Record<string, () => void>} does by key, `shift+` before those with Shift
 */
export function shortcuts(does) {
  const apple = isApple();
  addEventListener("keydown", (event) => {
    const [command, other] = apple ? [event.metaKey, event.ctrlKey] : [event.ctrlKey, event.metaKey];
    if (!command || other || event.altKey || document.querySelector("dialog[open]")) return;
    const wanted = does[(event.shiftKey ? "shift+" : "") + event.key.toLowerCase()];
    if (!wanted) return;
    event.preventDefault();
    wanted();
  });
}
