/** Markdown: what its specifications show, the same in whatever pieces it comes, and no more work than that takes. */

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { Answer, draft, parser, streamed, trees, whole } from "./drawn.js";
import { EXAMPLES } from "./gfm.js";
import { htmlOf, normalized } from "./html.js";
import { numbers, pieces, text } from "./random.js";

const { default: MarkdownIt } = await import("../../chat/static/vendor/markdown-it/markdown-it.esm.min.mjs");
const require = createRequire(new URL("../../chat/package.json", import.meta.url));

/** @type {{number: number, markdown: string, html: string}[]} */
const COMMONMARK = require("commonmark-spec").tests.map((/** @type {any} */ { number, markdown, html }) => ({
  number,
  markdown: markdown.replaceAll("→", "\t"),
  html: html.replaceAll("→", "\t"),
}));

/** @param {string} text */
function hasHtml(text) {
  const blocks = new MarkdownIt("commonmark").parse(text, {});
  return blocks.some(
    ({ type, children }) => type === "html_block" || children?.some(({ type }) => type === "html_inline"),
  );
}

/** @param {string} text */
function html(text) {
  return normalized(trees(text).map(htmlOf).join(""));
}

test("each example of CommonMark without HTML is what the specification shows", () => {
  const examples = COMMONMARK.filter(({ markdown }) => !hasHtml(markdown));
  assert.ok(examples.length >= 555, `${examples.length}`);
  parser.set({ linkify: false }); // bare addresses are GitHub's
  for (const { number, markdown, html: expected } of examples)
    assert.equal(html(markdown), normalized(expected), `example ${number}`);
  parser.set({ linkify: true });
});

test("each example of GitHub's tables, boxes, strikethrough and addresses is what its specification shows", () => {
  for (const [number, [markdown, expected]] of Object.entries(EXAMPLES))
    assert.equal(html(markdown), normalized(expected), `example ${number}`);
});

/** What a later line makes something else of, though other blocks seem to have begun between. */
const TURNING = [
  "[a]: /u\n'foo\n===\nmore\nend'\n\n[a]\n",
  "[a\n===\nb\nc]: /u\n\n[a === b c]\n",
  "> [a]: /u\n'ti\nq\n> [a]: /u\ntle'\n\n[a]\n",
  "- [a]: /u\n'foo\nbar\nbaz'\n\n[a]\n",
  "- # a\n\n- # b\n- c\n",
  "a\n\u3000\nb\n\n> c\n>\u3000\n> d\n\n- e\n\u3000\n- f\n",
];

test("each example is drawn the same wherever it is cut, and character by character", () => {
  const examples = [...COMMONMARK.map(({ markdown }) => markdown), ...Object.values(EXAMPLES).map(([text]) => text)];
  const texts = [...examples, ...TURNING];
  for (const text of texts) {
    const expected = whole(text);
    assert.equal(streamed([text]), expected);
    assert.equal(streamed(text.split("")), expected, text);
    for (let cut = 1; cut < text.length; cut++)
      assert.equal(streamed([text.slice(0, cut), text.slice(cut)]), expected, JSON.stringify([text, cut]));
  }
});

test("long texts of lines that depend on one another are drawn the same in whatever pieces they come", () => {
  for (let seed = 0; seed < 800; seed++) {
    const random = numbers(seed);
    const long = text(random);
    const expected = whole(long);
    for (const length of [1, 4, 30]) {
      const cut = pieces(long, length, random);
      assert.equal(streamed(cut), expected, `seed ${seed}: ${JSON.stringify(cut)}`);
    }
  }
});

test("the cells that a table lacks are made up for as far as in a table that comes whole", () => {
  const columns = 600;
  const table = `|${"a|".repeat(columns)}\n|${"-|".repeat(columns)}\n${"|\n".repeat(120)}`;
  const [once, cut] = [[table], pieces(table, 100, numbers(1))].map((pieces) => {
    const answer = new Answer();
    for (const piece of pieces) answer.append(piece);
    return answer.element.querySelector("tbody").children.length;
  });
  assert.ok(once < 120);
  assert.equal(cut, once);
});

test("what is open may look unfinished, and is all there", () => {
  const answer = new Answer().append("Some **bo");
  assert.equal(answer.text, "Some **bo");
  assert.equal(answer.append("ld** text").text, "Some bold text");
  answer.append("\n\n[a]: http://e");
  assert.equal(answer.text, "Some bold text[a]: http://e"); // a definition, or a sentence that begins like one
  assert.equal(answer.append(".org is it").end().text, "Some bold text[a]: http://e.org is it");
});

test("lines of code show as they come", () => {
  const answer = new Answer().append("```py\nif x:\n    y = 1");
  assert.equal(answer.text, "pyif x:\n    y = 1");
  assert.equal(answer.append("0\n\n``").text, "pyif x:\n    y = 10\n\n");
  assert.equal(answer.append("`\r\n").end().text, "pyif x:\n    y = 10\n\n");
});

test("a line that only begins to be a heading, an item or bold text changes nothing yet", () => {
  for (const [before, more, tag] of [
    ["Foo\n-", " bar", "UL"],
    ["Foo\n\n#", " bar", "H1"],
    ["Foo\n\n*", "*bar**", "P"],
  ]) {
    const answer = new Answer().append(before);
    assert.deepEqual(answer.tags, ["P"]);
    assert.deepEqual(answer.append(more).tags, ["P", tag]);
  }
});

test("a link whose definition comes after it becomes one at the end, and nothing else is touched", () => {
  const answer = new Answer().append("One [a] and [b].\n\n- two [a]\n- [b]\n- x\n\nThree.\n\n");
  const [one, two, three] = answer.element.children;
  answer.append("[b]: /nowhere\n[a]: http://e.org/ 'T'\n\nFour [a].\n\nFive.");
  assert.deepEqual(answer.element.children.slice(0, 3), [one, two, three]);
  assert.ok(answer.outline.includes('"href":"http://e.org/"')); // four's
  assert.equal(answer.outline.match(/"title":"T"/g)?.length, 1);
  answer.end();
  assert.equal(answer.outline.match(/"title":"T"/g)?.length, 3);
  assert.equal(answer.element.children[2], three);
  assert.notEqual(answer.element.children[0], one);
});

test("finished blocks, items and rows stay the elements they were", () => {
  const answer = new Answer();
  const source = "# a\n\n- b\n- c\n\n  d\n- e\n\n| f |\n|---|\n| g |\n| h |\n\n> i\n>\n> j\n\n```\nk\n```\n\nl\n";
  /** @type {any[]} */
  let known = [];
  for (const piece of source) {
    answer.append(piece);
    const finished = answer.element.children.slice(0, -2);
    assert.ok(known.every((element, place) => finished[place] === element));
    known = finished;
  }
  const [list, table] = [new Answer().append("- a\n- b\n"), new Answer().append("| a |\n|---|\n| b |\n| c |\n")];
  for (const [{ element }, tag] of /** @type {[Answer, string][]} */ ([
    [list, "li"],
    [table, "td"],
  ]))
    element.finished = element.querySelector(tag);
  list.append("- c\n\n- d\n");
  table.append("| d |\n");
  assert.equal(list.element.querySelector("li"), list.element.finished);
  assert.equal(list.element.finished.firstChild.nodeName, "P"); // loose, since d
  assert.equal(table.element.querySelector("td"), table.element.finished);
});

/**
 * Return how many characters are parsed, in blocks or inside them, to draw a text that comes in pieces.
 * @param {string} text
 */
function parsed(text) {
  let count = 0;
  const parts = [parser.block, draft.block, parser.inline].map((part) => ({ part, parse: part.parse }));
  for (const { part, parse } of parts) {
    part.parse = (/** @type {any[]} */ ...args) => {
      count += args[0].length;
      return parse.apply(part, /** @type {any} */ (args));
    };
  }
  streamed(pieces(text, 20, numbers(1)));
  for (const { part, parse } of parts) part.parse = parse;
  return count;
}

test("four times the text is about four times the work, in whatever one block it stands", () => {
  const kinds = {
    list: ["", "- item with **some** text in it\n"],
    "loose list": ["", "1. item\n\n   more of it\n\n"],
    table: ["| a | b |\n|---|---|\n", "| one cell | two **b** |\n"],
    code: ["```py\n", "x = compute(a, b)\n"],
    quote: ["", "> some text\n>\n> - more\n>\n"],
    definitions: ["", "[name]: http://e.org/some/where\n"],
    paragraphs: ["", "Some **text** as it is written.\n\n"],
  };
  for (const [kind, [head, line]] of Object.entries(kinds)) {
    const [once, more] = [50, 200].map((count) => parsed(head + line.repeat(count)));
    assert.ok(more < 4.5 * once, `${kind}: ${once}, ${more}`);
    assert.ok(more < 30 * 200 * line.length, `${kind}: ${more}`);
  }
});

test("a long paragraph is not parsed again for every piece", () => {
  const [once, more] = [250, 1000].map((count) => inside("some **text** of `it`, ".repeat(count)));
  assert.ok(more < 6 * once, `${once}, ${more}`);
});

/**
 * Return how many characters inside blocks are parsed.
 * @param {string} text
 */
function inside(text) {
  const { parse } = parser.inline;
  let count = 0;
  parser.inline.parse = (...args) => {
    count += args[0].length;
    return parse.apply(parser.inline, args);
  };
  streamed(pieces(text, 20, numbers(1)));
  parser.inline.parse = parse;
  return count;
}
