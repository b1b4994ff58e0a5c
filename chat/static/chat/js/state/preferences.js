/**
 * Has the browser keep how the page looks: in cookies, because the server writes them into the page, so that nothing
 * flashes.
 */

/**
 * Set a preference for the page (an attribute of its root) and for the ones to come.
 * @param {"theme" | "sidebar"} name
 * @param {string | null} value null: the default
 */
export function prefer(name, value) {
  const root = document.documentElement;
  if (value === null) delete root.dataset[name];
  else root.dataset[name] = value;
  const lifetime = value === null ? "max-age=0" : "max-age=31536000";
  document.cookie = `${name}=${value ?? ""}; path=/; ${lifetime}; samesite=lax`;
}

/**
 * Have radio buttons switch the theme.
 * @param {HTMLElement} group its buttons: system, light, dark
 */
export function themeSwitch(group) {
  for (const input of group.querySelectorAll("input")) {
    input.checked = input.value === (document.documentElement.dataset.theme ?? "system");
    input.addEventListener("change", () => prefer("theme", input.value === "system" ? null : input.value));
  }
}
