import js from "@eslint/js";
import globals from "globals";

/** The folders of the page's scripts from the top down; those of one line do not know of one another. */
const LAYERS = [
  ["conversation"],
  ["thread", "sidebar", "composer"],
  ["markdown"],
  ["controls"],
  ["language"],
  ["state"],
  ["connection"],
];

/**
 * Let the scripts of a folder import from that folder and from those below it. Types in comments count as well:
 * `collectstatic` reads them as imports, and cannot name files after their content if they go round in a circle.
 * @param {string} folder
 * @param {string[]} below
 */
function downwards(folder, below) {
  const others = LAYERS.flat().filter((other) => other !== folder && !below.includes(other));
  const regex = `^\\.\\./(?!(${[...below, "../../vendor"].join("|")})/)`;
  const message = "Scripts import from their own folder and from those below it (eslint.config.js).";
  return {
    files: [`**/chat/js/${folder}/**`],
    rules: {
      "no-restricted-imports": ["error", { patterns: [{ regex, message }] }],
      "no-warning-comments": ["error", { terms: others.map((other) => `import("../${other}/`), location: "anywhere" }],
    },
  };
}

export default [
  js.configs.recommended,
  {
    languageOptions: { globals: globals.browser },
    rules: {
      eqeqeq: "error",
      "no-var": "error",
      "prefer-const": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
    },
  },
  downwards("*", []), // folders that are not listed
  ...LAYERS.flatMap((folders, depth) => folders.map((folder) => downwards(folder, LAYERS.slice(depth + 1).flat()))),
];
