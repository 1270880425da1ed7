// The keys that hold everywhere; views have their own beside them.
import { digits, view } from "fwd/state.js";

const FIELDS = "input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea";

/** @param {KeyboardEvent} event @param {any[]} known the views @param {() => void} help */
export function keys(event, known, help) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.closest("dialog")) return;
  if (target.matches(FIELDS)) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const act = acts(event.key, known, help);
  if (!act) return;
  event.preventDefault();
  act();
}

/** @param {string} key @param {any[]} known @param {() => void} help
 * @returns {(() => void) | undefined} */
function acts(key, known, help) {
  const place = known.find((one) => String(one.place) === key)?.place;
  if (place) return () => { view.value = place; };
  if (key === "/") return () => document.getElementById("search")?.focus();
  if (key === "?") return help;
  const answers = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".ask li button"));
  const answer = key.length === 1 ? answers["abcdefgh".indexOf(key)] : undefined;
  if (answer) return () => answer.click(); // of four, the last one is d
  if (key === "d") return () => { digits.value = digits.value === 4 ? 16 : 4; };
}
