/**
 * The Markdown that answers are written in: CommonMark without HTML, with GitHub's tables, strikethrough and bare
 * addresses, and with formulas. The parser makes tokens, of blocks and then of what is inside them; it knows nothing of the page.
 */

import { math } from "./math.js";
import { strikethrough } from "./strikethrough.js";
import MarkdownIt from "../../../vendor/markdown-it/markdown-it.esm.min.mjs";

/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").Token} Token */
/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").Env} Env */
/** @typedef {import("../../../vendor/markdown-it/markdown-it.esm.min.mjs").MarkdownIt} Parser */

/** The parser of what is finished. */
export const parser = build();

/** The parser of what may go on: there a definition of a link is text, since nobody knows yet that it is one. */
export const draft = build();
draft.block.ruler.disable("reference");

function build() {
  const markdown = new MarkdownIt({ html: false, linkify: true }).use(strikethrough).use(math);
  markdown.core.ruler.enableOnly(["inline", "linkify", "text_join"]); // blocks are parsed apart
  markdown.linkify.add("ftp:", null).add("//", null);
  markdown.linkify.add("www.", {
    validate: (text, place, { re }) => {
      const host = re.get_relative_proto_validator();
      host.lastIndex = place;
      return host.exec(text)?.[0].length ?? 0;
    },
    normalize: (match) => {
      match.url = `http://${match.url}`;
    },
  });
  return markdown;
}

/**
 * Return the tokens of the blocks of a text. What stands inside them is not parsed yet.
 * @param {Parser} markdown
 * @param {string} text
 * @param {Env} env takes the definitions of links
 */
export function parseBlocks(markdown, text, env) {
  /** @type {Token[]} */
  const tokens = [];
  markdown.block.parse(text, markdown, env, tokens);
  return tokens;
}

/**
 * Return the tokens of what stands inside a block.
 * @param {string} content
 * @param {Env} env has the definitions of links
 */
export function parseInline(content, env) {
  const state = new parser.core.State(content, parser, env);
  const token = new state.Token("inline", "", 0);
  token.content = content;
  token.children = [];
  state.tokens = [token];
  parser.core.process(state);
  return token.children;
}
