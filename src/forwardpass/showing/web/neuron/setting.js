// Set one element: a number becomes another, the pass runs again on a copy, and the outputs move.
import { html, useEffect, useRef } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { exported } from "fwd/source.js";
import { digits, row, shown } from "fwd/state.js";
import { grouped } from "fwd/numbers.js";
import { change, focused, set, sets, textOf, written } from "fwd/neuron/arithmetic.js";

const SLOW = 120; // ms that a slider may rest before the pass runs
const LEFT = 56, WIDE = 160, LINE = 20;

export function SetOne() {
  if (exported || !shown.value?.live) return html`<section><h3>Set one element</h3><p class="soft">This page cannot run the pass: open the model itself to set a number.</p></section>`;
  const others = Object.values(sets.value).filter(({ stand }) => !focused.value || textOf(stand) !== textOf(focused.value.stand));
  return html`<section class="set"><h3>Set one element</h3>
    ${focused.value ? html`<${Field} key=${textOf(focused.value.stand)} ...${focused.value} />`
      : html`<p class="soft">Choose any weight, bias or input with a dotted line under it, change it, and see what moves.</p>`}
    ${others.map(({ stand, was, value }) => html`<div class="row small"><span class="num grow">${textOf(stand)}: ${said(was)} → ${said(value)}</span>
      <button class="link" onClick=${() => set(stand, was, was)}>Undo</button></div>`)}</section>`;
}

/** @param {number} value */
const said = (value) => (Number.isInteger(value) ? grouped(value) : short(value));

/** @param {number} value */
const short = (value) => written(value, 4, Math.abs(value) || 1);

/** @param {{stand: any, was: number, most?: number}} given */
function Field({ stand, was, most }) {
  const name = textOf(stand), now = sets.value[name]?.value ?? was;
  const waits = useRef(0);
  const field = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => { field.current?.focus(); return () => clearTimeout(waits.current); }, []);
  const put = (/** @type {string} */ text) => {
    const value = Number(text);
    clearTimeout(waits.current);
    const fits = most === undefined ? Number.isFinite(value) : Number.isInteger(value) && value >= 0 && value <= most;
    if (text.trim() !== "" && fits) waits.current = setTimeout(() => set(stand, was, value), SLOW);
  };
  const reach = Math.max(1, 2 * Math.abs(was));
  const limits = most === undefined ? { min: -reach, max: reach, step: reach / 200 } : { min: 0, max: most, step: 1 };
  return html`<div class="num">${name}</div>
    <div class="row"><label class="vh" for="setn">value of ${name}</label><input id="setn" ref=${field} type="number" ...${most === undefined ? { step: "any" } : limits} value=${now}
      onInput=${(/** @type {any} */ event) => put(event.target.value)} /><span class="small faint num grow">${most === undefined ? `was ${short(was)}` : `was ${grouped(was)}, of 0 to ${grouped(most)}`}</span>
      <button class="link" onClick=${() => set(stand, was, was)}>Undo</button></div>
    <input type="range" aria-label="value of ${name}" ...${limits} value=${now}
      onInput=${(/** @type {any} */ event) => put(event.target.value)} />`;
}

/** @param {{hidden: boolean}} given */
export function Outputs({ hidden }) {
  const changed = change();
  const reached = useAnswer(hidden ? null : "neuron.moved", { row: row.value, change: changed });
  const last = useRef(/** @type {any} */ (null));
  if (hidden) return html`<section><h3>The output</h3><p class="soft">After your prediction.</p></section>`;
  if (reached.answer) last.current = reached.answer;
  if (reached.refusal) return html`<section><h3>The output</h3><p class="soft">${reached.refusal.message}</p></section>`;
  const moved = last.current;
  if (!moved) return html`<section aria-busy="true"><h3>The output</h3></section>`;
  if (!moved.path) return html`<section><h3>The output</h3><p class="soft">This pass returns no tensor of real numbers.</p></section>`;
  const all = moved.count === moved.index.length;
  return html`<section aria-live="polite" aria-busy=${!reached.answer}><h3>${changed ? "What moved: " : ""}${moved.path}${all ? "" : `, ${moved.index.length} of ${grouped(moved.count)} numbers`}</h3>
    <${Chart} moved=${moved} changed=${Boolean(changed)} /><${Said} moved=${moved} changed=${Boolean(changed)} /></section>`;
}

/** Indices of the output without the axes at their start that are 0 in all of them. @param {any} moved */
const labels = (moved) => {
  const indices = [...moved.index, moved.largest_now, moved.largest_was];
  const last = Math.max(0, (indices[0]?.length ?? 1) - 1);
  const told = Array.from({ length: last }, (_, axis) => axis).find((axis) => indices.some((index) => index[axis] !== 0)) ?? last;
  return (/** @type {readonly number[]} */ index) => index.slice(told).join(" ");
};

/** Before as a ring, now as a dot. @param {{moved: any, changed: boolean}} given */
function Chart({ moved, changed }) {
  const was = moved.was.map(Number), now = moved.now.map(Number);
  const finite = [...was, ...now, 0].filter(Number.isFinite);
  const low = Math.min(...finite), span = Math.max(...finite) - low || 1;
  const x = (/** @type {number} */ value) => LEFT + ((value - low) / span) * WIDE;
  const high = moved.index.length * LINE;
  const label = labels(moved);
  const top = label(moved.largest_now), before = label(moved.largest_was);
  return html`<svg width="296" height=${high + 20} viewBox=${`0 0 296 ${high + 20}`} aria-hidden="true">${moved.index.map((/** @type {number[]} */ index, /** @type {number} */ at) => {
    const y = at * LINE + 12, name = label(index), best = name === top;
    return html`<text x="0" y=${y + 4} class=${best ? "i" : "f"} font-weight=${best ? 700 : 400}>${name}</text>
      <line x1=${LEFT} x2=${LEFT + WIDE} y1=${y} y2=${y} stroke="var(--line)" />
      ${changed && Number.isFinite(was[at]) && Number.isFinite(now[at]) && html`<line x1=${x(was[at])} x2=${x(now[at])} y1=${y} y2=${y} stroke="var(--ink)" stroke-width="2" />
        <circle cx=${x(was[at])} cy=${y} r="4" fill="var(--paper)" stroke="var(--ink-3)" stroke-width="1.5" />`}
      ${Number.isFinite(now[at]) && html`<circle cx=${x(now[at])} cy=${y} r="4.5" fill=${best ? "var(--accent)" : "var(--ink-2)"} />`}
      ${(best || name === before || !Number.isFinite(now[at])) && html`<text x="296" y=${y + 4} text-anchor="end" class="i">${brief(now[at])}</text>`}`;
  })}<line x1=${x(0)} x2=${x(0)} y1="2" y2=${high + 2} stroke="var(--line-2)" stroke-dasharray="2 3" />
    <text x=${x(0)} y=${high + 16} text-anchor="middle" class="f">0</text></svg>
    <details class="small"><summary>${changed ? "○ before, ● now: as a table" : "As a table"}</summary><table><thead><tr><th>${moved.path}</th>${changed && html`<th class="r">was</th>`}<th class="r">${changed ? "now" : "value"}</th></tr></thead>
      <tbody>${moved.index.map((/** @type {number[]} */ index, /** @type {number} */ at) => html`<tr><td>[${index.join(", ")}]</td>
        ${changed && html`<td class="r">${written(moved.was[at], digits.value, Math.abs(was[at]) || 1)}</td>`}<td class="r">${written(moved.now[at], digits.value, Math.abs(now[at]) || 1)}</td></tr>`)}</tbody></table></details>`;
}

/** @param {number} value */
const brief = (value) => written(value, 2, Math.abs(value) >= 1e5 ? 1e9 : Math.abs(value) || 1);

/** @param {{moved: any, changed: boolean}} given */
function Said({ moved, changed }) {
  const label = labels(moved);
  const [was, now] = [label(moved.largest_was), label(moved.largest_now)];
  const same = moved.hash_before === moved.hash_after;
  const hash = html`<p class="small faint">On a copy. Your model’s hash ${same ? "stays" : html`was <span class="num">${moved.hash_before}</span>, and is now`} <span class="num">${moved.hash_after}</span>.</p>`;
  if (!changed) return html`<p class="small soft">The largest is ${now || moved.path}.</p>`;
  const distance = Number(moved.distance);
  return html`<p class="small soft">${distance === 0 ? "No number of it moved." : `The largest move is ${short(distance)}. ${was === now ? `The largest number is still ${now}.` : `The largest number was ${was}, and is ${now}.`}`}</p>${hash}`;
}
