// A value of the pass, shown as fits it: one number, a few bars, a strip, planes; and a window of it.
import { html, useEffect, useState } from "fwd/dom.js";
import { tile } from "fwd/source.js";
import { row } from "fwd/state.js";
import { Unrecorded } from "fwd/unrecorded.js";
import { brief, fitted, Heat, Legend, lined, stretched, useHover } from "fwd/heat.js";
import { fixed, grouped, shape } from "fwd/numbers.js";

const FEW = 16; // numbers that are shown as bars
const WORDS = 256; // whole numbers that are printed
const PAGE = 64; // planes in a tile
const LENS = 8; // cells of a window along each side
const EXACT = 2 ** 24; // whole numbers from which on float32 rounds

/** A tile, as useAnswer has answers. @param {string} of @param {Record<string, unknown>} given
 * @returns {{tile?: import("fwd/source.js").Tile, refusal?: Error, again: () => void}} */
export function useTile(of, given) {
  const key = JSON.stringify([of, given]);
  const [reached, setReached] = useState(/** @type {any} */ ({ key: "" }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const waits = new AbortController(), { signal } = waits;
    tile(of, given, { signal }).then((came) => signal.aborted || setReached({ key, tile: came }),
      (refusal) => signal.aborted || setReached({ key, refusal }));
    return () => waits.abort();
  }, [key, turn]);
  const again = () => { setReached({ key: "" }); setTurn(turn + 1); };
  return { ...(reached.key === key ? reached : {}), again };
}

/** @param {any} head of a tile */
export const largest = (head) => Math.max(Math.abs(head.min ?? 0), Math.abs(head.max ?? 0));

/** The numbers of a value. `title` says which it is; `pixels` whether it is a picture in grey.
 * @param {{value: number, title: string, dtype?: string, pixels?: boolean, room?: number, high?: number,
 *   change?: any, picked?: (index: number[]) => void}} given */
export function Tensor({ value, title, dtype = "f32", pixels = false, room = 400, high = 320, change, picked }) {
  const [first, setFirst] = useState(/** @type {number | undefined} */ (undefined));
  useEffect(() => setFirst(undefined), [value, row.value]);
  const reached = useTile("values.fit", { value, row: row.value, change, first });
  if (reached.refusal) return html`<${Unrecorded} refusal=${reached.refusal} again=${reached.again} />`;
  if (!reached.tile) return html`<p class="small faint" aria-busy="true">…</p>`;
  const { head, numbers } = reached.tile;
  const size = head.planes * head.rows * head.columns;
  if (size === 0) return html`<p class="small soft">It holds no numbers.</p>`;
  if (size === 1) return html`<p class="num big1">${wordOf(numbers[0], head, dtype)}</p>`;
  if (whole(dtype) && size <= WORDS && !head.magnitudes) return html`<${Words} head=${head} numbers=${numbers} dtype=${dtype} title=${title} />`;
  if (size <= FEW && head.rows === 1 && head.planes === 1) return html`<${Bars} head=${head} numbers=${numbers} title=${title} />`;
  return html`<${Planes} came=${reached.tile} title=${title} pixels=${pixels} room=${room} high=${high}
    value=${value} change=${change} picked=${picked} first=${first} page=${setFirst} />`;
}

/** @param {string} dtype */
const whole = (dtype) => /^(i|u|bool)/.test(dtype);

/** @param {number} value @param {any} head @param {string} dtype */
function wordOf(value, head, dtype) {
  if (dtype === "bool") return value ? "true" : "false";
  if (whole(dtype) && head.min !== null) return grouped(value);
  return Number.isFinite(value) ? fixed(value, 6) : fixed(value);
}

/** Whole numbers, printed. @param {{head: any, numbers: Float32Array, dtype: string, title: string}} given */
function Words({ head, numbers, dtype, title }) {
  const rounded = Math.max(Math.abs(head.min), Math.abs(head.max)) > EXACT;
  return html`<p class="num words" aria-label=${title}>${Array.from(numbers, (n) => wordOf(n, head, dtype)).join("  ")}</p>
    ${rounded && html`<p class="small faint">rounded to 24 bits</p>`}`;
}

/** A few numbers as bars from zero. @param {{head: any, numbers: Float32Array, title: string}} given */
function Bars({ head, numbers, title }) {
  const left = 112, wide = 200, low = Math.min(0, head.min ?? 0), span = Math.max(0, head.max ?? 0) - low || 1;
  const x = (/** @type {number} */ v) => left + ((v - low) / span) * wide;
  const high = numbers.length * 22;
  return html`<div class="scroll"><svg width=${left + wide + 4} height=${high + 4} role="img"
    aria-label="${title}: ${Array.from(numbers, brief).join(", ")}">
    ${Array.from(numbers, (v, at) => html`<text x="0" y=${at * 22 + 15} class="f">${at}</text>
      <text x=${left - 12} y=${at * 22 + 15} text-anchor="end" class="i">${brief(v)}</text>
      ${Number.isFinite(v) && html`<rect x=${Math.min(x(0), x(v))} y=${at * 22 + 4} width=${Math.abs(x(v) - x(0))} height="14"
        fill=${v < 0 ? "url(#hatch)" : "var(--pos)"} />`}`)}
    <line x1=${x(0)} x2=${x(0)} y1="0" y2=${high} stroke="var(--line-2)" /></svg></div>
    <${Legend} head=${head} most=${0} />`;
}

/** @param {{came: import("fwd/source.js").Tile, title: string, pixels: boolean, room: number, high: number, value: number,
 *   change: any, picked?: (index: number[]) => void, first?: number, page: (first?: number) => void}} given */
function Planes({ came, title, pixels, room, high, value, change, picked, first, page }) {
  const { head, numbers } = came;
  const [hover, setHover] = useHover();
  const [lens, setLens] = useState(/** @type {number[] | null} */ (null));
  const count = head.shown.length, most = largest(head);
  const kind = pixels && head.min >= 0 ? "ink" : "sign";
  const line = count === 1 && head.height === 1;
  const flat = line ? lined(head.width, Math.min(room, innerWidth - 40)) : null;
  const wrap = flat?.wrap || 0;
  const height = wrap ? Math.ceil(head.width / wrap) : head.height, width = wrap || head.width;
  const square = flat ?? fitted(count, height, width, Math.min(room, innerWidth - 40), Math.max(high, 224));
  const fit = flat || pixels || count > 1 ? square : stretched(height, width, square);
  const cells = wrap && height * width > numbers.length ? padded(numbers, height * width) : numbers;
  const told = (/** @type {number} */ plane, /** @type {number} */ down, /** @type {number} */ across) => {
    const place = [head.shown[plane], wrap ? 0 : down, wrap ? down * wrap + across : across];
    return place[2] < head.width ? place : null;
  };
  const index = (/** @type {number[]} */ [plane, down, across]) => unravelled(
    (plane * head.rows + down * head.down) * head.columns + across * head.across, head.shape);
  const many = head.planes > count ? `${first === undefined ? `the ${count} strongest` : `${first} to ${first + count - 1}`} of ${grouped(head.planes)} planes`
    : count > 1 ? `${count} planes of ${head.rows} × ${head.columns}` : `${head.rows} × ${head.columns}`;
  const each = head.down * head.across > 1 ? `each cell: the farthest from zero of ${head.down} × ${head.across}` : "";
  const range = head.min === null ? "no finite number" : `from ${brief(head.min)} to ${brief(head.max)}`;
  const small = fit.cell < 10 || head.down * head.across > 1;
  return html`<div class="scroll"><${Heat} numbers=${cells} count=${count} height=${height} width=${width} fit=${fit} most=${most} kind=${kind}
      label="${[title, many, range, each].filter(Boolean).join(", ")}"
      told=${(/** @type {[number, number, number]} */ ...at) => setHover(told(...at))}
      picked=${(/** @type {[number, number, number]} */ ...at) => { const there = told(...at); if (there) { picked?.(index(there)); setLens(there); } }} /></div>
    <${Legend} head=${head} most=${most} kind=${kind} dashes=${fit.cell >= 7 && fit.tall >= 7} />
    <p class="small faint">${[many, each].filter(Boolean).join("; ")}${hover && html`<span class="num"> · [${index(hover).join(" ")}]</span>`}</p>
    ${head.planes > PAGE && html`<p class="small pages"><button class="link" onClick=${() => page(undefined)} disabled=${first === undefined}>strongest</button>
      <button class="link" onClick=${() => page(0)} disabled=${first === 0}>all</button>
      ${first !== undefined && html`<button class="link" disabled=${first === 0} onClick=${() => page(Math.max(0, first - PAGE))}>earlier</button>
        <button class="link" disabled=${first + PAGE >= head.planes} onClick=${() => page(first + PAGE)}>later</button>`}</p>`}
    ${(small || lens) && html`<${Window} came=${came} value=${value} change=${change} most=${most} kind=${kind} title=${title}
      at=${lens ?? [head.shown[0], 0, 0]} move=${setLens} />`}`;
}

/** @param {Float32Array} numbers @param {number} size */
function padded(numbers, size) {
  const whole = new Float32Array(size);
  whole.set(numbers);
  return whole;
}

/** @param {number} at @param {readonly number[]} sizes */
function unravelled(at, sizes) {
  const found = [];
  for (const size of [...sizes].reverse()) {
    found.unshift(at % size);
    at = Math.floor(at / size);
  }
  return found;
}

/** A few cells, magnified, with their numbers. `at` is plane, row, column in cells of the tile.
 * @param {{came: import("fwd/source.js").Tile, value: number, change: any, most: number, kind: any, title: string, at: number[], move: (at: number[]) => void}} given */
function Window({ came, value, change, most, kind, title, at, move }) {
  const { head } = came;
  const [open, setOpen] = useState(false);
  const [plane, down, across] = [at[0], at[1] * head.down, at[2] * head.across];
  const limits = [head.planes, head.rows, head.columns];
  const set = (/** @type {number} */ which, /** @type {number} */ to) => {
    const now = [plane, down, across];
    now[which] = Math.min(limits[which] - 1, Math.max(0, Math.floor(to) || 0));
    move([now[0], now[1] / head.down, now[2] / head.across]);
  };
  return html`<details onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary class="small">Magnify a part</summary>
    ${open && html`<p class="row pages">${["plane", "row", "column"].map((name, which) => limits[which] > 1 && html`<label class="small">${name}
      <input type="number" min="0" max=${limits[which] - 1} value=${[plane, down, across][which]}
        onInput=${(/** @type {any} */ event) => set(which, event.target.value)} /></label>`)}</p>
      <${Part} came=${came} value=${value} change=${change} most=${most} kind=${kind} title=${title}
        plane=${plane} top=${Math.min(down, Math.max(0, head.rows - LENS))} left=${Math.min(across, Math.max(0, head.columns - LENS))} />`}</details>`;
}

/** What is there already is not asked for. @param {any} given */
function Part(given) {
  const { head, numbers } = given.came;
  const place = head.shown.indexOf(given.plane);
  if (head.down * head.across > 1 || place < 0) return html`<${Fetched} ...${given} />`;
  const height = Math.min(LENS, head.rows), width = Math.min(LENS, head.columns);
  const top = Math.floor(given.top), left = Math.floor(given.left);
  const cut = Array.from({ length: height * width }, (_, at) =>
    numbers[(place * head.height + top + Math.floor(at / width)) * head.width + left + (at % width)]);
  return html`<${Magnified} ...${given} part=${{ top, left, height, width }} numbers=${cut} />`;
}

/** @param {any} given */
function Fetched(given) {
  const { came: { head }, value, change, plane, top, left } = given;
  const height = Math.min(LENS, head.rows), width = Math.min(LENS, head.columns);
  const reached = useTile("values.cells", { value, row: row.value, change, plane, top: Math.floor(top), left: Math.floor(left), height, width });
  if (reached.refusal) return html`<p class="small soft">${reached.refusal.message}</p>`;
  if (!reached.tile) return html`<p class="small faint" aria-busy="true">…</p>`;
  return html`<${Magnified} ...${given} part=${reached.tile.head} numbers=${Array.from(reached.tile.numbers)} />`;
}

/** @param {any} given */
function Magnified({ came: { head }, part, numbers, most, kind, title, plane }) {
  const fit = { cell: 52, tall: 40, columns: 1, lines: 1, wide: part.width * 52, high: part.height * 40 };
  const rows = Array.from({ length: part.height }, (_, at) => numbers.slice(at * part.width, (at + 1) * part.width));
  return html`<div class="scroll" tabindex="0" role="group" aria-label="numbers of ${title}, shape ${shape(head.shape)}">
    <${Heat} numbers=${numbers} height=${part.height} width=${part.width} fit=${fit} most=${most} kind=${kind}
      label="plane ${plane}, rows from ${part.top}, columns from ${part.left}: ${rows.map((one) => one.map(brief).join(" ")).join("; ")}" /></div>`;
}
