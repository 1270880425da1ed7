// Numbers as coloured cells in blocks; few of them with the number in each.
import { html, useEffect, useRef } from "fwd/dom.js";
import { fixed } from "fwd/numbers.js";
import { darkNow } from "fwd/state.js";

const SMALL = 36;
const BIG_CELL = 44;
const SIDE = 138;
const LEVELS = 64;

/** @typedef {{blocks: number, height: number, width: number}} Blocks */

/** Where each number lies: blocks beside and under each other.
 * @param {Blocks} of @param {number} at @returns {[number, number]} row, column */
function placeOf({ blocks, height, width }, at) {
  const across = Math.ceil(Math.sqrt((blocks * height) / width)) || 1;
  const block = Math.floor(at / (height * width));
  const inside = at % (height * width);
  return [Math.floor(block / across) * height + Math.floor(inside / width), (block % across) * width + (inside % width)];
}

/** @param {Blocks & {numbers: (number | string | null)[], kind?: "sign" | "ink", label: string}} given */
export function Grid({ numbers, kind = "sign", label, ...of }) {
  const values = numbers.map((number) => (number === null ? null : Number(number)));
  const most = Math.max(0, ...values.map((value) => Math.abs(value ?? 0)).filter(Number.isFinite)) || 1;
  const places = values.map((_, at) => placeOf(of, at));
  const rows = 1 + Math.max(...places.map(([row]) => row));
  const columns = 1 + Math.max(...places.map(([, column]) => column));
  const given = { values, places, rows, columns, most, kind, label };
  return values.length <= SMALL && columns <= 5 ? html`<${Numbered} ...${given} />` : html`<${Painted} ...${given} />`;
}

/** @param {string} kind @param {number | null} value */
const hue = (kind, value) => (kind === "ink" ? "--ink" : (value ?? 0) < 0 ? "--neg" : "--pos");

/** @param {any} given */
function Numbered({ values, places, rows, columns, most, kind, label }) {
  return html`<svg width=${columns * BIG_CELL} height=${rows * BIG_CELL} viewBox=${`0 0 ${columns * BIG_CELL} ${rows * BIG_CELL}`} role="img" aria-label=${label}>
    ${values.map((/** @type {number | null} */ value, /** @type {number} */ at) => {
      const [row, column] = places[at];
      const [x, y] = [column * BIG_CELL, row * BIG_CELL];
      const share = Math.round((100 * Math.abs(value ?? 0)) / most);
      if (value === null) return html`<rect x=${x} y=${y} width=${BIG_CELL - 1} height=${BIG_CELL - 1} fill="none" stroke="var(--line)" stroke-dasharray="2 2" />`;
      return html`<rect x=${x} y=${y} width=${BIG_CELL - 1} height=${BIG_CELL - 1} style=${{ fill: `color-mix(in oklab, var(${hue(kind, value)}) ${Number.isFinite(share) ? share : 100}%, var(--zero))` }} />
        <text x=${x + BIG_CELL / 2} y=${y + BIG_CELL / 2 + 4} text-anchor="middle"
          style=${{ fill: share > 55 ? "var(--paper)" : "var(--ink)" }}>${brief(value)}</text>`;
    })}</svg>`;
}

/** @param {number} value */
function brief(value) {
  if (!Number.isFinite(value)) return fixed(value);
  const size = Math.abs(value);
  if (size >= 1000 || (size > 0 && size < 0.005)) return value.toExponential(0).replaceAll("-", "\u2212").replace("e+", "e");
  return fixed(value, size >= 100 ? 0 : size >= 10 ? 1 : 2).replace(/^(\u2212?)0\./, "$1.");
}

/** @param {any} given */
function Painted({ values, places, rows, columns, most, kind, label }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const cell = Math.max(2, Math.min(24, Math.floor(SIDE / Math.max(rows, columns))));
  const dark = darkNow.value;
  useEffect(() => {
    const at = canvas.current;
    const to = at?.getContext("2d");
    if (!at || !to) return;
    const ratio = devicePixelRatio || 1;
    [at.width, at.height] = [columns * cell * ratio, rows * cell * ratio];
    to.scale(ratio, ratio);
    const token = (/** @type {string} */ name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const ramp = (/** @type {string} */ name) => Array.from({ length: LEVELS + 1 }, (_, level) =>
      `color-mix(in oklab, ${token(name)} ${(100 * level) / LEVELS}%, ${token("--zero")})`);
    const ramps = { "--pos": ramp("--pos"), "--neg": ramp("--neg"), "--ink": ramp("--ink") };
    const gap = cell >= 8 ? 1 : 0;
    for (const [place, value] of values.entries()) {
      if (value === null) continue;
      const [row, column] = places[place];
      const level = Math.min(LEVELS, Math.round((LEVELS * Math.abs(value)) / most));
      to.fillStyle = ramps[hue(kind, value)][Number.isFinite(level) ? level : LEVELS];
      to.fillRect(column * cell, row * cell, cell - gap, cell - gap);
      if (kind === "sign" && value < 0 && cell >= 7 && level > 3) {
        to.fillStyle = token(level > LEVELS / 2 ? "--paper" : "--ink");
        to.fillRect(column * cell + cell * 0.3, row * cell + (cell - gap) / 2 - 0.5, cell * 0.36, 1);
      }
    }
  }, [values, dark, cell]);
  return html`<canvas ref=${canvas} role="img" aria-label=${label} style=${{ width: `${columns * cell}px`, height: `${rows * cell}px` }}></canvas>`;
}
