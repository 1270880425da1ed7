// Ship: is it safe to serve? Findings with remedies, plans, a baseline, a server.
import { html, useEffect, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { told } from "fwd/prediction.js";
import { exported } from "fwd/source.js";
import { call, view as place } from "fwd/state.js";
import { grouped, percent, seconds } from "fwd/numbers.js";
import { Against } from "fwd/views/ship_against.js";
import { Plans } from "fwd/views/ship_plans.js";
import { Server } from "fwd/views/ship_server.js";

const SIGNS = { error: "✕", warning: "!", note: "·" };
const many = (/** @type {number} */ count, /** @type {string} */ thing) =>
  `${grouped(count)} ${thing}${count === 1 ? "" : thing.endsWith("s") ? "es" : "s"}`;

/** @param {{view: any, about: any}} given */
export function View({ view, about }) {
  const [run, setRun] = useState(false);
  const seen = told("ship", "pitfall");
  const beside = useAnswer("ship.beside").answer;
  const can = beside?.can_check ?? false;
  const checked = useAnswer(can && seen ? "ship.findings" : null, { run });
  const again = () => (run ? checked.again() : setRun(true));
  const rail = beside && html`<${Rail} beside=${beside} />`;
  return html`<${Frame} view=${view} said=${sentence(checked.answer, can, seen)} rail=${rail}>
    <div class=${beside?.plans || beside?.against ? "ship two" : "ship"}>
      <section aria-label="findings"><h2>Findings</h2>
        ${!beside ? null : !can ? html`<p class="soft">Nothing was saved of a check, and there is no model to check.</p>`
          : !seen ? html`<p class="soft">After your prediction.</p>`
          : checked.answer ? html`<${Findings} checked=${checked.answer} again=${about.live && !exported ? again : null} />`
          : html`<${Waiting} reached=${checked} />`}
      </section>
      ${(beside?.plans || beside?.against) && html`<div class="stack">
        ${beside.plans && html`<${Plans} plans=${beside.plans} />`}
        ${beside.against && html`<${Against} against=${beside.against} />`}</div>`}
    </div>
    ${beside?.printed.map((/** @type {any} */ one) => html`<section class="after"><h2>${one.title}</h2>
      <pre class="cmd" tabindex="0" aria-label=${one.title}>${one.text}</pre></section>`)}
  <//>`;
}

/** @param {any} checked @param {boolean} can @param {boolean} seen */
function sentence(checked, can, seen) {
  if (!can) return "What was saved stands here; a model of its own can be checked.";
  if (!seen || !checked) return "Each rule makes the pass again with something changed, and measures.";
  const { found, quiet, skipped, rows, passes } = checked;
  const of = rows ? ` at ${many(rows, "row")} together` : "";
  const loud = new Set(found.map((/** @type {any} */ one) => one.rule)).size;
  return `${many(quiet.length + loud, "rule")} looked${of}, in ${many(passes, "pass")} of their own: `
    + `${many(loud, "rule")} found something, ${grouped(quiet.length)} nothing; ${grouped(skipped.length)} had nothing to measure.`;
}

/** @param {{checked: any, again: (() => void) | null}} given */
function Findings({ checked, again }) {
  const { found, quiet, skipped, ignored, saved } = checked;
  return html`<ol class="finds">
    ${found.map((/** @type {any} */ one) => html`<li class=${one.severity}>
      <i aria-hidden="true">${SIGNS[/** @type {"error"} */ (one.severity)]}</i>
      <div><p><b>${one.rule}</b> <span class="faint">${one.severity}</span>
          ${one.place && html` <span class="num soft">${one.place}</span>`}</p>
        <p class="soft">${one.message}</p><p>→ ${one.remedy}</p>
        ${one.call >= 0 && html`<p><button class="link" onClick=${() => { call.value = one.call; place.value = 2; }}>See the call</button></p>`}
        <${Evidence} evidence=${one.evidence} /></div></li>`)}
    ${quiet.length > 0 && html`<li class="fine"><i aria-hidden="true">✓</i><div>
      <p><b>Nothing found by ${many(quiet.length, "rule")}</b></p><p class="soft">${quiet.join(", ")}</p></div></li>`}
    ${skipped.map((/** @type {any} */ one) => html`<li><i aria-hidden="true">–</i><div>
      <p><b>Skipped: ${one.rule}</b></p><p class="soft">${one.reason}</p></div></li>`)}
  </ol>
  ${ignored > 0 && html`<p class="small faint">${many(ignored, "finding")} left out, as comments or pyproject.toml say.</p>`}
  <p class="small faint">${saved ? "This check was made before." : "Checked here."}${` The pass takes ${seconds(checked.pass_seconds)}; the check took ${seconds(checked.seconds)}.`}</p>
  ${again && html`<p><button class="btn" onClick=${again}>Run the check again</button></p>`}`;
}

/** What was measured, by name. @param {{evidence: Record<string, any>}} given */
function Evidence({ evidence }) {
  const names = Object.keys(evidence);
  if (!names.length) return null;
  return html`<details><summary class="small">measured</summary><dl class="kv">${names.map((name) => html`
    <dt>${name.replaceAll("_", " ")}</dt><dd>${worded(name, evidence[name])}</dd>`)}</dl></details>`;
}

/** @param {string} name @param {any} value */
function worded(name, value) {
  if (typeof value !== "number") return String(value);
  if (name.endsWith("seconds")) return seconds(value);
  if (name.endsWith("share")) return percent(value, 1);
  return Number.isInteger(value) ? grouped(value) : String(Number(value.toPrecision(4))).replace("-", "\u2212");
}

/** @param {{beside: any}} given */
function Rail({ beside }) {
  return html`
    <section><h3>Against the baseline</h3>${beside.against
      ? html`<p>Beside ${beside.against.b}: ${beside.against.verdict === "differs" ? "the outputs differ" : "as before"}.</p>`
      : html`<p class="soft">No diff was given. <code>fwd diff A B --show</code> opens one beside the pass.</p>`}</section>
    <section><h3>Server</h3>${beside.server && !exported ? html`<${Server} url=${beside.server} />`
      : html`<p class="soft">None is watched. With <code>--server URL</code> of a <code>fwd serve</code>, batch sizes and queue stand here, live.</p>`}</section>
    ${beside.commands.length > 0 && html`<section><h3>Go on in a terminal</h3><ul class="cmds">
      ${beside.commands.map((/** @type {any} */ one) => html`<li><p class="small soft">${one.does}</p><${Copied} text=${one.text} /></li>`)}</ul></section>`}`;
}

/** A command, and a button that copies it. @param {{text: string}} given */
function Copied({ text }) {
  const [done, setDone] = useState("");
  useEffect(() => {
    if (!done) return;
    const later = setTimeout(() => setDone(""), 2000);
    return () => clearTimeout(later);
  }, [done]);
  const copy = () => navigator.clipboard?.writeText(text)
    .then(() => setDone("copied"), () => setDone("select it, and copy it by hand"));
  return html`<pre class="cmd" tabindex="0" aria-label="command">${text}</pre>
    <p class="row"><button class="link" aria-label=${`copy ${text}`} onClick=${copy}>Copy</button><span class="small faint" role="status">${done}</span></p>`;
}
