// Heat maps: numbers painted as cells on a canvas, with a label and a legend that say what is true.
import { html, useLayoutEffect, useRef, useState } from "fwd/dom.js";
import { css, onto, painter, token } from "fwd/colours.js";
import { darkNow } from "fwd/state.js";
import { fixed, grouped, short } from "fwd/numbers.js";

const GAP = 8; // between planes
const SEEN = 0.06; // of the largest magnitude: a smaller negative number has no dash
const DASHED = 7; // px of a cell, from which on it has one
const WRITTEN = 40; // px of a cell, from which on its number stands in it

/** Planes beside each other: how large a cell is, how many planes stand in a line.
 * @typedef {{cell: number, tall: number, columns: number, lines: number, wide: number, high: number}} Fit */

const SIZES = [28, 24, 20, 16, 14, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]; // px of a cell
const SMALLER = 0.7; // of the largest that fits, for which lines may all be full

/** The largest cells with which so many planes fit; a little smaller where all lines are full then.
 * @param {number} count @param {number} height @param {number} width in cells @param {number} room
 * @param {number} high in px @returns {Fit} */
export function fitted(count, height, width, room, high) {
  const fits = (/** @type {Fit} */ fit) => fit.wide <= room && fit.high <= high;
  const most = (/** @type {number} */ cell) => Math.min(count, Math.max(1, Math.floor((room + GAP) / (width * cell + GAP))));
  const plain = SIZES.map((cell) => sized(count, height, width, cell, most(cell)));
  const first = plain.find(fits) ?? plain[plain.length - 1];
  for (const cell of SIZES.filter((one) => one <= first.cell && one >= first.cell * SMALLER)) {
    for (let columns = most(cell); columns > 1; columns--) {
      const full = sized(count, height, width, cell, columns);
      if (count % columns === 0 && fits(full)) return full;
    }
  }
  return first;
}

/** @param {number} count @param {number} height @param {number} width @param {number} cell
 * @param {number} columns @param {number} [tall] @returns {Fit} */
function sized(count, height, width, cell, columns, tall = cell) {
  const lines = Math.ceil(count / columns);
  return {
    cell, tall, columns, lines,
    wide: columns * (width * cell + GAP) - GAP, high: lines * (height * tall + GAP) - GAP,
  };
}

/** One wide plane, such as tokens by channels: its lines higher than its columns are wide, so that
 * they can be seen. @param {number} height @param {number} width @param {Fit} square @returns {Fit} */
export function stretched(height, width, square) {
  const tall = Math.max(square.cell, Math.min(12, Math.floor(160 / height)));
  return width >= 3 * height ? sized(1, height, width, square.cell, 1, tall) : square;
}

/** A single line of numbers: in lines of 32, or where they are more than a window holds, a strip.
 * @param {number} width @param {number} room @returns {Fit & {wrap: number}} */
export function lined(width, room) {
  if (width > 1024) return { ...sized(1, 1, width, 1, 1, 32), wrap: 0 };
  const wrap = Math.min(width, 32);
  const cell = Math.max(4, Math.min(28, Math.floor(room / wrap)));
  return { ...sized(1, Math.ceil(width / wrap), wrap, Math.min(cell, width > 64 ? 10 : 28), 1), wrap };
}

/** Numbers as cells. `numbers` are [count height width]; `most` is the largest magnitude of all.
 * @param {{numbers: Float32Array | readonly number[], count?: number, height: number, width: number,
 *   fit: Fit, most: number, kind?: import("fwd/colours.js").Kind, label: string,
 *   told?: (plane: number, row: number, column: number) => void,
 *   picked?: (plane: number, row: number, column: number) => void}} given */
export function Heat({ numbers, count = 1, height, width, fit, most, kind = "sign", label, told, picked }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const dark = darkNow.value;
  const { cell, tall, columns, wide, high } = fit;
  useLayoutEffect(() => {
    const there = /** @type {HTMLCanvasElement} */ (canvas.current);
    const ratio = devicePixelRatio || 1;
    [there.width, there.height] = [Math.max(1, Math.round(wide * ratio)), Math.max(1, Math.round(high * ratio))];
    const ink = /** @type {CanvasRenderingContext2D} */ (there.getContext("2d"));
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    paint(ink, { numbers, count, height, width, cell, tall, columns, most, kind });
  }, [numbers, count, height, width, cell, tall, columns, most, kind, dark, wide, high]);
  const at = (/** @type {MouseEvent} */ event, /** @type {any} */ then) => {
    const box = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
    const x = (event.clientX - box.left) * (wide / box.width), y = (event.clientY - box.top) * (high / box.height);
    const step = width * cell + GAP, down = height * tall + GAP;
    const plane = Math.floor(y / down) * columns + Math.floor(x / step);
    const row = Math.floor((y % down) / tall), column = Math.floor((x % step) / cell);
    if (plane < count && row >= 0 && row < height && column >= 0 && column < width) then(plane, row, column);
  };
  return html`<canvas ref=${canvas} role="img" aria-label=${label}
    style=${{ width: `${wide}px`, height: `${high}px`, cursor: picked ? "crosshair" : undefined }}
    onMouseMove=${told && ((/** @type {MouseEvent} */ event) => at(event, told))}
    onClick=${picked && ((/** @type {MouseEvent} */ event) => at(event, picked))}></canvas>`;
}

/** @param {CanvasRenderingContext2D} ink @param {any} what */
function paint(ink, { numbers, count, height, width, cell, tall, columns, most, kind }) {
  const colour = painter(most, kind), side = Math.min(cell, tall), gap = side >= 12 ? 1 : 0;
  const strong = token("ink"), weak = token("zero"), mono = token("mono");
  ink.textAlign = "center";
  ink.textBaseline = "middle";
  ink.font = `12px ${mono}`;
  for (let at = 0; at < count * height * width; at++) {
    const value = numbers[at], plane = Math.floor(at / (height * width)), within = at % (height * width);
    const x = (plane % columns) * (width * cell + GAP) + (within % width) * cell;
    const y = Math.floor(plane / columns) * (height * tall + GAP) + Math.floor(within / width) * tall;
    if (Number.isNaN(value)) {
      ink.fillStyle = side < 5 ? strong : weak;
      ink.fillRect(x, y, cell - gap, tall - gap);
      if (side >= 5) cross(ink, x, y, side - gap, strong);
      continue;
    }
    const filled = colour(value);
    ink.fillStyle = css(filled);
    ink.fillRect(x, y, cell - gap, tall - gap);
    ink.fillStyle = onto(filled);
    if (!Number.isFinite(value)) {
      if (side >= 5) cross(ink, x, y, side - gap, onto(filled));
    } else if (side >= WRITTEN) {
      ink.fillText(brief(value), x + (cell - gap) / 2, y + tall / 2);
    } else if (kind === "sign" && value < 0 && side >= DASHED && -value > SEEN * most) {
      ink.globalAlpha = 0.7;
      ink.fillRect(x + cell * 0.3, y + (tall - gap) / 2 - 0.5, cell * 0.36, 1);
      ink.globalAlpha = 1;
    }
  }
}

/** @param {CanvasRenderingContext2D} ink @param {number} x @param {number} y @param {number} side @param {string} colour */
function cross(ink, x, y, side, colour) {
  ink.strokeStyle = colour;
  ink.lineWidth = 1;
  ink.beginPath();
  ink.moveTo(x + 1, y + 1);
  ink.lineTo(x + side - 1, y + side - 1);
  ink.moveTo(x + side - 1, y + 1);
  ink.lineTo(x + 1, y + side - 1);
  ink.stroke();
}

/** In a cell or under a ramp. @param {import("fwd/numbers.js").Sent} value */
export function brief(value) {
  const number = Number(value), size = Math.abs(number);
  if (value === null || !Number.isFinite(number)) return fixed(value);
  if (number === 0) return "0";
  if (Number.isInteger(number) && size < 1e6) return grouped(number);
  return size >= 0.01 && size < 1e4 ? fixed(number, 2) : short(number);
}

/** The scale, the true range, and what is no number. `head` as exploring.tiles has it.
 * @param {{head: any, most: number, kind?: import("fwd/colours.js").Kind, dashes?: boolean}} given */
export function Legend({ head, most, kind = "sign", dashes = false }) {
  const bar = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const dark = darkNow.value, both = kind === "sign" && head.min < 0;
  useLayoutEffect(() => {
    const ink = /** @type {CanvasRenderingContext2D} */ (/** @type {HTMLCanvasElement} */ (bar.current)?.getContext("2d"));
    if (!ink) return;
    const colour = painter(1, kind);
    for (let x = 0; x < 64; x++) {
      ink.fillStyle = css(colour(both ? (x - 31.5) / 31.5 : x / 63));
      ink.fillRect(x, 0, 1, 8);
    }
  }, [kind, both, dark]);
  const faults = [head.nan && `${grouped(head.nan)} NaN`, head.inf && `${grouped(head.inf)} Inf`].filter(Boolean);
  return html`<p class="legend small faint">
    ${head.min === null ? html`<span>no finite number</span>` : most > 0 && html`<span class="num">${brief(both ? -most : 0)}</span>
      <canvas ref=${bar} width="64" height="8" aria-hidden="true"></canvas><span class="num">${brief(most)}</span>`}
    ${head.min !== null && html`<span>true range <span class="num">${brief(head.min)} … ${brief(head.max)}</span></span>`}
    ${dashes && both && html`<span>a dash marks below zero</span>`}
    ${faults.length > 0 && html`<span class="neg">× ${faults.join(", ")}</span>`}
    ${head.magnitudes && html`<span>magnitudes of complex numbers</span>`}</p>`;
}

/** What is under the pointer; hover only adds. @returns {[any, (what: any) => void]} */
export function useHover() {
  return useState(/** @type {any} */ (null));
}
