// Colours of numbers: interpolated in OKLab between the theme's own tokens, even around zero.
// Source of the conversion: Björn Ottosson, "A perceptual color space for image processing", 2020.

/** @typedef {"sign" | "ink" | "mag"} Kind what colour says: the sign, or only how far from zero */
/** @typedef {readonly [number, number, number]} Triple */

const STEPS = 64;
/** @type {Map<string, Record<string, Triple[]>>} by the theme's tokens */
const known = new Map();

/** A token of the theme, such as `pos`. @param {string} name */
export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** @param {number} c */
const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
/** @param {number} c */
const gamma = (c) => (c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055);

/** @param {string} hex `#0072B2` @returns {Triple} */
function lab(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => linear(parseInt(hex.slice(at, at + 2), 16) / 255));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

/** @param {Triple} of @returns {Triple} red, green, blue, 0 to 255 */
function rgb([light, a, b]) {
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const channel = (/** @type {number} */ c) => Math.round(255 * gamma(Math.min(1, Math.max(0, c))));
  return [
    channel(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    channel(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    channel(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

/** @param {string} zero @param {string} end @returns {Triple[]} */
function ramp(zero, end) {
  const a = lab(zero), b = lab(end);
  return Array.from({ length: STEPS + 1 }, (_, at) => {
    const t = at / STEPS;
    return rgb([a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]);
  });
}

/** The ramps of the theme as it is now. */
function ramps() {
  const ends = ["zero", "pos", "neg", "ink", "mag"].map(token);
  const key = ends.join();
  let found = known.get(key);
  if (!found) {
    const [zero, pos, neg, ink, mag] = ends;
    found = { pos: ramp(zero, pos), neg: ramp(zero, neg), ink: ramp(zero, ink), mag: ramp(zero, mag) };
    known.set(key, found);
  }
  return found;
}

/** What gives a number its colour, where `most` is the largest magnitude.
 * @param {number} most @param {Kind} [kind] @returns {(value: number) => Triple} */
export function painter(most, kind = "sign") {
  const of = ramps();
  return (value) => {
    const near = most > 0 && Number.isFinite(most) ? Math.min(1, Math.abs(value) / most) : 0;
    const at = Number.isFinite(value) ? Math.round(STEPS * near) : STEPS;
    return of[kind === "sign" ? (value < 0 ? "neg" : "pos") : kind][at];
  };
}

/** @param {Triple} of */
export const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

/** What can be read on a colour. @param {Triple} of */
export const onto = ([r, g, b]) => ((0.2126 * r + 0.7152 * g + 0.0722 * b) / 255 > 0.46 ? "#15171B" : "#FFFFFF");
