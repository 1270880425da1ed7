// The table that is the waterfall: the largest terms, the rest as one, the steps, what was recorded.
import { html, useState } from "fwd/dom.js";
import { exported } from "fwd/source.js";
import { digits, shown } from "fwd/state.js";
import { grouped, short } from "fwd/numbers.js";
import { before, canBeSet, ending, focused, isSet, leadsBack, rows, scaleOf, sets, textOf, written } from "fwd/neuron/arithmetic.js";

const HIDDEN = html`<span class="faint" title="after your prediction">?</span>`;
const PAD = 0.04;

/** @param {{part: any, open: boolean, was?: any, go: (element: string) => void, ask: (step: string) => void}} given;
 * `was`: the same part before something was set */
export function Terms({ part, open, was, go, ask }) {
  const earlier = before(part.steps), shown = earlier.length ? ending(part.steps) : part.steps;
  return html`<${Table} part=${part} steps=${shown} open=${open} was=${was} go=${go} ask=${ask} ends=${true} />
    ${open && earlier.length > 0 && html`<${Earlier} part=${part} steps=${earlier} go=${go} ask=${ask} />`}`;
}

/** The steps before the last sum; the terms of the one that is chosen.
 * @param {{part: any, steps: any[], go: (element: string) => void, ask: (step: string) => void}} given */
function Earlier({ part, steps, go, ask }) {
  const [chosen, choose] = useState("");
  const folded = steps.map((step) => (step.name === chosen && step.told ? step : { ...step, told: false, terms: [], rest: null }));
  const asked = (/** @type {string} */ name) => { choose(name); if (!steps.find((step) => step.name === name)?.told) ask(name); };
  return html`<details class="earlier"><summary>The ${grouped(steps.length + part.left_out)} steps before</summary>
    <${Table} part=${part} steps=${folded} open=${true} go=${go} ask=${asked} ends=${false} /></details>`;
}

/** @param {{part: any, steps: any[], open: boolean, was?: any, go: (element: string) => void, ask: (step: string) => void, ends: boolean}} given */
function Table({ part, steps, open, was, go, ask, ends }) {
  const scale = scaleOf(steps);
  const write = (/** @type {any} */ value) => written(value, digits.value, scale);
  const all = rows(steps, open);
  const shows = { write, go, ask, open };
  return html`<div class="scroll" tabindex="0" role="region" aria-label="the arithmetic"><table class="terms">
    <caption class="vh">The arithmetic of ${textOf(part.stand)}, the largest terms first</caption>
    <thead><tr><th class="hide pl">factor</th><th><span class="vh">number</span></th><th><span class="vh">times</span></th><th class="hide">factor</th>
      <th><span class="vh">number</span></th><th><span class="vh">is</span></th><th class="r">value</th>
      <th>${open ? "running sum, from zero" : "each term, from zero"}</th></tr></thead>
    <tbody>${ends && part.chosen && html`<${Chosen} chosen=${part.chosen} go=${go} />`}${all.map((row) => {
      if (row.kind === "term") return html`<${Term} ...${row} ...${shows} />`;
      if (row.kind === "rest") return html`<${Rest} ...${row} ...${shows} />`;
      return html`<${Step} ...${row} ...${shows} last=${ends && row.step === steps.at(-1)} />`;
    })}
    ${!ends && part.left_out > 0 && html`<tr><td colspan="8" class="pl small">${grouped(part.left_out)} steps before these are not shown.</td></tr>`}
    ${ends && open && html`<${Recorded} part=${part} was=${was} write=${write} />`}</tbody></table></div>`;
}

/** By what an embedding chose its row. @param {{chosen: any, go: (element: string) => void}} given */
function Chosen({ chosen: { id, rows, stand }, go }) {
  const where = textOf(stand);
  return html`<tr class=${isSet(stand) ? "changed" : ""}><td colspan="6" class="pl">row, of the ${grouped(rows)} of the table <span class="name"><${Name}
      text=${where} stand=${stand} go=${go} /></span></td>
    <td class="r"><${Held} value=${id} stand=${stand} write=${grouped} most=${rows - 1} /></td><td></td></tr>`;
}

/** A number that can be set, or that leads back, or neither; with `most` a whole one from 0 to that.
 * @param {{value: any, stand: any, write: (value: any) => string, most?: number}} given */
function Held({ value, stand, write, most }) {
  const text = write(value);
  if (exported || !canBeSet(stand) || !shown.value?.live) return text;
  const name = textOf(stand);
  const was = sets.value[name]?.was ?? Number(value);
  return html`<button class="edit" aria-label=${`set ${name}, ${text}`} title=${name}
    onClick=${() => { focused.value = { stand, was, most }; }}>${text}</button>`;
}

/** @param {{text: string, stand: any, go: (element: string) => void}} given */
function Name({ text, stand, go }) {
  if (!leadsBack(stand)) return html`${text}`;
  const element = textOf(stand);
  return html`<button class="go" title=${`${element}: where does it come from?`} onClick=${() => go(element)}>${text} <span
    aria-hidden="true">←</span><span class="vh">, which is ${element}: where does it come from?</span></button>`;
}

/** @param {any} given */
function Term({ term, bar, write, go, open, step }) {
  const pieces = term.label.split(" · ");
  const changed = term.stands.some(isSet);
  const chosen = !step.sums && open && term.value === step.value;
  const factors = term.factors.length ? term.factors : [];
  const [first, second] = term.stands;
  const head = factors.length === 2 && pieces.length === 2
    ? html`<td class="name hide pl"><${Name} text=${pieces[0]} stand=${first} go=${go} /></td>
      <td class="r"><${Held} value=${factors[0]} stand=${first} write=${write} /></td><td class="op">×</td>
      <td class="name ${leadsBack(second) ? "" : "hide"}"><${Name} text=${pieces[1]} stand=${second} go=${go} /></td>
      <td class="r"><${Held} value=${factors[1]} stand=${second} write=${write} /></td><td class="op">=</td>`
    : html`<td colspan="5" class="name pl">${factors.length === pieces.length
        ? factors.map((/** @type {any} */ factor, /** @type {number} */ at) => html`${at > 0 && " × "}${Number.isNaN(Number(pieces[at])) && html`<${Name} text=${pieces[at]}
          stand=${term.stands[at]} go=${go} /> `}<${Held} value=${factor} stand=${term.stands[at]} write=${write} />`)
        : html`<${Name} text=${term.label} stand=${first} go=${go} />`}</td><td class="op">=</td>`;
  const lone = !factors.length && canBeSet(first);
  return html`<tr class="term ${changed ? "changed" : ""}">${head}
    <td class="r ${sign(term.value)}">${lone ? html`<${Held} value=${term.value} stand=${first} write=${write} />` : write(term.value)}</td>
    <td class="w"><${Bar} ...${bar} joined=${open && step.sums} />${chosen && html`<span class="small">chosen</span>`}</td></tr>`;
}

/** @param {any} given */
function Rest({ step, bar, write, open }) {
  return html`<tr><td colspan="5" class="name pl">the sum of ${grouped(step.count - step.terms.length)} smaller terms</td><td class="op">=</td>
    <td class="r ${sign(step.rest)}">${write(step.rest)}</td><td class="w"><${Bar} ...${bar} joined=${open} /></td></tr>`;
}

/** @param {any} given */
function Step({ step, bar, write, go, ask, open, last }) {
  const known = open || step.stand;
  const title = step.sums && step.count > 1 ? `${step.name} of ${grouped(step.count)} terms` : `${step.adds ? "+" : last ? "=" : ""} ${step.name}`;
  const strong = step.sums || last;
  return html`<tr class="${strong ? "line" : ""} ${last ? "fin" : ""} ${isSet(step.stand) ? "changed" : ""}">
    <td colspan="6" class="pl">${title} <span class="name"><${Name} text=${step.formula} stand=${step.stand} go=${go} /></span>
      ${!step.told && step.count > 0 && html` <button class="link" onClick=${() => ask(step.name)}>its ${grouped(step.count)} terms</button>`}</td>
    <td class="r">${known ? html`<${Held} value=${step.value} stand=${step.stand} write=${write} />` : HIDDEN}</td>
    <td class="w">${known && bar && html`<${Bar} ...${bar} strong=${strong} joined=${open && step.adds} />`}</td></tr>`;
}

/** @param {{part: any, was?: any, write: (value: any) => string}} given */
function Recorded({ part, was, write }) {
  if (was) {
    return html`<tr class="rec"><td colspan="6" class="pl">before your change, recorded</td><td class="r">${write(was.recorded)}</td>
      <td class="w small pl">${`moved by ${write(Number(part.recorded) - Number(was.recorded))}`}</td></tr>`;
  }
  if (part.value === null) return null;
  const difference = Number(part.difference);
  const said = difference === 0 ? "difference: none"
    : part.rounding ? `difference ${short(difference)}: rounding`
    : `difference ${write(part.difference)}: more than rounding explains`;
  return html`<tr class="rec"><td colspan="6" class="pl">what the pass computed (${part.dtype})</td><td class="r">${write(part.recorded)}</td>
    <td class="w small pl">${said}</td></tr>`;
}

/** From where the last one ended, or from zero; negative ones are hatched.
 * @param {{from?: number, by?: number, low?: number, high?: number, strong?: boolean, joined?: boolean}} given */
function Bar({ from = 0, by, low = 0, high = 0, strong = false, joined = false }) {
  if (by === undefined) return null;
  const pad = (high - low) * PAD || 1;
  const x = (/** @type {number} */ value) => `${((value - low + pad) / (high - low + 2 * pad)) * 100}%`;
  const [left, right] = [Math.min(from, from + by), Math.max(from, from + by)];
  const wide = Math.max(0.25, ((right - left) / (high - low + 2 * pad)) * 100);
  return html`<svg width="100%" height="27" aria-hidden="true">
    <line x1=${x(0)} x2=${x(0)} y1="0" y2="27" stroke="var(--line-2)" />
    ${joined && html`<line x1=${x(from + by)} x2=${x(from + by)} y1="14" y2="27" stroke="var(--ink-3)" />
      <line x1=${x(from)} x2=${x(from)} y1="0" y2="13" stroke="var(--ink-3)" />`}
    <rect x=${x(left)} y=${strong ? 6 : 8} width=${`${wide}%`} height=${strong ? 15 : 11} fill=${by < 0 ? "url(#hatch)" : "var(--pos)"} /></svg>`;
}

/** @param {number | string} value */
const sign = (value) => (Number(value) < 0 ? "neg" : "pos");
