// The libraries under the addresses they are served at.
declare module "*/vendor/streaming-markdown/smd.min.js" {
  export * from "streaming-markdown";
}
declare module "*/vendor/highlight/es/highlight.min.js" {
  const hljs: any;
  export default hljs;
}
