// Nothing to look at yet: the command to type, and an example that says that it is not your model.
import { html } from "fwd/dom.js";
import { MARK } from "fwd/icons.js";
import { exported } from "fwd/source.js";
import { example } from "fwd/state.js";

export function Empty() {
  return html`<header><div class="top"><div class="mark">${MARK}<span>forwardpass</span></div></div></header>
    <main class="alone"><h1>Nothing to look at yet</h1><p class="soft">This page shows one forward pass of your own model.
      Give it one:</p>
    <div class="state"><div class="cmd" tabindex="0">fwd explain my_model.py --data rows.csv</div>
      <p class="soft">or, in Python or a notebook</p>
      <div class="cmd" tabindex="0">fwd.record(model, inputs).show()</div>
      ${!exported && html`<button class="btn" onClick=${() => { example.value = true; }}>Look at an example</button>
      <p class="small faint">The example is a small network for drawn digits. It is not your model.</p>`}</div></main>`;
}
