// What every view stands in: its question, one sentence, the body, the rail with its prediction.
import { html } from "fwd/dom.js";
import { Predictions } from "fwd/prediction.js";

/** `asks`: what the predictions are asked with, beside the row.
 * @param {{view: any, said?: any, rail?: any, asks?: Record<string, unknown>, children?: any}} given */
export function Frame({ view, said, rail, asks, children }) {
  return html`<div class="head"><h1>${view.question}</h1><p>${said}</p></div>
    <div class="body">${children}</div>
    <aside class="rail"><${Predictions} view=${view.file} asks=${asks} />${rail}</aside>`;
}

/** While an answer is on its way, or where there is none.
 * @param {{reached: any}} given */
export function Waiting({ reached }) {
  if (reached.refusal) return html`<div class="state"><p>${reached.refusal.message}</p></div>`;
  const { progress } = reached;
  return html`<div class="state" aria-busy="true"><p>${progress
    ? `${progress.stage}: ${progress.done} of ${progress.total}` : "Asking…"}</p></div>`;
}
