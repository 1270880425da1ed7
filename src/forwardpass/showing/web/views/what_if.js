// What if: does this part matter? A row a change, on a copy, over all rows.
import { html, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Cancel } from "fwd/cancel.js";
import { Frame, Waiting } from "fwd/frame.js";
import { told } from "fwd/prediction.js";
import { exported } from "fwd/source.js";
import { row } from "fwd/state.js";
import { bytes, fixed, grouped, percent } from "fwd/numbers.js";
import { Forms } from "fwd/what_if/forms.js";
import { Dots } from "fwd/what_if/dots.js";

/** @param {{view: any}} given */
export function View({ view }) {
  const reached = useAnswer("what_if.changes");
  const asked = useAnswer("what_if.predictions", { row: row.value });
  const [added, add] = useState(/** @type {any[]} */ ([]));
  const [chosen, choose] = useState(1);
  const found = reached.answer;
  if (!found) return html`<${Frame} view=${view}><${Waiting} reached=${reached} /><//>`;
  const all = [...found.changes, ...added];
  const one = all[Math.min(chosen, all.length - 1)];
  const hides = !asked.answer && !asked.refusal || (asked.answer?.predictions ?? []).some(
    (/** @type {any} */ p) => p.hides.includes("table") && !told(view.file, p.id));
  const rows = found.rows === 1 ? "one row" : `${grouped(found.rows)} rows`;
  const said = html`One change at a time, on a copy, over ${rows}${found.labels && ` with labels (${found.labels})`}.
    The model itself stays as it was: hash <span class="num">${found.hash}</span> before, <${After} last=${all} hides=${hides} /> after.`;
  const rail = !hides && one.edits.length > 0 && html`<${Dots} name=${one.name} edits=${one.edits} />`;
  const more = (/** @type {any} */ change) => { choose(all.length); add([...added, change]); };
  return html`<${Frame} view=${view} said=${said} rail=${rail}>
    <${Table} found=${found} all=${all} chosen=${all.indexOf(one)} choose=${choose} hides=${hides} />
    ${!exported && html`<${Forms} found=${found} add=${more} />`}
    <p class="small faint note">Distance: RMS of the difference over RMS of the outputs. ${why(found)} Lines are what rows like these allow at 95\u2009%; the tick is the model as it is. Time is that of a copy beside one as it was, in turns.</p>
    ${found.notes.map((/** @type {string} */ note) => html`<p class="small faint note">Not tried: ${note}.</p>`)}
  <//>`;
}

/** @param {any} found */
function why(found) {
  if (found.labels) return `Accuracy is shown because the data has labels, ${found.labels}.`;
  const measures = found.measures.map((/** @type {string} */ one) => ({ flips: "answers", cosine: "the cosine", relative_error: "the distance" })[one] ?? one);
  return `Without labels nothing is said of accuracy; ${measures.join(" and ")}: ${found.why}.`;
}

/** The model's hash after the change that was measured last. @param {{last: any[], hides: boolean}} given */
function After({ last, hides }) {
  const { answer } = useAnswer(hides ? null : "what_if.measured", { edits: last[last.length - 1].edits });
  return html`<span class="num">${answer ? answer.hash : "?"}</span>`;
}

/** @param {{found: any, all: any[], chosen: number, choose: (at: number) => void, hides: boolean}} given */
function Table({ found, all, chosen, choose, hides }) {
  const has = (/** @type {string} */ name) => found.measures.includes(name);
  const columns = { same: has("flips"), cosine: has("cosine"), accuracy: found.labels !== "" };
  return html`<div class="scroll" tabindex="0" role="region" aria-label="changes and what they do"><table class="plain changes"><thead><tr><th>change</th>
      ${columns.same && html`<th class="r">same answer</th>`}${columns.cosine && html`<th class="r">cosine</th>`}
      <th class="r">distance</th>${columns.accuracy && html`<th class="r">accuracy</th>`}
      <th><span class="vh">interval</span></th><th>verdict</th><th class="r">time</th><th class="r">weights</th></tr></thead>
    <tbody>${all.map((change, at) => html`<${Row} key=${JSON.stringify(change)} change=${change} columns=${columns}
      on=${at === chosen} choose=${() => choose(at)} hides=${hides && at > 0} />`)}</tbody></table></div>`;
}

/** @param {{change: any, columns: any, on: boolean, choose: () => void, hides: boolean}} given */
function Row({ change, columns, on, choose, hides }) {
  const { answer, refusal, progress, stop, again } = useAnswer(hides ? null : "what_if.measured", { edits: change.edits });
  const waits = hides ? "?" : refusal ? "–" : "…";
  const cell = (/** @type {any} */ value, /** @type {(n: number) => string} */ written) =>
    html`<td class="n">${answer ? (value ? written(value.value) : "–") : waits}</td>`;
  const shown = answer && (answer.accuracy ?? (columns.same ? answer.same : answer.cosine));
  return html`<tr class=${on ? "on" : ""} data-change=${change.name} data-same=${answer?.same?.value}>
    <td><button class=${on ? "" : "go"} aria-pressed=${on} onClick=${choose}>${change.name}</button></td>
    ${columns.same && cell(answer?.same, (n) => percent(n, 1))}${columns.cosine && cell(answer?.cosine, (n) => fixed(n))}
    ${cell(answer?.distance, (n) => fixed(n, 3))}${columns.accuracy && cell(answer?.accuracy, (n) => percent(n, 1))}
    <td>${shown && html`<${Reach} one=${shown} />`}</td>
    <td class="soft">${refusal ? refusal.message : answer?.failed || answer?.verdict || (progress && !answer ? progress.stage : "")}
      ${refusal?.kind === "Stopped" && html` <button class="link" onClick=${again}>Run it</button>`}
      ${!hides && !answer && !refusal && html` <span class="late"><${Cancel} stop=${stop} kind="link" /></span>`}</td>
    <td class="n" title=${answer?.time}>${answer ? time(answer) : waits}</td>
    <td class="n">${answer ? bytes(answer.bytes) : waits}</td></tr>`;
}

/** @param {any} answer */
function time({ times, time: words }) {
  if (!words) return "1\u2009×";
  if (!times) return "not timed";
  return words === "too close to call" ? words : `${times.value.toPrecision(2)}\u2009× ${words}`;
}

/** Where a share lies, with what rows like these allow. @param {{one: {value: number, low: number, high: number}}} given */
function Reach({ one }) {
  const x = (/** @type {number} */ value) => 4 + Math.max(0, Math.min(1, value)) * 112;
  return html`<svg width="120" height="20" role="img" aria-label=${`between ${percent(one.low, 1)} and ${percent(one.high, 1)}`}>
    <line x1="4" x2="116" y1="10" y2="10" stroke="var(--line)" /><line x1="116" x2="116" y1="2" y2="18" stroke="var(--line-2)" />
    <line x1=${x(one.low)} x2=${x(one.high)} y1="10" y2="10" stroke="var(--ink-2)" stroke-width="2" />
    <circle cx=${x(one.value)} cy="10" r="4" fill="var(--ink)" /></svg>`;
}
