// The keys and the words of the page, in a dialog.
import { html } from "fwd/dom.js";

const KEYS = [
  ["1 … 9", "the views"],
  ["a … e", "answer the prediction"],
  ["← ↑ → ↓", "move in the view"],
  ["Enter, Esc", "into, out of; Esc cancels"],
  ["Space", "play"],
  [", .", "one call back, on"],
  ["d", "4 or 16 digits, where it answers nothing"],
  ["/", "search"],
  ["?", "this"],
];
const TERMS = [
  ["call", "one operator that ran, such as conv2d"],
  ["macs", "multiply-adds: what a contraction computes"],
  ["row", "one example; a batch has several"],
  ["path", "a hash of the way through the code"],
  ["state", "parameters and buffers of the model"],
];

/** @param {{at: {current: HTMLDialogElement | null}}} given */
export function Help({ at }) {
  return html`<dialog ref=${at} aria-labelledby="keys"><h2 id="keys">Keys</h2>
    <dl class="kv">${KEYS.map(([key, what]) => html`<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`)}</dl>
    <h2>Words</h2><dl class="kv">${TERMS.map(([term, what]) => html`<dt>${term}</dt><dd>${what}</dd>`)}</dl>
    <form method="dialog"><button class="btn">Close</button></form></dialog>`;
}
