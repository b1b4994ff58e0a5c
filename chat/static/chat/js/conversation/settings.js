/**
 * Shows the panel with a conversation's settings, which say how its answers are made. What is left empty is as the
 * operator has it.
 */

import { Failure } from "../connection/api.js";
import { announce } from "../controls/announcer.js";
import { defaultText, outOfRangeText, refusalText, tooManyText, WORDS } from "../language/words.js";

/** @typedef {Record<string, unknown>} Values */
/** @typedef {HTMLInputElement | HTMLTextAreaElement} Field */

/** The panel, and the button that opens it. */
export class Settings {
  #dialog;
  #form;
  #problem;
  #button;
  /** @type {(values: Values) => Promise<void>} */
  #save;
  /** @type {Values} those of the open conversation */
  #current = {};

  /**
   * @param {HTMLDialogElement} dialog
   * @param {HTMLElement} button opens it, and shows whether anything is set
   * @param {(values: Values) => Promise<void>} save rejects with a Failure
   */
  constructor(dialog, button, save) {
    this.#dialog = dialog;
    this.#button = button;
    this.#save = save;
    this.#form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
    this.#problem = /** @type {HTMLElement} */ (dialog.querySelector("#settings-problem"));
    this.#form.addEventListener("submit", (event) => this.#submit(event));
    this.#form.addEventListener("input", ({ target }) => this.#mark(/** @type {Field} */ (target), ""));
    dialog.querySelector("#settings-close")?.addEventListener("click", () => dialog.close());
    dialog.querySelector("#settings-reset")?.addEventListener("click", () => this.#fill({}));
  }

  /**
   * Show in the empty fields what holds where nothing is set.
   * @param {Values} defaults as far as they are known
   */
  set defaults(defaults) {
    for (const field of this.#fields) {
      const value = defaults[field.name];
      if (typeof value === "number") field.placeholder = defaultText(value);
    }
  }

  /** @param {Values} values those of the conversation that is open */
  set values(values) {
    this.#current = values;
    this.#button.classList.toggle("set", Object.keys(values).length > 0);
  }

  open() {
    this.#fill(this.#current);
    this.#dialog.showModal();
  }

  /** @returns {Field[]} */
  get #fields() {
    return [...this.#form.querySelectorAll("[name]")].map((field) => /** @type {Field} */ (field));
  }

  /** @param {Values} values */
  #fill(values) {
    for (const field of this.#fields) {
      const value = values[field.name];
      field.value = Array.isArray(value) ? value.join("\n") : String(value ?? "");
      this.#mark(field, "");
    }
    this.#problem.textContent = "";
  }

  /** @param {Event} event */
  async #submit(event) {
    event.preventDefault();
    this.#problem.textContent = "";
    for (const field of this.#fields) this.#mark(field, wrong(field));
    const first = this.#fields.find((field) => field.ariaInvalid === "true");
    if (first) first.focus();
    else await this.#send();
  }

  async #send() {
    try {
      await this.#save(this.#values());
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.#refused(error);
      return;
    }
    this.#dialog.close();
    announce(WORDS.saved);
  }

  /**
   * Say why the server refused the values: at the field that it names, or else below the form.
   * @param {Failure} failure
   */
  #refused(failure) {
    const name = failure.message.match(/\$\.settings\.(\w+)/)?.[1];
    const field = this.#fields.find((each) => each.name === name);
    if (!field) {
      this.#problem.textContent = refusalText(failure);
      return;
    }
    this.#mark(field, WORDS.notAccepted);
    field.focus();
  }

  /** Return what was filled in, and as it is what has no field here. */
  #values() {
    const values = { ...this.#current };
    delete values.system; // without a field it is refused
    for (const { name } of this.#fields) delete values[name];
    for (const { name, type, value } of this.#fields) {
      if (!value.trim()) continue;
      if (name === "stop") values.stop = stops(value);
      else values[name] = type === "number" ? Number(value) : value;
    }
    return values;
  }

  /**
   * Say at a field why its value is not accepted.
   * @param {Field} field
   * @param {string} why empty: it is accepted
   */
  #mark(field, why) {
    const place = /** @type {HTMLElement} */ (field.closest(".field")?.querySelector(".problem"));
    place.textContent = why;
    field.ariaInvalid = why ? "true" : null;
  }
}

/** @param {string} text */
function stops(text) {
  return text.split("\n").filter((line) => line);
}

/**
 * Return why the value of a field is not accepted, or nothing if it is.
 * @param {Field} field
 */
function wrong(field) {
  if (field.name === "stop") {
    const [most, longest] = [Number(field.dataset.most), Number(field.dataset.longest)];
    const lines = stops(field.value);
    const tooMany = lines.length > most || lines.some((line) => [...line].length > longest);
    return tooMany ? tooManyText(most, longest) : "";
  }
  if (field.validity.valid || !(field instanceof HTMLInputElement)) return "";
  return outOfRangeText(field.min, field.max, field.step === "1");
}
