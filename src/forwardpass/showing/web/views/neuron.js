// Neuron: where does this number come from?
import { signal } from "@preact/signals";
import { html, useEffect, useRef, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { digits, element, row, said } from "fwd/state.js";
import { grouped } from "fwd/numbers.js";
import { told } from "fwd/prediction.js";
import { change, focused, sets, textOf, written } from "fwd/neuron/arithmetic.js";
import { Others, Picker } from "fwd/neuron/picker.js";
import { Picture } from "fwd/neuron/picture.js";
import { Outputs, SetOne } from "fwd/neuron/setting.js";
import { Terms } from "fwd/neuron/terms.js";

/** The elements that led to the one that is looked at. */
const trail = signal(/** @type {string[]} */ ([]));

/** The element of which something was predicted for this row: of that the prediction is. */
function predicted() {
  const [start, end] = ["neuron:", `:${row.value}`];
  const key = Object.keys(said.value).find((one) => one.startsWith(start) && one.endsWith(end));
  return key?.slice(start.length, -end.length).replace(/^\S+ /, "");
}

/** An answer that stays while the next one is on its way.
 * @param {string} of @param {Record<string, unknown>} given */
function useLasting(of, given) {
  const reached = useAnswer(of, given);
  const last = useRef(/** @type {any} */ (null));
  if (reached.answer || reached.refusal) last.current = reached.answer ?? null;
  return { ...reached, lasting: reached.answer ?? last.current };
}

/** @param {{view: any}} given */
export function View({ view }) {
  const [step, setStep] = useState("");
  const changed = change();
  const asked = { row: row.value, element: element.value };
  const reached = useLasting("neuron.element", { ...asked, step: step || undefined, change: changed });
  const neuron = reached.lasting;
  // Asked of one element of a row; once something was said of it the others stand open with it, and
  // the question stays that one, in the very words in which it was asked.
  const earlier = predicted();
  const first = useRef({ row: row.value, text: element.value });
  if (earlier === undefined) first.current = { row: row.value, text: element.value };
  const about = earlier === undefined || first.current.row === row.value ? first.current.text : earlier;
  const before = useAnswer(changed ? "neuron.element" : null, { ...asked, step: step || undefined });
  const asks = useLasting("neuron.predictions", { row: row.value, element: about }).lasting;
  const rowNow = row.value;
  useEffect(() => () => { sets.value = {}; focused.value = null; }, [rowNow]);
  const open = asks ? asks.predictions.every((/** @type {any} */ one) => !one.hides.includes("sum") || told("neuron", one.id)) : false;
  const put = (/** @type {string} */ text) => { trail.value = []; setStep(""); element.value = text; };
  const go = (/** @type {string} */ text) => {
    if (neuron) trail.value = [...trail.value, neuron.element];
    setStep("");
    element.value = text;
  };
  const back = (/** @type {number} */ at) => {
    const text = trail.value[at];
    trail.value = trail.value.slice(0, at);
    setStep("");
    element.value = text;
  };
  const asking = { element: about };
  if (!neuron) {
    return html`<${Frame} view=${view} asks=${asking} said=${reached.refusal ? "Pick a number that a call computed." : ""}>
      <${Waiting} reached=${reached} />${reached.refusal && html`<${Others} put=${put} />`}<//>`;
  }
  const rail = html`<${SetOne} /><${Outputs} hidden=${neuron.in_output && !open} />`;
  return html`<${Frame} view=${view} asks=${asking} said=${sentence(neuron, open)} rail=${rail}>
    <div aria-busy=${!reached.answer}>
      <${Picker} neuron=${neuron} trail=${trail.value} back=${back} put=${put} />
      ${!reached.answer && html`<p class="small soft late" role="status">The pass is running: these are the numbers before.</p>`}
      ${neuron.parts[0].lacking ? html`<${Lacking} part=${neuron.parts[0]} />` : html`
        <${Picture} parts=${neuron.parts} picture=${neuron.picture} open=${open} go=${go} />
        <${Terms} part=${neuron.parts[0]} open=${open} was=${changed && reached.answer ? before.answer?.parts[0] : undefined} go=${go} ask=${setStep} />`}
      <p class="small faint place">${neuron.parts[0].operator} at ${neuron.parts[0].site}</p>
      <${Others} neuron=${neuron} put=${put} /></div><//>`;
}

/** @param {any} neuron @param {boolean} open */
function sentence(neuron, open) {
  const [first, ...rest] = neuron.parts;
  const write = (/** @type {any} */ value) => written(value, 4, Math.abs(Number(value)) || 1);
  if (first.lacking) return `${neuron.element} is ${write(first.recorded)}. Its arithmetic is not written out.`;
  const summed = first.steps.findLast((/** @type {any} */ step) => step.sums && step.count > 1);
  const products = summed?.terms.every((/** @type {any} */ term) => term.factors.length === 2);
  const come = products ? `${grouped(summed.count)} inputs, each times its own weight` : summed ? `${grouped(summed.count)} terms` : `${first.kind} computes one number`;
  if (!open) return `${come}. What comes out of it?`;
  const biased = first.steps.some((/** @type {any} */ step) => step.adds) ? ", plus a bias" : "";
  const then = rest.map((/** @type {any} */ part) => ` ${part.kind} makes it ${write(part.recorded)}.`).join("");
  return `${come}${summed ? "; added up" : ""}${biased}: ${write(first.recorded)}.${then}`;
}

/** Where there is no breakdown: what it was made of. @param {{part: any}} given */
function Lacking({ part }) {
  return html`<div class="state"><p>There is no breakdown of ${textOf(part.stand) || "this number"}: ${part.lacking}.</p>
    <dl class="kv">${part.inputs.map((/** @type {string} */ said) => html`<dt>from</dt><dd>${said}</dd>`)}
      <dt>it is</dt><dd>${written(part.recorded, digits.value, Math.abs(Number(part.recorded)) || 1)}</dd></dl></div>`;
}
