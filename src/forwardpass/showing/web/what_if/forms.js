// What else to try: each form adds a row to the table.
import { html, useState } from "fwd/dom.js";

const OPENS = { replace: "Replace…", unit: "Zero a unit…", round: "Round…", prune: "Prune…" };

/** @param {{found: any, add: (change: {name: string, edits: any[]}) => void}} given */
export function Forms({ found, add }) {
  const [open, setOpen] = useState("");
  const there = /** @type {Record<string, boolean>} */ ({
    replace: found.activations.length > 0, unit: found.layers.length > 0,
    round: found.layers.length > 0, prune: found.layers.length > 0 });
  const Form = /** @type {Record<string, any>} */ ({ replace: Replace, unit: Unit, round: Round, prune: Prune })[open];
  const added = (/** @type {any} */ change) => { add(change); };
  return html`<div class="bar forms">${Object.entries(OPENS).filter(([kind]) => there[kind]).map(([kind, words]) => html`
      <button class="btn" aria-expanded=${open === kind} aria-controls="change-form" onClick=${() => setOpen(open === kind ? "" : kind)}>${words}</button>`)}</div>
    <div id="change-form">${Form && html`<${Form} key=${open} found=${found} add=${added} />`}</div>`;
}

/** @param {{add: () => void, children?: any}} given */
function Fields({ add, children }) {
  const sent = (/** @type {Event} */ event) => { event.preventDefault(); add(); };
  return html`<form class="bar fields" onSubmit=${sent}>${children}<button class="btn main" type="submit">Try it</button></form>`;
}

/** @param {{name: string, value: any, options: [any, string][], put: (value: string) => void}} given */
function Select({ name, value, options, put }) {
  return html`<label><span class="small faint">${name}</span>
    <select value=${value} onChange=${(/** @type {any} */ event) => put(event.target.value)}>
      ${options.map(([key, words]) => html`<option value=${key}>${words}</option>`)}</select></label>`;
}

/** @param {{name: string, value: number, min: number, max: number, put: (value: number) => void}} given */
function Numeral({ name, value, min, max, put }) {
  return html`<label><span class="small faint">${name}</span><input type="number" min=${min} max=${max} step="1" required
    value=${value} onInput=${(/** @type {any} */ event) => put(event.target.valueAsNumber)} /></label>`;
}

/** @param {{found: any, add: (change: any) => void}} given */
function Replace({ found, add }) {
  const [at, setAt] = useState("0");
  const [by, setBy] = useState("identity");
  const one = found.activations[Number(at)];
  const words = by === "identity" ? `without ${one.name}` : `${one.name} → ${by}`;
  return html`<${Fields} add=${() => add({ name: words, edits: [{ ...one.edit, by }] })}>
    <${Select} name="activation" value=${at} put=${setAt} options=${found.activations.map((/** @type {any} */ a, /** @type {number} */ n) => [String(n), a.name])} />
    <${Select} name="by" value=${by} put=${setBy} options=${found.functions.map((/** @type {string} */ f) => [f, f === "identity" ? "nothing" : f])} /><//>`;
}

/** @param {{found: any, add: (change: any) => void}} given */
function Unit({ found, add }) {
  const [at, setAt] = useState("0");
  const [unit, setUnit] = useState(0);
  const one = found.layers[Number(at)];
  const edit = { edit: "unit", weight: one.weight, unit, bias: one.bias, axis: one.axis };
  return html`<${Fields} add=${() => add({ name: `unit ${unit} of ${one.path} zeroed`, edits: [edit] })}>
    <${Layers} found=${found} value=${at} put=${setAt} />
    <${Numeral} name=${`unit, 0 to ${one.units - 1}`} value=${unit} min=${0} max=${one.units - 1} put=${setUnit} /><//>`;
}

/** @param {{found: any, value: string, put: (value: string) => void, whole?: boolean}} given */
function Layers({ found, value, put, whole }) {
  const all = found.layers.map((/** @type {any} */ one, /** @type {number} */ n) => [String(n), one.path]);
  return html`<${Select} name="layer" value=${value} put=${put} options=${whole ? [["", "all of them"], ...all] : all} />`;
}

/** @param {any} found @param {string} at */
const where = (found, at) => (at === "" ? { paths: [], of: "" }
  : { paths: [found.layers[Number(at)].path], of: ` of ${found.layers[Number(at)].path}` });

/** @param {{found: any, add: (change: any) => void}} given */
function Round({ found, add }) {
  const [at, setAt] = useState("");
  const [bits, setBits] = useState(6);
  const { paths, of } = where(found, at);
  return html`<${Fields} add=${() => add({ name: `weights${of} rounded to int${bits}`, edits: [{ edit: "rounded", bits, paths }] })}>
    <${Numeral} name="bits, 2 to 16" value=${bits} min=${2} max=${16} put=${setBits} />
    <${Layers} found=${found} value=${at} put=${setAt} whole /><//>`;
}

/** @param {{found: any, add: (change: any) => void}} given */
function Prune({ found, add }) {
  const [at, setAt] = useState("");
  const [share, setShare] = useState(75);
  const { paths, of } = where(found, at);
  return html`<${Fields} add=${() => add({ name: `${share}\u2009% of the weights${of} pruned`, edits: [{ edit: "pruned", share: share / 100, paths }] })}>
    <${Numeral} name="% of the smallest" value=${share} min=${1} max=${100} put=${setShare} />
    <${Layers} found=${found} value=${at} put=${setAt} whole /><//>`;
}
