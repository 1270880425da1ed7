// A number by the rows of a batch: both axes logarithmic, a band for its interval.
import { html } from "fwd/dom.js";
import { grouped } from "fwd/numbers.js";

const WIDTH = 300, HEIGHT = 190, LEFT = 6, TOP = 26, BELOW = 30;

/** @typedef {{rows: number, low: number, middle: number, high: number}} Mark */

/** @param {{title: string, unit: string, marks: Mark[], written: (value: number) => string,
 *   proportional?: boolean, chosen: number, hides: boolean}} given; `proportional`: with a dashed
 *   line for what takes as much for each row as one row alone */
export function Chart({ title, unit, marks, written, proportional, chosen, hides }) {
  return html`<figure><h2>${title}</h2><h3>${unit}</h3>
    <svg width="100%" viewBox="0 0 ${WIDTH} ${HEIGHT + 24}" role="img" aria-label=${hides ? `${title}: after your prediction` : named(title, marks, written)}>
      ${hides || !marks.length
        ? html`<text x=${WIDTH / 2} y=${HEIGHT / 2} text-anchor="middle" class="f unsaid">${hides ? "?" : "not known"}</text>`
        : html`<${Curve} marks=${marks} written=${written} proportional=${proportional} chosen=${chosen} />`}
      <line x1="0" x2=${WIDTH} y1=${HEIGHT} y2=${HEIGHT} stroke="var(--line-2)" />
      ${ticks(marks, chosen).map((rows) => html`<text x=${along(marks, rows)} y=${HEIGHT + 18} text-anchor=${
        rows === marks[0].rows ? "start" : rows === marks[marks.length - 1].rows ? "end" : "middle"}
        class=${rows === chosen ? "i" : "f"}>${grouped(rows)}</text>`)}
    </svg></figure>`;
}

/** @param {string} title @param {Mark[]} marks @param {(value: number) => string} written */
function named(title, marks, written) {
  if (!marks.length) return `${title}: not known`;
  const last = marks[marks.length - 1];
  return `${title}: ${written(marks[0].middle)} at ${marks[0].rows} rows, ${written(last.middle)} at ${last.rows}; the table below has all numbers`;
}

/** @param {Mark[]} marks @param {number} rows */
function along(marks, rows) {
  const low = Math.log2(marks[0].rows), high = Math.log2(marks[marks.length - 1].rows);
  const share = high > low ? (Math.log2(rows) - low) / (high - low) : 0.5;
  return LEFT + share * (WIDTH - 2 * LEFT);
}

/** @param {Mark[]} marks @param {number} chosen */
function ticks(marks, chosen) {
  const found = marks.map((one) => one.rows), step = Math.ceil(found.length / 5);
  return found.filter((rows, at) => rows === chosen || at === 0 || at === found.length - 1
    || (at % step === 0 && Math.abs(at - found.indexOf(chosen)) > 1 && at < found.length - 2));
}

/** @param {{marks: Mark[], written: (value: number) => string, proportional?: boolean, chosen: number}} given */
function Curve({ marks, written, proportional, chosen }) {
  const ends = marks.flatMap((one) => [one.low, one.middle, one.high]).filter((value) => value > 0);
  const low = Math.log(Math.min(...ends)), high = Math.log(Math.max(...ends));
  const x = (/** @type {number} */ rows) => along(marks, rows);
  const y = (/** @type {number} */ value) => {
    const share = high > low ? (Math.log(Math.max(value, Math.exp(low))) - low) / (high - low) : 0.5;
    return HEIGHT - BELOW - share * (HEIGHT - BELOW - TOP);
  };
  const line = marks.map((one) => `${x(one.rows)} ${y(one.middle)}`).join("L");
  const band = [...marks.map((one) => `${x(one.rows)} ${y(one.low)}`),
    ...[...marks].reverse().map((one) => `${x(one.rows)} ${y(one.high)}`)].join("L");
  const first = marks[0], last = marks[marks.length - 1], there = marks.find((one) => one.rows === chosen);
  // As far as it stays within the picture.
  const reach = Math.min(last.rows, first.rows * Math.exp(high) / first.middle);
  return html`<path d="M${band}z" fill="var(--mag-1)" />
    <path d="M${line}" fill="none" stroke="var(--mag)" stroke-width="2" />
    ${proportional && reach > first.rows && html`<path class="proportional"
      d="M${x(first.rows)} ${y(first.middle)}L${x(reach)} ${y(first.middle * reach / first.rows)}"
      stroke="var(--ink-3)" stroke-dasharray="3 4" fill="none" />`}
    ${marks.map((one) => html`<circle cx=${x(one.rows)} cy=${y(one.middle)} r=${one.rows === chosen ? 5 : 3}
      fill=${one.rows === chosen ? "var(--ink)" : "var(--mag)"} data-rows=${one.rows} data-value=${one.middle} />`)}
    <text x=${LEFT} y=${Math.max(y(first.low), y(first.high)) + 18} class="i">${written(first.middle)}</text>
    ${there && there !== first && there !== last && html`<text x=${x(there.rows)} y=${Math.max(y(there.low), y(there.high)) + 18}
      text-anchor="middle" class="i" font-weight="600">${written(there.middle)}</text>`}
    ${last !== first && html`<text x=${WIDTH} y=${Math.min(y(last.low), y(last.high)) - 8} text-anchor="end" class="i">${written(last.middle)}</text>`}`;
}
