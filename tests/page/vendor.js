/** Lets scripts of the page be loaded without a server: their libraries come from where they are installed. */

import { registerHooks } from "node:module";

const MODULES = new URL("../../chat/node_modules/", import.meta.url);

/** @type {Record<string, string>} */
const FOLDERS = { "markdown-it": "markdown-it/dist/browser" };

/** The highlighter, which knows no language. */
const PLAIN = "data:text/javascript,export default { getLanguage() {} }";

/** KaTeX, which is not there. */
const NONE = "data:text/javascript,throw new Error()";

/** @type {Record<string, string>} */
const OTHERS = { highlight: PLAIN, katex: NONE };

registerHooks({
  resolve(specifier, context, next) {
    const [, name, path] = /\/vendor\/([^/]+)\/(.*)$/.exec(specifier) ?? [];
    if (!name) return next(specifier, context);
    const url = OTHERS[name] ?? new URL(`${FOLDERS[name]}/${path}`, MODULES).href;
    return { url, shortCircuit: true };
  },
});
