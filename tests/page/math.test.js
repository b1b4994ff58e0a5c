/** Formulas: what is one, and what only has dollars or brackets in it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Answer, trees } from "./drawn.js";

/** @typedef {import("../../chat/static/chat/js/markdown/tree.js").Node} Tree */

/**
 * Return the formulas of a text, each with its place.
 * @param {string} text
 */
function formulas(text) {
  /** @type {string[]} */
  const found = [];
  const collect = (/** @type {Tree} */ tree) => {
    if (typeof tree === "string") return;
    if (tree.tag === "math") found.push(`${tree.attributes.place}: ${tree.text}`);
    tree.children.forEach(collect);
  };
  trees(text).forEach(collect);
  return found;
}

test("formulas are found in a line and on lines of their own", () => {
  /** @type {[string, string[]][]} */
  const cases = [
    ["Let $x_1$ and \\(y_2\\) be.", ["line: x_1", "line: y_2"]],
    ["the $n$th, $a$-b, ($c$), $d$.", ["line: n", "line: a", "line: c", "line: d"]],
    ["so $$x$$ and \\[y\\] here", ["display: x", "display: y"]],
    ["$$x$$\n\n\\[ y \\]", ["block: x", "block: y"]],
    ["Then:\n$$\na\n- b\n= c\n$$\nand", ["block: a\n- b\n= c"]],
    [
      "\\[\n\\begin{aligned} a &= b \\\\ &= c \\end{aligned}\n\\]",
      ["block: \\begin{aligned} a &= b \\\\ &= c \\end{aligned}"],
    ],
    ["$$ a\n+ b $$", ["block: a\n+ b"]],
    ["- $x$\n\n  $$\n  y\n  $$\n\n> \\[\n> z\n> \\]", ["line: x", "block: y", "block: z"]],
    ["| $a$ | b |\n|---|---|\n| \\(c\\) | d |", ["line: a", "line: c"]],
    ["# $h$\n\n**$b$** [$l$](http://e.org)", ["line: h", "line: b", "line: l"]],
    ["$a*b*c$ $a_1 + b_1$ $\\$5$ $x\ny$", ["line: a*b*c", "line: a_1 + b_1", "line: \\$5", "line: x\ny"]],
    ["$$x$$, where", ["display: x"]],
  ];
  for (const [text, expected] of cases) assert.deepEqual(formulas(text), expected, text);
});

test("prices, variables of a shell and brackets stay text", () => {
  const texts = [
    "$20,000 and $30,000, $5-$10, $ 5$ or 10 $ and $",
    "Set $PATH and `$HOME`, `a$b` and `c$d`.",
    "\\$x\\$ and $x\\$",
    "`$x$` and `\\(y\\)`",
    "```\n$$\nx\n$$\n```\n\n    $$y$$",
    "\\[\\] \\(\\) \\[\\\\\\]",
    "\\[not a link](/foo)",
    "$$ is money\n- and a list\n\nand more$$",
    "$$\nx\n\ny\n$$",
    "$$$ $$$$ $$",
    "a $$x$ b",
  ];
  for (const text of texts) assert.deepEqual(formulas(text), [], text);
  assert.equal(trees("$$ is money\n- and a list\n").length, 2);
});

test("a formula is shown as it is written until its end has come", () => {
  const answer = new Answer().append("Let $x");
  assert.equal(answer.text, "Let $x");
  answer.append("^2$ be\n\n$$\na\n- b");
  assert.deepEqual(answer.tags, ["P", "P"]);
  assert.equal(answer.element.lastChild.textContent, "$$\na\n- b");
  assert.deepEqual(answer.append("\n$$\n").tags, ["P", "DIV"]);
  assert.equal(answer.element.lastChild.dataset.source, "$$\na\n- b\n$$");
});

test("what began like a formula and is none is what it would be without it", () => {
  const answer = new Answer().append("$$\na\n- b\n");
  assert.deepEqual(answer.tags, ["P"]);
  assert.deepEqual(answer.append("\nc").tags, ["P", "UL", "P"]);
  assert.deepEqual(new Answer().append("$$\na\n- b").end().tags, ["P", "UL"]);
});
