// Banners: what is true of the whole page, and what to do about it.
import { html } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { WARNING, WRONG } from "fwd/icons.js";
import { grouped } from "fwd/numbers.js";
import { changed, connection, exported, look } from "fwd/source.js";
import { example, row } from "fwd/state.js";
import { command } from "fwd/top.js";

/** @param {{about: any, graph: any}} given */
export function Banners({ about, graph }) {
  const files = changed.value;
  return html`${connection.value === "gone" && html`<div class="banner err" role="alert">${WRONG}<p>
      <b>The server is gone.</b> <span class="soft">What is recorded can still be read; nothing can be run.
      Start it again:</span> <code>${command(about)}</code></p>
      <span class="grow"></span><button class="btn" onClick=${look}>Try again</button></div>`}
    ${files.length > 0 && html`<div class="banner warn" role="status">${WARNING}<p>
      <b>${files.join(", ")} ${files.length > 1 ? "have" : "has"} changed since this pass.</b>
      <span class="soft"> You see the code as it was loaded, and what you run is that. Open the new one:</span> <code>${command(about)}</code></p></div>`}
    ${about.example && html`<div class="banner" role="status"><p><b>This is an example, not your model.</b>
      <span class="soft"> A small network that was trained a moment ago on drawn digits. Yours:</span>
      <code>fwd explain my_model.py --data rows.csv</code></p><span class="grow"></span>
      <button class="btn" onClick=${() => { example.value = false; location.reload(); }}>Leave it</button></div>`}
    ${graph?.failed && html`<${Failed} graph=${graph} live=${about.live && !exported} />`}`;
}

/** @param {{graph: any, live: boolean}} given */
function Failed({ graph, live }) {
  const { failed, calls } = graph;
  const trace = useAnswer(live ? "page.trace" : null, { row: row.value }).answer?.text;
  const where = failed.operator ? `${failed.operator}${failed.module && ` in ${failed.module}`}` : "outside of any call";
  return html`<div class="banner err" role="alert">${WRONG}<div><p>
    <b>The pass failed at call ${grouped(calls.name.length)}, ${where}.</b>
    <span class="soft"> The calls before it had run, and can be looked at.</span></p>
    <p><code>${failed.error}</code></p>
    ${trace && html`<details><summary>Traceback</summary><div class="cmd" tabindex="0">${trace}</div></details>`}</div></div>`;
}
