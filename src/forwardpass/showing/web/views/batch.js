// Batch: what does batching buy? One by one against batched, measured now.
import { html, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Chart } from "fwd/batch/charts.js";
import { Frame, Waiting } from "fwd/frame.js";
import { told } from "fwd/prediction.js";
import { connection, exported } from "fwd/source.js";
import { row } from "fwd/state.js";
import { bytes, count, grouped, percent, seconds } from "fwd/numbers.js";

const LANE_SHARE = 72;

/** @param {{view: any}} given */
export function View({ view }) {
  const [now, measureNow] = useState(false);
  const asked = useAnswer("batch.predictions", { row: row.value });
  const all = /** @type {any[]} */ (asked.answer?.predictions ?? []);
  const hidden = (/** @type {string} */ part) => !asked.answer
    || all.some((one) => one.hides.includes(part) && !told(view.file, one.id));
  const curves = useAnswer(asked.answer || asked.refusal ? "batch.curves" : null, now ? { now: true } : {});
  const rows = all[0]?.arguments.rows;
  const loop = all.find((one) => one.hides.includes("one_by_one"));
  const found = curves.answer;
  const again = () => { if (found?.saved && !now) measureNow(true); else curves.again(); };
  return html`<${Frame} view=${view} said=${found ? words(found) : "Batches of many sizes, timed in turns on this machine."}
      rail=${html`${found && !exported && html`<${Again} again=${again} saved=${found.saved} />`}<${Padding} />`}>
    <div class="stack">
      ${found ? html`<${Charts} found=${found} chosen=${rows ?? 1} hides=${hidden("curves")} />`
        : html`<${Waiting} reached=${curves} />`}
      ${loop && html`<div><h2>${rows} rows, one by one and as one batch</h2>
        ${hidden("one_by_one") ? html`<p class="soft">After your prediction “Does your loop pass one row at a time?”</p>`
          : html`<${Lanes} rows=${rows} />`}</div>`}
      ${found && !hidden("curves") && html`<${Table} found=${found} />`}
      ${found && !hidden("curves") && found.notes.map((/** @type {string} */ note) => html`<p class="small soft">${note}.</p>`)}
    </div><//>`;
}

/** @param {any} found */
function words(found) {
  const rounds = Math.min(...found.points.map((/** @type {any} */ one) => one.rounds));
  const threads = found.threads ? ` with ${found.threads} thread${found.threads === 1 ? "" : "s"}` : "";
  const when = found.saved ? "As the saved profile has it" : "Measured now";
  return `${when} on ${found.device}${threads}, ${rounds} rounds in turns. Axes are logarithmic; bands are 95\u2009% intervals of the median; dashed: in proportion to the rows.`;
}

/** @param {any} one */
const speed = ({ rows, seconds: took }) => ({
  rows, middle: rows / took.median, low: rows / took.high, high: rows / took.low });

/** @param {{found: any, chosen: number, hides: boolean}} given */
function Charts({ found, chosen, hides }) {
  const points = /** @type {any[]} */ (found.points);
  const times = points.map(({ rows, seconds: took }) => ({
    rows, middle: took.median, low: took.low, high: took.high }));
  const held = points.map((one, at) => ({ rows: one.rows, value: found.bytes[at] }))
    .filter((one) => one.value).map(({ rows, value }) => ({ rows, middle: value, low: value, high: value }));
  return html`<div class="cols3">
    <${Chart} title="Time of a batch" unit="lower is better" marks=${times} written=${seconds} proportional chosen=${chosen} hides=${hides} />
    <${Chart} title="Rows a second" unit="higher is better" marks=${points.map(speed)} written=${(/** @type {number} */ value) => count(value < 1e4 ? Math.round(value) : value)} chosen=${chosen} hides=${hides} />
    <${Chart} title="Memory for values" unit=${found.memory} marks=${held} written=${bytes} proportional chosen=${chosen} hides=${hides} />
  </div>`;
}

/** @param {{rows: number}} given */
function Lanes({ rows }) {
  const reached = useAnswer("batch.one_by_one", { rows });
  const found = reached.answer;
  if (!found) return html`<${Waiting} reached=${reached} />`;
  const longest = Math.max(found.alone.median, found.together.median);
  const lane = (/** @type {string} */ name, /** @type {number} */ took, /** @type {number[]} */ parts) => html`
    <div class="lane"><span>${name}</span><div class="row">
      <div class="parts" style=${{ width: `${took / longest * LANE_SHARE}%` }} aria-hidden="true">
        ${parts.map((part) => html`<i style=${{ flexGrow: part / Math.min(...parts) }}></i>`)}</div>
      <b class="num">${seconds(took)}</b></div></div>`;
  const close = found.verdict === "too close to call";
  const times = html`<b class="num">${found.times.median.toPrecision(2)}\u2009×</b>`;
  return html`${lane("one by one", found.alone.median, found.each)}
    ${lane(`one batch of ${found.rows}`, found.together.median, [1])}
    <p class="soft said">${close ? "Too close to call: they differ by less than their runs do." : html`${times} (between ${found.times.low.toPrecision(2)} and ${found.times.high.toPrecision(2)}). The arithmetic is the same.`}
      ${!close && found.calls_alone > found.calls_together
        && ` What is saved is the calling: ${grouped(found.calls_together)} calls instead of ${grouped(found.calls_alone)}.`}</p>`;
}

/** @param {{found: any}} given */
function Table({ found }) {
  const first = found.points[0];
  return html`<details><summary>The numbers as a table</summary><div class="scroll" tabindex="0" role="region" aria-label="batches by their rows"><table class="curve"><thead><tr>
      <th class="r">rows in a batch</th><th class="r">a batch takes</th><th class="r">95\u2009% of the median</th>
      <th class="r">rows a second</th><th class="r">× one row</th><th class="r">memory</th></tr></thead>
    <tbody>${found.points.map((/** @type {any} */ one, /** @type {number} */ at) => html`<tr data-rows=${one.rows} data-seconds=${one.seconds.median}>
      <td class="r">${grouped(one.rows)}</td><td class="r">${seconds(one.seconds.median)}</td>
      <td class="r">${seconds(one.seconds.low)} … ${seconds(one.seconds.high)}</td>
      <td class="r">${count(Math.round(one.rows / one.seconds.median))}</td>
      <td class="r">${(one.seconds.median / first.seconds.median).toFixed(1)}</td>
      <td class="r">${found.bytes[at] ? bytes(found.bytes[at]) : "–"}</td></tr>`)}</tbody></table></div>
    <p class="small faint">No larger batches: ${found.ended}.</p></details>`;
}

/** @param {{again: () => void, saved: boolean}} given */
function Again({ again, saved }) {
  const live = connection.value === "live";
  return html`<section><h3>${saved ? "From a saved profile" : "Measure again"}</h3>
    <div class="row"><button class="btn main" disabled=${!live} onClick=${again}>Measure${saved ? " now" : ""}</button>
      <span class="small faint">some seconds; it can be cancelled</span></div></section>`;
}

function Padding() {
  const { answer, refusal } = useAnswer("batch.padding");
  if (refusal || !answer) return null;
  const told = answer.in_order !== null && answer.axes.length;
  return html`<section><h3>Padding</h3>${told ? html`<dl class="kv">
      <dt>as they come</dt><dd>${percent(answer.in_order, 1)}</dd>
      <dt>sorted by size</dt><dd>${percent(answer.by_size, 1)}</dd></dl>
      <p class="small soft">of the cells in batches of ${answer.rows} of your rows would be padding along ${answer.axes.join(", ")}.</p>`
    : html`<p class="soft">${answer.why}</p>`}</section>`;
}
