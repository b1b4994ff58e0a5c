// The libraries under the addresses they are served at.
declare module "*/vendor/markdown-it/markdown-it.esm.min.mjs" {
  export { default, type Env, type MarkdownIt, type StateBlock, type StateInline, type Token } from "markdown-it";
}
declare module "*/vendor/highlight/es/highlight.min.js" {
  const hljs: any;
  export default hljs;
}
declare module "*/vendor/katex/katex.min.js" {}
