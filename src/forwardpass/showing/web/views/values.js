// Values: are they healthy?
import { html, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { told } from "fwd/prediction.js";
import { call, view as place } from "fwd/state.js";
import { fixed, grouped, percent } from "fwd/numbers.js";
import { Bins, Channels, Histogram } from "fwd/values/histogram.js";

const SHOWN = 8; // activations, before more are asked for
const PLAY = 2;
const WHAT_IF = 8;

/** @param {{view: any}} given */
export function View({ view }) {
  const reached = useAnswer("values.health");
  const [shown, setShown] = useState(SHOWN);
  const health = reached.answer;
  if (!health) return html`<${Frame} view=${view} said="Every row goes in once."><${Waiting} reached=${reached} /><//>`;
  const open = told(view.file, "zeros");
  const rows = `${grouped(health.rows)} row${health.rows === 1 ? "" : "s"}${health.rows < health.of ? ` of ${grouped(health.of)}` : ""}`;
  const said = `${rows}, every number of every activation. Line: before the activation. Filled: after it. Heights go by square root, so that tails can be seen.`;
  const rest = health.watched.length - shown;
  return html`<${Frame} view=${view} said=${said} rail=${html`<${Found} health=${health} open=${open} />`}>
    <div class="stack">${health.watched.slice(0, shown).map((/** @type {any} */ one) => html`<${One} key=${`${one.call} ${one.name}`} one=${one} open=${open} />`)}
    ${!health.watched.length && html`<p class="soft">No activation, and no output, holds floating numbers.</p>`}
    ${rest > 0 && html`<p><button class="btn" onClick=${() => setShown(shown + 4 * SHOWN)}>Show ${grouped(Math.min(rest, 4 * SHOWN))} more of ${grouped(rest)}</button></p>`}</div><//>`;
}

/** @param {any} one */
const nameOf = (one) => (one.after ? [one.path, one.kind].filter(Boolean).join(" ") || one.name : one.name);

/** @param {{one: any, open: boolean}} given */
function One({ one, open }) {
  const title = nameOf(one), { before, after } = one;
  const number = (/** @type {number | null} */ value) => fixed(value, 3);
  const once = (/** @type {any} */ text) => (open ? text : "?");
  /** @type {[string, any][]} */
  const facts = [
    [after ? "before: min" : "min", number(before.min)], ["mean", number(before.mean)], ["spread σ", number(before.std)], ["max", number(before.max)],
  ];
  if (after) {
    facts.push(["after: mean", once(number(after.mean))]);
    if (one.channels.length) facts.push(["dead channels", once(one.dead.length ? `✕ ${listed(one.dead)}` : "none")]);
    facts.push(["dead units", once(one.units === null ? "rows differ in size" : `${grouped(one.dead_units)} of ${grouped(one.units)}`)]);
    if (one.saturated !== null) facts.push(["saturated", once(percent(one.saturated, 1))]);
  } else facts.push(["exactly zero", once(percent(before.zeros / before.count, 1))]);
  facts.push(["NaN, Inf", faults(before, after)]);
  return html`<section class="vital"><div><h2>${title}${!after && title !== "output" && ": an output"}${one.calls > 1 && html` <span class="small faint">${grouped(one.calls)} calls</span>`}</h2>
      <${Histogram} before=${before} after=${after} told=${open} title=${title} />
      ${one.channels.length > 1 && html`<${Channels} shares=${one.channels} told=${open} title=${title} />`}
      ${open && html`<${Bins} before=${before} after=${after} />`}</div>
    <div><dl class="kv">${facts.map(([name, text]) => html`<dt>${name}</dt><dd>${text}</dd>`)}</dl>
      ${one.saturation && html`<p class="small faint gap">Saturated: ${one.saturation}.</p>`}
      ${one.call >= 0 && html`<p class="gap"><button class="link" onClick=${() => { call.value = one.call; place.value = PLAY; }}>See its numbers in Play</button></p>`}</div></section>`;
}

/** @param {number[]} places */
const listed = (places) => (places.length > 12 ? `${places.slice(0, 12).join(", ")} … (${grouped(places.length)})` : places.join(", "));

/** @param {any} before @param {any} after */
function faults(before, after) {
  const last = after ?? before;
  const found = [last.nan && `${grouped(last.nan)} NaN`, last.inf && `${grouped(last.inf)} Inf`].filter(Boolean);
  return found.length ? html`<span class="neg">× ${found.join(", ")}</span>` : "none";
}

/** @param {{health: any, open: boolean}} given */
function Found({ health, open }) {
  const dead = open ? health.watched.filter((/** @type {any} */ one) => one.dead.length) : [];
  const raised = Object.entries(health.raised);
  return html`<section><h3>Found</h3>
    ${[health.nan, health.inf].filter(Boolean).map((one) => html`<div class="finding"><p><b>▲ The first ${one.what} comes from ${one.call < 0 ? one.where : `call ${grouped(one.call)}: ${one.where}`}.</b></p>
      <p class="soft">${grouped(one.count)} in row ${one.row}; ${grouped(one.rows)} of ${grouped(health.rows)} rows have some.</p>
      ${one.call >= 0 && html`<p><button class="link" onClick=${() => { call.value = one.call; place.value = PLAY; }}>Look at this call in Play</button></p>`}</div>`)}
    ${dead.map((/** @type {any} */ one) => html`<div class="finding"><p><b>▲ ${nameOf(one)}: ${one.dead.length === 1 ? "channel" : "channels"} ${listed(one.dead)} never ${one.dead.length === 1 ? "fires" : "fire"}.</b></p>
      <p class="soft">On none of the ${grouped(one.rows)} rows.</p>
      <p><button class="link" onClick=${() => { place.value = WHAT_IF; }}>Take them out in What if</button></p></div>`)}
    ${!health.nan && !health.inf && html`<p class="soft">No NaN and no Inf in any value of the pass.</p>`}
    ${open && !dead.length && html`<p class="soft">No channel is always zero.</p>`}
    ${health.parted > 0 && html`<p class="soft">${grouped(health.parted)} rows went another way through the code than the first one; from there on their numbers are not counted.</p>`}
    ${raised.length > 0 && html`<p class="neg">${grouped(raised.length)} rows raised; row ${raised[0][0]}: ${raised[0][1]}</p>`}</section>`;
}
