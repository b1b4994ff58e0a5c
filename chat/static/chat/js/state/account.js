/** Knows whose page this is, and notices that its browser has become somebody else's meanwhile. */

const KEY = "account";

/** The account that is signed in on this page; "" where nobody is. */
export const account = globalThis.document?.getElementById("main")?.dataset.account ?? "";

/**
 * Tell the other pages of the browser whose this one is. Call `left` when one of them tells that it is another's,
 * because somebody signed in or out there.
 * @param {() => void} left
 */
export function watchAccount(left) {
  const look = () => {
    if ((read() ?? account) !== account) left();
  };
  try {
    localStorage.setItem(KEY, account);
  } catch {
    // Without a storage the server tells, when it ends the session of the socket.
  }
  addEventListener("storage", ({ key }) => key === KEY && look());
  addEventListener("pageshow", ({ persisted }) => persisted && look());
}

function read() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
