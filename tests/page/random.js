/** Texts for which it matters where they are cut, and places to cut them at: the same ones every time. */

/** Lines that have to do with each other. */
const THEMES = [
  "[a]: /u|[a]: /u|'ti|tle'|===|---|foo|[b]:|/v|[a]|[a] [b]|- [a]: /u|> [a]: /u||  'x|[c|d]: /w|\"q|q\"|# h|```|[a]: <|¦ a ¦|¦---¦",
  "- a|- b|- b|||  para|  - n|1. x|1. y||10. y|- # h|text|   more|* c|-|1.|  ```|    code|- - z|-\tq|  [a]: /u|[a]|+ | - s|   - u|- [ ] t",
  "¦ a ¦ b ¦|¦---¦---¦|¦ 1 ¦ 2 ¦|¦ 1 ¦|¦|¦ 1 ¦ 2 ¦ 3 ¦|a \\¦ b ¦ c|x||--- ¦ ---|¦`¦` ¦ d|- i|> q|  ¦ 5 ¦ 6 ¦|    ¦ 7 ¦ 8 ¦|¦¦|# h",
  "> a|> |> b|>|> - x|> - y|> ```|> ¦ a ¦ b ¦|> ¦---¦---¦|--- ¦ ---|a ¦ b||lazy|>> n|> [a]: /u|> 'ti|> tle'|> [a]|> ===|> # h|>     c|> 1. o",
  "```|```py|~~~|  ```|x||    y|a ¦ b|--- ¦ ---|- i|  z|```a¦b|`|``|````|   ~~~|> f|# h|***|\tcode|        deep",
  '**b|b** *c*|`c|c`|~~s~~ ~t~|[x](y "z")|![i](http://e.org/j)|www.x.org http://e.org/p|a@b.org &amp; &copy|\\* \\|é😀　\u00a0|<b> <http://e.org>|$a$ $$|\\(x\\) \\[|\\]|a  |=|_e_ __f|f__|1.5|#|| - [x] t',
  "$$|$$|\\[|\\]|$$ x|y $$|$$z$$|\\[w\\]|- b|= c|> $$|> d|> $$|- $$|  e|  $$||# h|\\[ f|g \\] h|$i$ $$j|text|k$$ l|\\(m|n\\)|1. o|[a]: /u|---|¦ $p$ ¦ q ¦|¦---¦---¦|$",
].map((theme) => theme.split("|").map((line) => line.replaceAll("¦", "|")));

/**
 * Return numbers from 0 to below 1 that look random (mulberry32).
 * @param {number} seed
 */
export function numbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Return a text of lines of one theme, and some of another.
 * @param {() => number} random
 */
export function text(random) {
  const pick = (/** @type {any[]} */ from) => from[Math.floor(random() * from.length)];
  const [theme, other] = [pick(THEMES), pick(THEMES)];
  const some = random() < 0.5 ? theme : [theme[0], ...theme.filter(() => random() < 0.4)];
  const end = () => (random() < 0.04 ? "" : random() < 0.05 ? "\r\n" : "\n");
  const count = 1 + Math.floor(random() * (random() < 0.2 ? 40 : 14));
  return Array.from({ length: count }, () => pick(random() < 0.85 ? some : other) + end()).join("");
}

/**
 * Cut a text into pieces of about a length.
 * @param {string} text
 * @param {number} length
 * @param {() => number} random
 */
export function pieces(text, length, random) {
  const cut = [];
  for (let end = 0; end < text.length;) cut.push(text.slice(end, (end += 1 + Math.floor(random() * 2 * (length - 1)))));
  return cut;
}
