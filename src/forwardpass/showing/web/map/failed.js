// Where a pass raised: what met there, the error, what to do.
import { html } from "fwd/dom.js";
import { grouped } from "fwd/numbers.js";

/** @param {{failure: any}} given as `map.marks` has it */
export function Failed({ failure }) {
  const name = [failure.operator, failure.path && `in ${failure.path}`, failure.kind].filter(Boolean).join(" ");
  return html`<section class="failed" aria-label="where the pass failed">
    <h2><span class="neg" aria-hidden="true">\u2715</span> ${name || "Raised outside of an operator"}</h2>
    <pre class="cmd" tabindex="0">${failure.error}</pre>
    ${failure.site && html`<p class="faint small num">${failure.site}</p>`}
    ${failure.met.length > 0 && html`<h3>What met there</h3><table><tbody>${failure.met.map((/** @type {any} */ one) => html`
      <tr><td>${one.form}</td><td class="soft">${one.of && `from ${one.of}`}</td></tr>`)}</tbody></table>`}
    <h3>What to do</h3>
    ${failure.takes.length > 0 && html`<p>A copy of this layer was tried: it takes ${failure.takes.map((/** @type {string} */ one, /** @type {number} */ at) =>
      html`${at ? ", or " : ""}<code>${one}</code>`)}. Give it that, or change the layer.</p>`}
    <p>The pass was given ${failure.given.length ? failure.given.map((/** @type {string} */ one) => html`<code>${one}</code> `) : "no tensors"}.
      ${!failure.takes.length && " What this call would have taken cannot be told from here: compare what met with what the model is documented to take."}</p>
  </section>`;
}

/** @param {any} failure */
export const headline = (failure) => `The pass failed at call ${grouped(failure.call)}`;
/** @param {any} failure */
export const subline = (failure) => (failure.call
  ? `${failure.call === 1 ? "Call 0 had run and can" : `Calls 0 to ${grouped(failure.call - 1)} had run and can`} be looked at.`
  : "Nothing had run before it.");
