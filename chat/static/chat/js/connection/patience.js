/** Says how long the server is waited for over HTTP, and how often it is asked. Knows a clock, and no requests. */

const USUAL = [10_000, 20_000];
const AFTER_SILENCE = [1_000, 1_000, 1_000, 1_000, 20_000];
const SUSPICIOUS = 30_000; // milliseconds after which connections that were kept have been used again, or given up

let silence = -Infinity;

/**
 * Note that a connection turned out to be dead without having been closed. Those that the browser keeps for requests
 * may be so too, and it finds that out one by one, by what gets no answer.
 */
export function noteSilence() {
  silence = performance.now();
}

/** Return for how many milliseconds each attempt to ask waits for its answer, in their order. */
export function attempts() {
  return performance.now() - silence < SUSPICIOUS ? AFTER_SILENCE : USUAL;
}
