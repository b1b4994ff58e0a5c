/**
 * GitHub's strikethrough: text between one tilde or two on each side. The parser's own knows two only, and takes two of
 * three.
 */

/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").MarkdownIt} Parser */
/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").StateInline} State */

/**
 * Give a parser this strikethrough instead of its own.
 * @param {Parser} markdown
 */
export function strikethrough(markdown) {
  markdown.inline.ruler.at("strikethrough", tokenize);
  markdown.inline.ruler2.at("strikethrough", (state) => {
    strike(state, state.delimiters);
    for (const meta of state.tokens_meta) if (meta?.delimiters) strike(state, meta.delimiters);
  });
}

/**
 * A single tilde inside a word is one: `10~20` is a range.
 * @param {State} state
 * @param {boolean} silent
 */
function tokenize(state, silent) {
  if (silent || state.src[state.pos] !== "~") return false;
  const single = state.src[state.pos + 1] !== "~";
  const { can_open: open, can_close: close, length } = state.scanDelims(state.pos, !single);
  state.push("text", "", 0).content = "~".repeat(length);
  state.pos += length;
  if (length < 3) {
    const token = state.tokens.length - 1;
    state.delimiters.push({ marker: -length, length: 0, token, end: -1, open, close }); // pairs have one length
  }
  return true;
}

/**
 * @param {State} state
 * @param {State["delimiters"]} delimiters in pairs, as far as they have an end
 */
function strike(state, delimiters) {
  for (const { marker, token, end } of delimiters) {
    if (marker >= 0 || end < 0) continue;
    Object.assign(state.tokens[token], { type: "s_open", tag: "del", nesting: 1, content: "" });
    Object.assign(state.tokens[delimiters[end].token], { type: "s_close", tag: "del", nesting: -1, content: "" });
  }
}
