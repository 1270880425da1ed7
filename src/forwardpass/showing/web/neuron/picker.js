// Which element: the trail that led to it, a stepper for each axis, all that can be picked, a map.
import { html, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { digits, row } from "fwd/state.js";
import { shape } from "fwd/numbers.js";
import { Tensor } from "fwd/tensors.js";
import { elementOf } from "fwd/neuron/arithmetic.js";

const OFFERED = 60;

/** @param {{neuron: any, trail: string[], back: (at: number) => void, put: (element: string) => void}} given */
export function Picker({ neuron, trail, back, put }) {
  const { owner, index, shape: sizes, axes } = neuron;
  const step = (/** @type {number} */ axis, /** @type {number} */ to) => {
    const at = Math.min(sizes[axis] - 1, Math.max(0, Math.trunc(to) || 0));
    put(elementOf(owner, index.map((/** @type {number} */ old, /** @type {number} */ i) => (i === axis ? at : old))));
  };
  return html`<div class="row picks"><nav class="trail" aria-label="the way here">${trail.map((text, at) => html`
      <button onClick=${() => back(at)}>${text}</button><span class="sep" aria-label="comes from">←</span>`)}<b>${neuron.element}</b></nav>
    <span class="grow"></span>${sizes.map((/** @type {number} */ size, /** @type {number} */ axis) => size > 1 && html`
      <${Stepper} name=${axes[axis]} at=${index[axis]} size=${size} step=${(/** @type {number} */ to) => step(axis, to)} />`)}
    <button class="btn" onClick=${() => { digits.value = digits.value === 4 ? 16 : 4; }}>${digits.value === 4 ? "16 digits" : "4 digits"} <kbd
      aria-hidden="true">d</kbd></button></div>`;
}

/** @param {{name: string, at: number, size: number, step: (to: number) => void}} given */
function Stepper({ name, at, size, step }) {
  return html`<span class="row stepper" role="group" aria-label="${name}, of ${size}"><span class="small faint">${name}</span>
    <button class="icon" disabled=${at === 0} aria-label="${name} minus one" onClick=${() => step(at - 1)}>‹</button>
    <input class="num" type="number" min="0" max=${size - 1} value=${at} aria-label=${name} style=${{ width: `${String(size - 1).length + 2}ch` }}
      onChange=${(/** @type {any} */ event) => step(Number(event.target.value))} />
    <button class="icon" disabled=${at === size - 1} aria-label="${name} plus one" onClick=${() => step(at + 1)}>›</button></span>`;
}

/** Another element: by name, or by a click on the map of the tensor.
 * @param {{neuron?: any, put: (element: string) => void}} given */
export function Others({ neuron, put }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary>Pick another element</summary>
    ${open && html`<${Names} put=${put} />${neuron && html`<${Tensor} value=${neuron.value} title=${neuron.owner} dtype=${neuron.dtype}
      picked=${(/** @type {number[]} */ index) => put(elementOf(neuron.owner, index))} />`}`}</details>`;
}

/** @param {{put: (element: string) => void}} given */
function Names({ put }) {
  const { answer, refusal } = useAnswer("neuron.places", { row: row.value });
  const [text, setText] = useState("");
  const all = /** @type {string[]} */ (answer?.name ?? []);
  const found = all.map((name, at) => ({ name, at })).filter(({ name, at }) => `${name} ${answer.made_by[at]}`.toLowerCase().includes(text.toLowerCase()));
  const asked = (/** @type {Event} */ event) => {
    event.preventDefault();
    const at = all.indexOf(text.trim());
    if (text.trim()) put(at < 0 ? text.trim() : elementOf(text.trim(), answer.shape[at].map(() => 0)));
  };
  if (refusal) return html`<p class="small soft">${refusal.message}</p>`;
  return html`<form class="row pickname" onSubmit=${asked}><label class="small" for="pickname">module, call or output</label>
      <input id="pickname" class="num" value=${text} placeholder="fc1[0, 7]" autocomplete="off" onInput=${(/** @type {any} */ event) => setText(event.target.value)} />
      <button class="btn">Show</button></form>
    <div class="scroll offered" tabindex="0" role="region" aria-label="what can be picked"><table class="plain"><thead><tr><th>element of</th><th class="r">shape</th><th>made by</th></tr></thead>
      <tbody>${found.slice(0, OFFERED).map(({ name, at }) => html`<tr><td><button class="link" onClick=${() => put(elementOf(name, answer.shape[at].map(() => 0)))}>${name}</button></td>
        <td class="n">${shape(answer.shape[at])}</td><td>${answer.made_by[at]}</td></tr>`)}</tbody></table></div>
    ${found.length > OFFERED && html`<p class="small faint">${found.length - OFFERED} more: type a part of the name.</p>`}`;
}
