/** Says under which heading of the list a conversation stands. */

import { language } from "../language/i18n.js";
import { WORDS } from "../language/words.js";

const month = new Intl.DateTimeFormat(language, { month: "long" });
const monthOfYear = new Intl.DateTimeFormat(language, { month: "long", year: "numeric" });

/**
 * Return the heading of a conversation, by the day of its last change.
 * @param {{updated: string, pinned?: boolean}} conversation
 * @param {Date} now
 */
export function heading({ updated, pinned }, now = new Date()) {
  if (pinned) return WORDS.pinned;
  const day = new Date(updated);
  const days = Math.round((midnight(now) - midnight(day)) / 86_400_000); // rounded: a day may have 23 or 25 hours
  if (days <= 0) return WORDS.today;
  if (days === 1) return WORDS.yesterday;
  if (days <= 7) return WORDS.week;
  return (day.getFullYear() === now.getFullYear() ? month : monthOfYear).format(day);
}

/** @param {Date} date */
function midnight(date) {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
}
