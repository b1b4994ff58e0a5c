/** Notices that the page may have been asleep, or without a network, so that what was connected may be dead. */

const EVERY = 1_000;
const LATE = 3_000; // a timer that comes so late was stopped meanwhile

/**
 * Call `does` whenever the page is shown again, thawed or online again, or the machine has woken beneath it.
 * @param {() => void} does
 */
export function onWaking(does) {
  addEventListener("online", does);
  addEventListener("pageshow", (event) => event.persisted && does());
  document.addEventListener("resume", does);
  document.addEventListener("visibilitychange", () => document.hidden || does());
  let last = Date.now();
  setInterval(() => {
    const late = Date.now() - last > LATE;
    last = Date.now();
    if (late && !document.hidden) does(); // browsers slow the timers of hidden pages down
  }, EVERY);
}
