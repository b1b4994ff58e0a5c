/**
 * Keeps what was begun and not accepted yet over a reload: for each conversation the text in the box, for a new one
 * also what it is to be, and for each answer a comment on it. A text that was sent is kept with the frame it was sent
 * as: sent again under the same id, it is carried out once.
 */

/** @typedef {{type: string, id: string, text: string, [field: string]: unknown}} Frame */
/** @typedef {{text: string, frame?: Frame, settings?: Record<string, unknown>, temporary?: boolean}} Draft */

const PREFIX = "draft:";

/**
 * Return the draft of a conversation or, by the id of an answer, of a comment on it.
 * @param {string | null} conversation null: a new one
 * @returns {Draft}
 */
export function draftOf(conversation) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + (conversation ?? "new")) ?? "") ?? { text: "" };
  } catch {
    return { text: "" };
  }
}

/**
 * Change a draft. One in which nothing is left is dropped.
 * @param {string | null} conversation
 * @param {Partial<Draft>} changes a text that is not of the frame leaves the frame behind
 */
export function keepDraft(conversation, changes) {
  const draft = { ...draftOf(conversation), ...changes };
  if (draft.frame && draft.frame.text !== draft.text) delete draft.frame;
  const empty = !draft.text && draft.temporary === undefined && !Object.keys(draft.settings ?? {}).length;
  const key = PREFIX + (conversation ?? "new");
  try {
    if (empty) localStorage.removeItem(key);
    else localStorage.setItem(key, JSON.stringify(draft));
  } catch {
    // A full or forbidden storage: the text is still in the box.
  }
}

/** @param {string | null} conversation */
export function dropDraft(conversation) {
  try {
    localStorage.removeItem(PREFIX + (conversation ?? "new"));
  } catch {
    // There is none where there is no storage.
  }
}
