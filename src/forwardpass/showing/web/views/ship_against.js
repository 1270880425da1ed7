// A diff: this pass beside the one that it is held against.
import { html } from "fwd/dom.js";
import { grouped } from "fwd/numbers.js";

/** @type {Record<string, string>} */
const VERDICTS = {
  same: "✓ The outputs are equal, bit for bit.",
  rounding: "✓ The outputs differ by rounding.",
  differs: "✕ The outputs differ by more than rounding.",
};
/** An error, which may be tiny. @param {number | null} value */
export const small = (value) =>
  (value === null ? "–" : value === 0 ? "0" : value >= 1e-3 && value < 1e3 ? value.toPrecision(2)
    : value.toExponential(1).replace("-", "\u2212"));

/** @param {{against: any}} given */
export function Against({ against }) {
  return html`<section aria-label="against the baseline"><h2>Against the baseline</h2>
    <p class="small faint">${against.a} beside ${against.b}</p><p><b>${VERDICTS[against.verdict]}</b></p>
    <${Table} title="output" rows=${against.outputs} />
    ${against.layers.length > 0 && html`<${Table} title="layer, by what it makes" rows=${against.layers} />`}
    ${against.more > 0 && html`<p class="small faint">and ${grouped(against.more)} layers more, in the diff</p>`}
    ${against.notes.map((/** @type {string} */ note) => html`<p class="small soft">${note}</p>`)}</section>`;
}

/** @param {{title: string, rows: any[]}} given */
function Table({ title, rows }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${title}><table class="plain"><thead><tr><th>${title}</th><th class="r">relative error</th>
    <th class="r">rounding</th><th></th></tr></thead><tbody>${rows.map((one) => html`<tr>
      <td class="num">${one.name || "the module"}</td><td class="n">${small(one.relative)}</td><td class="n">${small(one.tolerance)}</td>
      <td>${one.beyond ? "✕ beyond" : "within"}${one.said && ` · ${one.said}`}</td></tr>`)}</tbody></table></div>`;
}
