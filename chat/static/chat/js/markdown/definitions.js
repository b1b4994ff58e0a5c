/**
 * Keeps the definitions of links, `[name]: address`, which hold for the whole text wherever they stand. What asked for
 * one before it was there is remembered.
 */

/** @typedef {import("./parser.js").Env} Env */

/** The definitions of one text. */
export class Definitions {
  /** @type {Record<string, any>} */
  #known = Object.create(null);
  /** @type {Map<string, Set<number>>} the places that asked for what was not there */
  #missed = new Map();
  /** The places that asked too early. @type {Set<number>} */
  late = new Set();
  /** How many are known. */
  count = 0;

  /**
   * Return what a parser of blocks writes definitions into. They are known once they are taken from it.
   * @param {boolean} open whether the text may go on
   * @returns {Env}
   */
  sheet(open) {
    return { references: Object.create(this.#known), open };
  }

  /**
   * Take those that begin before a line: they are finished. Of several with one name the first holds.
   * @param {import("./blocks.js").Block[]} blocks
   * @param {number} line
   * @param {Env} sheet
   * @param {number} places how many places have something finished in them
   */
  take(blocks, line, sheet, places) {
    for (const { type, map, meta } of blocks.flatMap(({ tokens }) => tokens)) {
      if (type !== "reference_definition" || !map || map[0] >= line) continue;
      const name = /** @type {string} */ (meta?.label);
      if (name in this.#known) continue;
      this.#known[name] = sheet.references?.[name];
      this.count++;
      for (const place of this.#missed.get(name) ?? []) if (place < places) this.late.add(place);
    }
  }

  /**
   * Return what a parser looks definitions up in.
   * @param {(name: string) => void} missing is told the names that are not known
   * @returns {Env}
   */
  lookup(missing) {
    const get = (/** @type {any} */ known, /** @type {string} */ name) => {
      if (!(name in known)) missing(name);
      return known[name];
    };
    return { references: new Proxy(this.#known, { get }) };
  }

  /**
   * Remember that a place asked for what is not known yet.
   * @param {string} name
   * @param {number} place
   */
  miss(name, place) {
    const places = this.#missed.get(name) ?? new Set();
    this.#missed.set(name, places.add(place));
  }
}
