// Numbers as the page prints them: a real minus, fixed decimals, units.

/** A number as it is sent: JSON has finite ones, the others come by name; null where there is none.
 * @typedef {number | string | null} Sent */

const minus = (/** @type {string} */ text) => text.replaceAll("-", "\u2212");

/** @param {Sent} value @param {number} [digits] */
export function fixed(value, digits = 4) {
  if (value === null) return "none";
  const number = Number(value);
  if (Number.isNaN(number)) return "NaN";
  if (!Number.isFinite(number)) return number < 0 ? "\u2212Inf" : "Inf";
  const text = number.toFixed(digits);
  return minus(Number(text) === 0 ? (0).toFixed(digits) : text);
}

/** @param {number} value */
export const short = (value) => (value === 0 ? "0" : minus(value.toExponential(1)));
/** @param {number} value @param {number} [digits] */
export const percent = (value, digits = 0) => `${minus((value * 100).toFixed(digits))}\u2009%`;
/** @param {number} value */
export const grouped = (value) => minus(String(value)).replace(/\B(?=(\d{3})+$)/g, ",");
/** @param {readonly number[]} sizes */
export const shape = (sizes) => sizes.join(" ") || "scalar";

/** @param {number} value @param {readonly [number, string][]} units */
const scaled = (value, units) => {
  const [size, unit] = units.find(([size]) => value >= size) ?? units[units.length - 1];
  return `${(value / size).toPrecision(3)}\u2009${unit}`;
};
/** @param {number} value in seconds */
export const seconds = (value) => scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]]);
/** @param {number} value */
export const bytes = (value) => scaled(value, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]]);
/** @param {number} value */
export const count = (value) => (value < 1e4 ? grouped(value) : scaled(value, [[1e9, "G"], [1e6, "M"], [1e3, "k"]]));
