// Values that take much memory are recorded when somebody asks for them.
import { html } from "fwd/dom.js";
import { bytes, grouped } from "fwd/numbers.js";
import { keeping } from "fwd/state.js";

const LARGE_BYTES = 256e6;

/** What the values of a pass take. @param {any} graph */
function sizeOf(graph) {
  const { shape, dtype, origin } = graph.values;
  let sum = 0;
  for (let n = 0; n < shape.length; n++) {
    if (origin[n] !== "call") continue;
    const bits = Number(/\d+/.exec(dtype[n])?.[0] ?? 8);
    sum += (shape[n].reduce((/** @type {number} */ a, /** @type {number} */ b) => a * b, 1) * bits) / 8;
  }
  return sum;
}

/** Whether somebody should be asked first. @param {any} graph */
export const isLarge = (graph) => graph !== null && !keeping.value && sizeOf(graph) > LARGE_BYTES;

/** @param {{view: any, graph: any}} given */
export function Unrecorded({ view, graph }) {
  return html`<div class="head"><h1>${view.question}</h1><p>These values were not recorded in this pass.</p></div>
    <div class="body"><div class="state"><p>To see them the pass must run again and keep its values:
      <b class="num">${bytes(sizeOf(graph))}</b> for ${grouped(graph.totals.calls)} calls.</p>
      <button class="btn main" onClick=${() => { keeping.value = true; }}>Record this</button></div></div>`;
}
