/**
 * Decides how much of the text that has come is drawn at a time. Deltas come in gathers, some every 30 to 50 ms; drawn
 * as they come the text would move in jerks, so each drawing takes a share of what is left. What lags behind is made up
 * for: the more is left, the more is drawn.
 */

const SPREAD = 120; // milliseconds over which a gather is drawn, about

/**
 * Return what is to be drawn now.
 * @param {string} text what has come and is not drawn
 * @param {number} elapsed milliseconds since the drawing before
 * @returns {string} its beginning, which never ends inside a character
 */
export function portion(text, elapsed) {
  const length = Math.ceil((text.length * elapsed) / SPREAD);
  if (length >= text.length) return text;
  const cut = isLead(text.charCodeAt(length - 1)) ? length + 1 : length;
  return text.slice(0, cut);
}

/**
 * Say whether a unit of UTF-16 is the first of the two of a character.
 * @param {number} unit
 */
function isLead(unit) {
  return unit >= 0xd800 && unit < 0xdc00;
}
