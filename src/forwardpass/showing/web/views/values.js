// Values: are they healthy?
import { html } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { row } from "fwd/state.js";
import { grouped, shape } from "fwd/numbers.js";

/** @param {{view: any}} given */
export function View({ view }) {
  const reached = useAnswer("structure.graph", { row: row.value });
  const graph = reached.answer;
  if (!graph) return html`<${Frame} view=${view}><${Waiting} reached=${reached} /><//>`;
  return html`<${Frame} view=${view} said=${`${grouped(graph.totals.calls)} calls`}>
    <table><tbody>${graph.calls.name.map((/** @type {string} */ name, /** @type {number} */ i) => html`
      <tr><td>${name}</td><td>${graph.calls.outputs[i].map((/** @type {number} */ s) => shape(graph.values.shape[s])).join(", ")}</td></tr>`)}</tbody></table>
  <//>`;
}
