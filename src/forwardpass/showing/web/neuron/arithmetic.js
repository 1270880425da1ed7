// The arithmetic of an element as numbers and texts: what the table, the picture and the rail share.
import { signal } from "@preact/signals";
import { fixed } from "fwd/numbers.js";

/** @typedef {{kind: string, owner: string, index: number[]}} Stand */
/** @typedef {{stand: Stand, value: number, was: number}} Set */

/** What was set, by the text of its element. */
export const sets = signal(/** @type {Record<string, Set>} */ ({}));
/** What the rail offers to set: its place, and what it is; with `most` a whole number from 0 to that. */
export const focused = signal(/** @type {{stand: Stand, was: number, most?: number} | null} */ (null));

/** @param {string} owner @param {readonly number[]} index */
export const elementOf = (owner, index) => (index.length ? `${owner}[${index.join(", ")}]` : owner);
/** @param {Stand} stand */
export const textOf = (stand) => elementOf(stand.owner, stand.index);
/** @param {Stand | null} [stand] */
export const canBeSet = (stand) => Boolean(stand && ["parameter", "buffer", "input"].includes(stand.kind));
/** @param {Stand | null} [stand] */
export const leadsBack = (stand) => stand?.kind === "call";
/** @param {Stand | null} [stand] */
export const isSet = (stand) => Boolean(stand && textOf(stand) in sets.value);

/** The change that all this makes, as the server takes it; undefined for none. */
export function change() {
  const all = Object.values(sets.value);
  if (!all.length) return undefined;
  const one = (/** @type {Set} */ { stand, value }) => ({ name: stand.owner, index: stand.index, value });
  const inputs = all.filter(({ stand }) => stand.kind === "input").map(one);
  const edits = all.filter(({ stand }) => stand.kind !== "input").map((set) => ({ edit: "element", ...one(set) }));
  return { edits: edits.length ? edits : undefined, inputs: inputs.length ? inputs : undefined };
}

/** @param {Stand} stand @param {number} was @param {number} value */
export function set(stand, was, value) {
  const { [textOf(stand)]: _, ...others } = sets.value;
  sets.value = value === was ? others : { ...others, [textOf(stand)]: { stand, was, value } };
}

/** A number, at so many digits: fixed ones, or those behind the first where the scale asks for it.
 * @param {number | string} value @param {number} digits @param {number} [scale] */
export function written(value, digits, scale = 1) {
  const number = Number(value);
  if (!Number.isFinite(number) || number === 0 || (scale >= 1e-3 && scale < 1e7)) return fixed(number, digits);
  return number.toExponential(digits - 1).replaceAll("-", "\u2212");
}

/** The largest magnitude of all numbers of some steps, by which they are written.
 * @param {any[]} steps */
export function scaleOf(steps) {
  const all = steps.flatMap((step) => [step.value, ...step.terms.map((/** @type {any} */ term) => term.value)]);
  return Math.max(0, ...all.map((value) => Math.abs(Number(value))).filter(Number.isFinite)) || 1;
}

/** The rows of the table: terms, what the others come to, the steps; each with its bar, from where
 * to where, on the scale of its group.
 * @param {any[]} steps @param {boolean} open whether bars begin where the last one ended */
export function rows(steps, open) {
  /** @type {any[]} */
  const made = [];
  /** @type {number[][]} */
  const spans = [];
  for (const [place, step] of steps.entries()) {
    const before = steps[place - 1];
    if (step.terms.length || !before?.sums && !before?.adds) spans.push([0]);
    const group = spans.length - 1;
    const put = (/** @type {any} */ row, /** @type {number} */ from, /** @type {any} */ by) => {
      const size = Number(by);
      const bar = Number.isFinite(size) ? { from, by: size, group } : null;
      if (bar) spans[group].push(from, from + size);
      made.push({ ...row, step, bar });
    };
    let run = 0;
    for (const term of step.terms) {
      put({ kind: "term", term }, open && step.sums ? run : 0, term.value);
      run += Number(term.value);
    }
    if (step.rest !== null) put({ kind: "rest" }, open ? run : 0, step.rest);
    if (step.terms.length || step.adds || before?.adds) put({ kind: "step" }, step.adds && open ? Number(before.value) : 0, step.value);
    else made.push({ kind: "step", step, bar: null });
  }
  const ends = spans.map((all) => [Math.min(...all), Math.max(...all)]);
  for (const row of made) if (row.bar) [row.bar.low, row.bar.high] = ends[row.bar.group];
  return made;
}

/** The steps from the last sum on: what the number is in the end. @param {any[]} steps */
export function ending(steps) {
  const last = steps.findLastIndex((step) => step.terms.length > 0);
  return last < 0 ? steps : steps.slice(last);
}

const MANY = 3;

/** Where many sums come before the last one, these, to be looked at one by one: the scores of an
 * attention, the gates of a cell. @param {any[]} steps */
export function before(steps) {
  const sums = steps.filter((step) => step.count > 0).length;
  return sums > MANY ? steps.slice(0, steps.length - ending(steps).length) : [];
}
