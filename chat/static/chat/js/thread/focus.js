/** Keeps the focus in the thread when what has it goes. */

/**
 * Make a change to the thread. If what had the focus is gone after it, the focus passes to the same button of the message
 * that stands in its place then, or to that message itself.
 * @param {HTMLElement} thread
 * @param {() => void} change
 */
export function holdingFocus(thread, change) {
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  const place = [...thread.children].findIndex((message) => message.contains(focused));
  change();
  if (place < 0 || (focused?.isConnected && isVisible(focused))) return;
  const heir = [...thread.children].filter((each) => each instanceof HTMLElement)[place] ?? thread.lastElementChild;
  if (heir instanceof HTMLElement) focusAt(heir, focused?.dataset.does ?? "");
}

/**
 * @param {HTMLElement} message
 * @param {string} does what the button does that had the focus; "" if it was none
 */
function focusAt(message, does) {
  const arrows = ["before", "after"].includes(does) ? ["before", "after"] : [];
  const buttons = [does, ...arrows].map((each) => message.querySelector(`button[data-does="${each}"]:enabled`));
  const button = buttons.find((each) => each && isVisible(each));
  if (!button) message.tabIndex = -1;
  /** @type {HTMLElement} */ (button ?? message).focus({ preventScroll: true });
}

/** @param {Element} element */
function isVisible(element) {
  return element.checkVisibility({ visibilityProperty: true });
}
