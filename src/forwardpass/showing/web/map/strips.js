// What each call made of the row, in one line: every channel, or the 64 strongest.
import { html } from "fwd/dom.js";
import { brief, Heat } from "fwd/heat.js";
import { row } from "fwd/state.js";
import { largest, useTile } from "fwd/tensors.js";

const HIGH = 32;
const GAP = 8; // that Heat leaves between planes

/** A value's numbers. @param {{serial: number, title: string, width: number}} given */
export function Strip({ serial, title, width }) {
  const { tile, refusal } = useTile("values.fit", { value: serial, row: row.value });
  if (refusal) return html`<span class="faint small">${refusal.message}</span>`;
  if (!tile) return html`<span class="faint small" aria-busy="true">\u2026</span>`;
  const { head, numbers } = tile;
  if (!numbers.length) return html`<span class="faint small">no numbers</span>`;
  const count = head.shown.length;
  const part = head.planes > count ? `the ${count} strongest of ${head.planes} channels` : count > 1 ? `${count} channels` : "";
  const range = head.min === null ? "no finite numbers" : `from ${brief(head.min)} to ${brief(head.max)}`;
  const faults = head.nan + head.inf ? `${head.nan} NaN, ${head.inf} Inf` : "";
  return html`<${Heat} numbers=${numbers} count=${count} height=${head.height} width=${head.width} fit=${inLine(head, count, width)}
    most=${largest(head)} label=${[`output of ${title}`, part, range, faults].filter(Boolean).join(", ")} />`;
}

/** Planes in one line, or in as few as leave a pixel to a cell.
 * @param {any} head @param {number} count @param {number} width */
function inLine(head, count, width) {
  const most = (/** @type {number} */ lines) => (width + GAP) / Math.ceil(count / lines) - GAP;
  let lines = 1;
  while (lines < count && most(lines) < head.width) lines++;
  const columns = Math.ceil(count / lines);
  const cell = Math.min(28, count === 1 ? Math.max(most(1) / head.width, 0.5) : Math.max(1, Math.min(most(lines) / head.width, HIGH / head.height)));
  const tall = head.height === 1 ? Math.min(HIGH - 4, Math.max(cell, 14)) : count === 1 ? Math.min(HIGH / head.height, 28) : cell;
  return {
    cell, tall, columns, lines,
    wide: columns * (head.width * cell + GAP) - GAP, high: lines * (head.height * tall + GAP) - GAP,
  };
}
