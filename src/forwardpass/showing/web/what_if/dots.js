// The outputs of one row, as the model is and changed: ○ → ●.
import { html } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { row } from "fwd/state.js";
import { fixed, grouped } from "fwd/numbers.js";

const LINE = 20, LEFT = 40, RIGHT = 264;

/** @param {{name: string, edits: any[]}} given */
export function Dots({ name, edits }) {
  const { answer, refusal } = useAnswer("what_if.moved", { row: row.value, edits });
  if (refusal) return html`<section><h3>Row ${row.value}, ${name}</h3><p class="soft">${refusal.message}</p></section>`;
  if (!answer) return null;
  const { places, total, path } = answer, was = answer.was.map(Number), now = answer.now.map(Number);
  const finite = [...was, ...now].filter(Number.isFinite);
  const low = Math.min(...finite), high = Math.max(...finite);
  const x = (/** @type {number} */ value) => LEFT + 6 + (high > low ? (value - low) / (high - low) : 0.5) * (RIGHT - LEFT - 12);
  const many = places.length < total ? `the ${places.length} of ${grouped(total)} numbers that moved most` : `the ${total} numbers`;
  return html`<section><h3>Row ${row.value}: ${many} of ${path}, ${name}</h3>
    <div class="dots" tabindex="0" role="group" aria-label="outputs, as it is and changed"><svg width="296" height=${places.length * LINE + 8} viewBox="0 0 296 ${places.length * LINE + 8}" role="img"
      aria-label=${`outputs of row ${row.value}, as it is and changed; the table below has the numbers`}>
      ${places.map((/** @type {number} */ place, /** @type {number} */ at) => {
        const y = at * LINE + 14;
        return html`<text x="0" y=${y + 4} class="f">${place}</text>
          <line x1=${LEFT} x2=${RIGHT} y1=${y} y2=${y} stroke="var(--line)" />
          ${Number.isFinite(was[at]) && Number.isFinite(now[at]) && html`<line x1=${x(was[at])} x2=${x(now[at])} y1=${y} y2=${y} stroke="var(--ink)" stroke-width="2" />`}
          ${Number.isFinite(was[at]) && html`<circle cx=${x(was[at])} cy=${y} r="4" fill="var(--paper)" stroke="var(--ink-3)" stroke-width="1.5" />`}
          ${Number.isFinite(now[at]) ? html`<circle cx=${x(now[at])} cy=${y} r="4.5" fill="var(--ink)" />`
            : html`<text x="296" y=${y + 4} text-anchor="end" class="i">${fixed(now[at])}</text>`}`;
      })}</svg></div>
    <p class="small soft">○ as it is  ● changed</p>
    <details><summary class="small">The numbers as a table</summary><table><thead><tr><th class="r">place</th><th class="r">as it is</th><th class="r">changed</th></tr></thead>
      <tbody>${places.map((/** @type {number} */ place, /** @type {number} */ at) => html`<tr><td class="r">${place}</td>
        <td class="r">${fixed(was[at])}</td><td class="r">${fixed(now[at])}</td></tr>`)}</tbody></table></details></section>`;
}
