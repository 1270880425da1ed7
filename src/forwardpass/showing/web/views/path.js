// Path: which way did my code go? Source with the lines that ran, for one row or two.
import { html, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { told } from "fwd/prediction.js";
import { exported } from "fwd/source.js";
import { row } from "fwd/state.js";
import { count, grouped, shape } from "fwd/numbers.js";

/** @typedef {{file: string, owner: string, name: string, first: number, lines: string[], a: number[], b: number[]}} Code */

const FOLDED = /** @type {const} */ ({ library: "Libraries", torch: "PyTorch\u2019s layers" });
const real = (/** @type {string} */ text) => text.replace(/^-/, "\u2212");

/** @param {{about: any, view: any}} given */
export function View({ about, view }) {
  const [chosen, choose] = useState(/** @type {number | null} */ (null));
  const next = (row.value + 1) % about.rows;
  const b = chosen === null || chosen === row.value || chosen >= about.rows ? next : chosen;
  const compares = about.live && about.rows > 1 && told("path", "same-way");
  const reached = useAnswer("path.lines", compares ? { row: row.value, other: b } : { row: row.value });
  const alone = useAnswer(compares ? "path.lines" : null, { row: row.value });
  const ways = reached.answer ?? alone.answer;
  const rail = html`<${Export} other=${about.rows > 1 ? next : undefined} live=${about.live} />`;
  if (!ways) return html`<${Frame} view=${view} rail=${rail}><${Waiting} reached=${reached} /><//>`;
  const own = ways.functions.filter((/** @type {Code} */ f) => f.owner === "yours");
  return html`<${Frame} view=${view} said=${said(ways, own)} rail=${rail}>
    <div class="ways">
      <${Row} letter="A" mark="●" walk=${ways.a} />
      ${ways.b && html`<${Row} letter="B" mark="○" walk=${ways.b} />`}
      ${!ways.b && about.live && about.rows > 1 && html`<div><b>B ○ · row ${b}</b><p class="soft">${!compares ? "not compared yet: guess first, or skip" : reached.refusal ? "not compared" : "on its way…"}</p></div>`}
      ${compares && !exported && html`<${Chooser} rows=${about.rows} b=${b} choose=${choose} />`}
    </div>
    ${ways.notes.map((/** @type {string} */ note) => html`<p class="soft">${note}</p>`)}
    ${reached.refusal && html`<p class="warn">${reached.refusal.message}</p>`}
    ${ways.parting && html`<${Parting} ways=${ways} />`}
    ${ways.alike === "operators" && html`<p class="told"><b>The same lines, other operators:</b> each line ran as often for A and for B; a line chooses within itself what it calls.</p>`}
    ${ways.alike === "same" && html`<p class="told"><b>A and B go the same way:</b> each statement ran as often for both.</p>`}
    ${own.map((/** @type {Code} */ code) => html`<${Lines} key=${code.file + code.first} code=${code} compared=${ways.b !== null} />`)}
    ${Object.entries(FOLDED).map(([owner, name]) => {
      const codes = ways.functions.filter((/** @type {Code} */ f) => f.owner === owner);
      return codes.length > 0 && html`<${Folded} name=${name} codes=${codes} compared=${ways.b !== null} open=${own.length === 0 && codes === ways.functions} />`;
    })}
    ${ways.more > 0 && html`<p class="soft">${grouped(ways.more)} more functions ran, which are not shown.</p>`}
    ${about.live && !exported && about.rows > 2 && (compares || about.rows === 1) && html`<${AllWays} rows=${about.rows} choose=${choose} />`}
  <//>`;
}

/** @param {any} ways @param {Code[]} own */
function said(ways, own) {
  const lines = own.reduce((sum, f) => sum + f.a.filter((n) => n > 0).length, 0);
  const where = own.length === 0 ? "No function of yours ran"
    : `${count(lines)} lines of ${own.length === 1 ? own[0].name : `${own.length} functions`} of yours ran`;
  return `${where}; ${grouped(ways.a.calls)} operator calls came of it.`;
}

/** @param {{letter: string, mark: string, walk: any}} given */
function Row({ letter, mark, walk }) {
  return html`<div><b>${letter} ${mark} · row ${walk.row}</b>
    <p class="soft">path <code>${walk.path}</code> · ${grouped(walk.calls)} calls</p>
    ${walk.error && html`<p class="warn">raised ${walk.error}</p>`}</div>`;
}

/** @param {{rows: number, b: number, choose: (row: number) => void}} given */
function Chooser({ rows, b, choose }) {
  return html`<label class="pickrow">B is row <select value=${String(b)}
    onChange=${(/** @type {any} */ event) => choose(Number(event.currentTarget.value))}>
    ${Array.from({ length: rows }, (_, at) => at !== row.value && html`<option value=${String(at)} selected=${at === b}>${at}</option>`)}
  </select></label>`;
}

/** What a statement's counts say of the two: "" where they are equal.
 * @param {number} a @param {number} b */
function differing(a, b) {
  if (a === b || a < 0 || b < 0) return "";
  return a === 0 ? "only B" : b === 0 ? "only A" : "other count";
}

/** @param {{code: Code, compared: boolean}} given */
function Lines({ code, compared }) {
  return html`<section class="way"><h2>${code.name || "outside of functions"}</h2>
    <p class="faint small">${code.file}:${code.first}</p>
    <div class="scroll" tabindex="0" role="region" aria-label=${`lines of ${code.name}`}><table>
      <thead><tr><th class="r">line</th><th class="n">A ●</th>${compared && html`<th class="n">B ○</th>`}<th>source</th>${compared && html`<th class="r">differs</th>`}</tr></thead>
      <tbody>${code.lines.map((text, at) => {
        const [a, b] = [code.a[at], compared ? code.b[at] : -1];
        const what = compared ? differing(a, b) : "";
        const idle = a === 0 && b <= 0;
        return html`<tr class=${what ? "other" : idle ? "idle" : ""}><td class="r faint">${code.first + at}</td>
          <td class="n"><${Times} times=${a} kind="a" /></td>${compared && html`<td class="n"><${Times} times=${b} kind="b" /></td>`}
          <td class="src">${text || " "}</td>${compared && html`<td class="r what">${what}</td>`}</tr>`;
      })}</tbody></table></div></section>`;
}

/** @param {{times: number, kind: string}} given */
function Times({ times, kind }) {
  if (times < 0) return null;
  if (times === 0) return html`<span class="faint"><span aria-hidden="true">·</span><span class="vh">not run</span></span>`;
  return html`<span class="times ${kind}">${grouped(times)}×</span>`;
}

/** @param {{name: string, codes: Code[], compared: boolean, open: boolean}} given */
function Folded({ name, codes, compared, open }) {
  const [shown, show] = useState(open);
  return html`<details class="way" open=${shown} onToggle=${(/** @type {any} */ event) => show(event.currentTarget.open)}>
    <summary>${name}: ${codes.length === 1 ? "1 function" : `${codes.length} functions`} ran</summary>
    ${shown && codes.map((code) => html`<${Lines} key=${code.file + code.first} code=${code} compared=${compared} />`)}
  </details>`;
}

/** @param {{ways: any}} given */
function Parting({ ways }) {
  const { parting } = ways;
  const { condition } = parting;
  const turned = parting.a_turn && parting.b_turn;
  const went = (/** @type {number} */ line) => (line ? `line ${line}` : "out of the function");
  return html`<div class="told"><p><b>They part at line ${parting.line}</b> of ${parting.file}${parting.visit > 1 ? `, at its visit ${grouped(parting.visit)}` : ""}:${" "}
    <code>${condition.kind} ${condition.text}</code>${turned
      ? html` ${condition.kind === "for" ? "gives" : "is"} <b>${parting.a_turn}</b> for A, <b>${parting.b_turn}</b> for B.`
      : html`: A goes on to ${went(parting.a_line)}, B to ${went(parting.b_line)}.`}</p>
    ${condition.compared.length > 0
      ? html`<div class="scroll"><table class="compared"><thead><tr><th>what was compared</th><th class="r">A ●</th><th class="r">B ○</th></tr></thead>
        <tbody>${condition.compared.map((/** @type {any} */ part) => html`<tr><td>${part.text}</td>
          <td class="r">${real(part.a) || "not computed"}</td><td class="r">${real(part.b) || "not computed"}</td></tr>`)}</tbody></table></div>`
      : html`<p class="soft">What was compared cannot be told: no single number was computed there, and nothing that can be looked up without running your code.</p>`}</div>`;
}

/** @param {{rows: number, choose: (row: number) => void}} given */
function AllWays({ rows, choose }) {
  const [asked, ask] = useState(false);
  const reached = useAnswer(asked ? "path.ways" : null);
  if (!asked) return html`<p class="more"><button class="btn" onClick=${() => ask(true)}>Look for rows that go another way</button>
    <span class="soft"> runs all ${grouped(rows)} rows</span></p>`;
  if (!reached.answer) return html`<${Waiting} reached=${reached} />`;
  const found = reached.answer.ways;
  return html`<section class="more"><h2>${found.length === 1 ? `All ${grouped(rows)} rows go the same way` : `${found.length} ways through the code`}</h2>
    <p class="soft">By the lines and operators of their calls. A row's button makes it B.</p>
    <div class="scroll"><table><thead><tr><th>path</th><th class="r">calls</th><th class="r">rows</th><th>which</th></tr></thead><tbody>
    ${found.map((/** @type {any} */ way) => html`<tr><td>${way.path}</td><td class="r">${grouped(way.calls)}</td><td class="r">${way.rows.length}</td>
      <td>${way.rows.slice(0, 8).map((/** @type {number} */ at) => (at === row.value ? html`<span class="num">${at} (A) </span>`
        : html`<button class="link pickb" aria-label=${`compare with row ${at}`} onClick=${() => choose(at)}>${at}</button> `))}${way.rows.length > 8 ? "…" : ""}</td></tr>`)}
    </tbody></table></div></section>`;
}

/** What export gains and loses. @param {{other: number | undefined, live: boolean}} given */
function Export({ other, live }) {
  const reached = useAnswer(live && told("path", "export") ? "path.export" : null, { row: row.value, other });
  const { answer } = reached;
  if (!live) return null;
  if (!told("path", "export")) return html`<section><h3>What it means for export</h3>
    <p class="soft">A graph is made by running this code once. What it keeps of the code is asked above.</p></section>`;
  if (!answer) return html`<section><h3>What it means for export</h3><${Waiting} reached=${reached} /></section>`;
  const rows = answer.rows.join(", ");
  return html`<section class="export"><h3>What it means for export</h3>
    <p>${answer.outcome === "refused" ? "torch.export made no graph." : html`${grouped(answer.calls)} calls became a graph of ${grouped(answer.nodes)} operators: no Python runs in it, so it can be compiled and shipped without the code.`}</p>
    <p class="soft">${answer.said}</p>
    ${answer.site && html`<p class="small faint">${answer.site}</p><pre class="cmd">${answer.line}</pre>`}
    ${answer.fixed.length > 0 && html`<h3>Fixed in the graph</h3><ul>${answer.fixed.map((/** @type {string} */ one) => html`<li class="soft">${one}</li>`)}</ul>`}
    ${answer.trials.length > 0 && html`<h3>Tried with other rows</h3><div class="scroll"><table><thead><tr><th>rows</th><th>graph against code</th></tr></thead><tbody>
      ${answer.trials.map((/** @type {any} */ trial) => html`<tr><td>${shape(trial.rows)}</td><td>${trial.came}${trial.said ? `: ${trial.said.slice(0, 60)}` : ""}</td></tr>`)}</tbody></table></div>`}
    <p class="small faint">Exported from ${answer.rows.length === 1 ? "row" : "rows"} ${rows}.</p></section>`;
}
