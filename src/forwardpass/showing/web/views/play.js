// Play: what goes in and out, step by step?
import { html, useEffect, useRef, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { told } from "fwd/prediction.js";
import { call, element, row, view as place } from "fwd/state.js";
import { grouped, percent, seconds, shape } from "fwd/numbers.js";
import { Scrubber, Times } from "fwd/play/scrubber.js";
import { Lines } from "fwd/play/lines.js";
import { Tensor } from "fwd/tensors.js";

const STEP_MS = 800;
const NEURON = 3;

/** @param {{view: any}} given */
export function View({ view }) {
  const reached = useAnswer("play.score", { row: row.value });
  const score = reached.answer;
  if (!score) return html`<${Frame} view=${view}><${Waiting} reached=${reached} /><//>`;
  if (!score.names.length) return html`<${Frame} view=${view} said="The pass makes no calls."><${Failure} failed=${score.failed} /><//>`;
  return html`<${Player} view=${view} score=${score} />`;
}

/** @param {{view: any, score: any}} given */
function Player({ view, score }) {
  const last = score.names.length - 1, at = Math.min(Math.max(0, call.value), last);
  const [playing, setPlaying] = useState(false);
  const times = useAnswer(told(view.file, "cost") ? "play.times" : null, { row: row.value }).answer;
  const growth = useAnswer(told(view.file, "nodes") ? "play.growth" : null, { row: row.value }).answer;
  const reached = useAnswer("play.step", { call: at, row: row.value });
  const before = useRef(/** @type {any} */ (null));
  if (reached.answer) before.current = reached.answer;
  const step = reached.answer ?? before.current;
  const go = (/** @type {number} */ to) => { call.value = Math.min(last, Math.max(0, to)); };
  const play = () => {
    if (!playing && at === last) go(0);
    setPlaying(!playing);
  };
  useKeys({ ",": () => go(at - 1), ".": () => go(at + 1), " ": play });
  useEffect(() => {
    if (!playing) return;
    if (at === last) return setPlaying(false);
    const soon = setTimeout(() => go(at + 1), STEP_MS);
    return () => clearTimeout(soon);
  }, [playing, at]);
  const rest = last - at;
  const said = html`<span aria-live="polite">Call ${grouped(at)}: ${score.names[at]}${step?.call === at && step.path && ` in ${step.path} ${step.kind}`}.
    ${rest ? ` ${grouped(rest)} of ${grouped(last + 1)} calls have not run yet.` : score.failed ? "" : " The pass is done."}</span>`;
  return html`<${Frame} view=${view} said=${said} rail=${step && html`<${Facts} step=${step} times=${times} />`}>
    <${Scrubber} score=${score} at=${at} go=${go} playing=${playing} play=${play} times=${times} />
    ${reached.refusal && html`<${Waiting} reached=${reached} />`}
    ${step && html`<${InAndOut} step=${step} growth=${growth} /><${Lines} source=${step.source} />`}
    ${rest === 0 && html`<${Failure} failed=${score.failed} />`}
    ${times && html`<${Times} score=${score} times=${times} />`}
    <${Plain} /><//>`;
}

/** Keys of this view, besides those that hold everywhere. @param {Record<string, () => void>} keys */
function useKeys(keys) {
  const now = useRef(keys);
  now.current = keys;
  useEffect(() => {
    const pressed = (/** @type {KeyboardEvent} */ event) => {
      const target = /** @type {HTMLElement} */ (event.target);
      const act = now.current[event.key];
      if (!act || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (target.matches("input:not([type=range]), select, textarea") || target.closest("dialog")) return;
      if (event.key === " " && target.matches("button, summary, a")) return; // which it presses
      event.preventDefault();
      act();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}

/** @param {{failed: string}} given */
function Failure({ failed }) {
  return failed ? html`<p class="neg"><b>Here the pass raised:</b> ${failed}</p>` : null;
}

/** @param {{step: any, growth: any}} given */
function InAndOut({ step, growth }) {
  return html`<h2 class="vh">What goes in, and what comes out</h2><div class="io">
    <${Side} word="in" values=${step.takes} />
    <div class="op"><${Arrow} /><p class="f">${step.formula}</p><p class="soft">${step.said}</p><${Arrow} />
      <${Grown} step=${step} growth=${growth} /></div>
    <${Side} word="out" values=${step.gives} />
    ${step.more > 0 && html`<p class="small faint">${step.more} more are not shown.</p>`}</div>`;
}

const Arrow = () => html`<svg class="arrowline" width="120" height="12" aria-hidden="true">
  <path d="M0 6H112M106 2 112 6 106 10" stroke="var(--line-2)" fill="none" /></svg>`;

/** @param {{word: string, values: any[]}} given */
function Side({ word, values }) {
  if (!values.length) return html`<div><h3>${word}</h3><p class="small soft">No tensor.</p></div>`;
  return html`<div class="stack">${values.map((one) => html`<figure key=${one.value}>
    <h3>${word} <span class="num">${shape(one.shape)} ${one.dtype}</span>${one.name && html` <code>${one.name}</code>`}</h3>
    <div class="tiles"><${Tensor} value=${one.value} dtype=${one.dtype} pixels=${one.origin === "input"}
      title="${word}: ${one.name || "value"} ${shape(one.shape)}" /></div></figure>`)}</div>`;
}

/** @param {{step: any, growth: any}} given */
function Grown({ step, growth }) {
  if (!growth) return null;
  const made = growth.nodes[step.call] ?? [];
  const count = growth.before + growth.nodes.slice(0, step.call + 1).flat().length;
  const all = growth.before + growth.nodes.flat().length;
  return html`<p class="small faint">${made.length ? html`graph node, made by this call:<br /><code>${made.join(" ")}</code>` : "this call makes no graph node"}<br />
    ${grouped(count)} of ${grouped(all)} exist now</p>${growth.note && html`<p class="small faint">${growth.note}</p>`}`;
}

/** @param {{step: any, times: any}} given */
function Facts({ step, times }) {
  const at = times ? times.calls.indexOf(step.call) : -1;
  const shown = (/** @type {(at: number) => string} */ text) => (!times ? "?" : at < 0 ? "not timed" : text(at));
  const facts = [
    ["module", [step.path, step.kind].filter(Boolean).join(" ") || "the pass itself"],
    ["operator", dotted(step.operator)], ["does", step.does],
    ["parameters", grouped(step.elements)], ["macs", step.macs === null ? "not known" : grouped(step.macs)],
    ["share of macs", step.share === null ? "\u2013" : percent(step.share, step.share && step.share < 0.01 ? 2 : 0)],
    ["time, alone", shown((n) => seconds(times.median[n]))],
    ["10\u201375\u2009%", shown((n) => `${seconds(times.low[n])} … ${seconds(times.high[n])}`)],
  ];
  const [first] = step.gives;
  const explain = () => {
    element.value = `#${step.call}[${first.shape.map(() => 0).join(", ")}]`;
    place.value = NEURON;
  };
  return html`<section><h3>This call</h3><dl class="kv">${facts.map(([name, text]) => html`<dt>${name}</dt><dd>${text}</dd>`)}</dl>
    ${step.reads.length > 0 && html`<h3 class="gap">It reads</h3><dl class="kv">${step.reads.map((/** @type {any} */ one) => html`<dt class="mono">${one.name}</dt><dd>${shape(one.shape)}</dd>`)}</dl>`}
    ${first && first.shape.length > 0 && html`<p class="gap"><button class="link" onClick=${explain}>Explain one number of it</button></p>`}</section>`;
}

/** A name that may break behind its dots. @param {string} name */
const dotted = (name) => name.split(/(?<=\.)/).map((part, at) => html`${at > 0 && html`<wbr />`}${part}`);

/** The pass as plain code, beside the module. */
function Plain() {
  const [open, setOpen] = useState(false);
  const { answer, refusal } = useAnswer(open ? "play.code" : null, { row: row.value });
  return html`<details class="gap" onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary>The whole pass as plain code</summary>
    ${refusal && html`<p class="soft">${refusal.message}</p>`}
    ${answer && html`<pre class="cmd" tabindex="0" aria-label="the pass as plain torch code">${answer.text}</pre>`}</details>`;
}
