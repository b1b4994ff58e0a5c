/** Says where links may lead. What a model writes is not trusted. */

const SCHEMES = ["http:", "https:", "mailto:"];

/**
 * Make an element lead to an address, if it is one of the web or of mail. It has to be absolute: a model knows no pages
 * of this site.
 * @param {HTMLAnchorElement} link
 * @param {string} address
 */
export function lead(link, address) {
  if (!isSafe(address)) return;
  link.href = address;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
}

/** @param {string} address */
function isSafe(address) {
  try {
    return SCHEMES.includes(new URL(address).protocol);
  } catch {
    return false;
  }
}
