/** Writes trees as the HTML that the specifications of Markdown show. */

/** @typedef {import("../../chat/static/chat/js/markdown/tree.js").Node} Tree */

const BLOCKS = "p|ul|ol|li|blockquote|h[1-6]|hr|pre|table|thead|tbody|tr|th|td";
const AROUND = new RegExp(`\\n*(</?(?:${BLOCKS})(?: [^>]*)?>)\\n*`, "g");

/** @type {Record<string, string>} */
const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/**
 * @param {Tree} tree
 * @returns {string}
 */
export function htmlOf(tree) {
  if (typeof tree === "string") return escaped(tree);
  const { tag, attributes, children, text } = tree;
  const { language, checked, ...others } = attributes;
  delete others.linked; // an image in a link is drawn without one of its own
  if (tag === "pre") {
    const kind = language === undefined ? {} : { class: `language-${language}` };
    return `<pre>${opening("code", kind)}${escaped(text)}</code></pre>`;
  }
  if (tag === "input") return `<input${checked === "true" ? ' checked=""' : ""} disabled="" type="checkbox"> `;
  const open = opening(tag, others);
  if (["br", "hr", "img"].includes(tag)) return open.replace(/>$/, " />");
  return `${open}${children.map(htmlOf).join("")}</${tag}>`;
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 */
function opening(tag, attributes) {
  const all = Object.entries(attributes).map(([name, value]) => ` ${name}="${escaped(value)}"`);
  return `<${tag}${all.join("")}>`;
}

/**
 * Leave out of HTML the line ends that say nothing: those around blocks and behind breaks.
 * @param {string} html
 */
export function normalized(html) {
  const parts = html.replace(/<br \/>\n/g, "<br />").split(/(<pre>.*?<\/pre>)/s);
  return parts.map((part, place) => (place % 2 ? part : part.replace(AROUND, "$1").trim())).join("");
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character]);
}
