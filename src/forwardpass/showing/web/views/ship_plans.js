// The plans of a tuning: error against what the goal asks for, and the table behind it.
import { html } from "fwd/dom.js";
import { bytes, count, grouped, seconds } from "fwd/numbers.js";
import { small } from "fwd/views/ship_against.js";

const W = 500, H = 240, LEFT = 64, RIGHT = 16, TOP = 24, BOTTOM = 36;
/** @type {Record<string, (value: number) => string>} */
const UNITS = { "rows/s": (value) => `${count(Math.round(value))}/s`, s: seconds, B: bytes };
const times = (/** @type {number} */ value) => `${value.toPrecision(3)}\u2009×`;

/** @param {{plans: any}} given */
export function Plans({ plans }) {
  const said = UNITS[plans.unit];
  const drawn = plans.plans.filter((/** @type {any} */ one) => one.value !== null && one.error !== null);
  const measured = plans.plans.filter((/** @type {any} */ one) => one.value !== null);
  const better = `${plans.least ? "left" : "right"} and low is better`;
  return html`<section aria-label="plans">
    <h2>Plans: error against ${plans.unit === "rows/s" ? "rows a second" : plans.unit === "s" ? `time (${plans.goal})` : plans.goal}</h2>
    <p class="small faint">${better}; a line is the interval; a dashed line, where there is one, the budget</p>
    ${drawn.length ? html`<${Picture} plans=${plans} drawn=${drawn} said=${said} />`
      : html`<p class="soft">No plan has both an error and a ${plans.unit === "B" ? "size" : "time"}: nothing can be drawn.</p>`}
    <p>${verdict(plans)}</p>
    <div class="scroll" tabindex="0" role="region" aria-label="plans, as a table"><table class="plain"><thead><tr><th>plan</th>
      <th class="r">${plans.unit}</th><th class="r">error</th><th class="r">× baseline</th><th>verdict</th></tr></thead><tbody>
      ${[...measured, ...plans.plans.filter((/** @type {any} */ one) => one.value === null)].map((/** @type {any} */ one) => html`
        <tr class=${one.chosen ? "chosen" : ""}><td class="num plan">${one.plan}</td><td class="n">${one.value === null ? "–" : said(one.value)}</td>
        <td class="n">${one.error === null ? "–" : small(one.error)}</td>
        <td class="n">${one.ratio ? `${times(one.ratio[1])} (${one.ratio[0].toPrecision(3)}–${one.ratio[2].toPrecision(3)})` : "–"}</td>
        <td class="why" title=${one.why}>${one.verdict}</td></tr>`)}</tbody></table></div>
    ${plans.proved.map((/** @type {any} */ one) => html`<p class="small soft">${one.holds === "kept" ? "✓" : "✕"} ${one.keep}: ${one.why}</p>`)}
    <details><summary class="small">why, plan by plan</summary><dl>${plans.plans.map((/** @type {any} */ one) => html`
      <dt class="num">${one.plan}</dt><dd class="soft">${one.why || one.verdict}</dd>`)}</dl></details>
    <p class="small faint">${grouped(plans.rows[0])} rows to calibrate, ${grouped(plans.rows[1])} to search by, ${grouped(plans.rows[2])} to prove it; ${plans.machine}</p>
  </section>`;
}


/** @param {any} plans */
function verdict(plans) {
  const broken = plans.proved.find((/** @type {any} */ one) => one.holds !== "kept");
  if (broken) return html`The budget ${broken.holds === "broken" ? "is broken" : "is not proved on these rows"}: <code>${plans.chosen}</code> stays.`;
  if (plans.stays) return html`No plan is proved to be better within the budget: <code>${plans.chosen}</code> stays.`;
  const by = plans.speedup && `, ${times(plans.speedup[1])} (${plans.speedup[0].toPrecision(3)}–${plans.speedup[2].toPrecision(3)}) as fast as the baseline`;
  return html`<code>${plans.chosen}</code> is chosen${by}.`;
}

/** @param {{plans: any, drawn: any[], said: (value: number) => string}} given */
function Picture({ plans, drawn, said }) {
  const low = Math.min(...drawn.map((one) => one.low)), high = Math.max(...drawn.map((one) => one.high));
  const span = high - low || high || 1;
  const from = Math.max(0, low - span * 0.08), to = high + span * 0.08;
  const X = (/** @type {number} */ value) => LEFT + ((value - from) / (to - from)) * (W - LEFT - RIGHT);
  const errors = [...drawn.map((one) => one.error), ...(plans.limit > 0 ? [plans.limit] : [])].filter((one) => one > 0);
  const top = Math.ceil(Math.log10(Math.max(...errors, 1e-12) * 1.2));
  const least = errors.length ? Math.max(Math.floor(Math.log10(Math.min(...errors))), top - 8) : top - 1;
  // Zero has a place of its own, below the least power of ten.
  const Y = (/** @type {number} */ error) => {
    const at = error > 0 ? Math.max(0, Math.log10(error) - least) + 1 : 0;
    return H - BOTTOM - (at / (top - least + 1)) * (H - TOP - BOTTOM);
  };
  const powers = Array.from({ length: top - least + 1 }, (_, n) => least + n).filter((_, n, all) => n % Math.ceil(all.length / 4) === 0);
  const ticks = [0, 1, 2, 3].map((n) => from + ((to - from) * n) / 3);
  return html`<div class="scroll" tabindex="0" role="region" aria-label="error against what the goal asks for"><svg class="fixed" viewBox=${`0 0 ${W} ${H}`} width=${W} height=${H} role="img" aria-label=${`error against ${plans.unit}, ${drawn.length} plans; the table below has the numbers`}>
    ${[["0", 0], ...powers.map((power) => [`1e${power}`.replace("-", "\u2212"), 10 ** power])].map(([name, error]) => html`<g>
      <line x1=${LEFT} x2=${W - RIGHT} y1=${Y(/** @type {number} */ (error))} y2=${Y(/** @type {number} */ (error))} stroke="var(--line)" />
      <text x=${LEFT - 8} y=${Y(/** @type {number} */ (error)) + 4} text-anchor="end" class="f">${name}</text></g>`)}
    ${ticks.map((value, n) => html`<text x=${X(value)} y=${H - 8} text-anchor=${n === 0 ? "start" : n === 3 ? "end" : "middle"} class="f">${said(value)}</text>`)}
    ${plans.limit !== null && plans.limit > 0 && html`<line x1=${LEFT} x2=${W - RIGHT} y1=${Y(plans.limit)} y2=${Y(plans.limit)} stroke="var(--warn-text)" stroke-dasharray="4 3" />
      <text x=${LEFT + 4} y=${Y(plans.limit) - 6}>${`budget: ${plans.keep}`}</text>`}
    ${drawn.map((one) => html`<g><line x1=${X(one.low)} x2=${X(one.high)} y1=${Y(one.error)} y2=${Y(one.error)} stroke="var(--mag)" stroke-width="2" stroke-opacity=".6" />
      ${one.holds === "broken" ? html`<path d=${`M${X(one.value) - 4} ${Y(one.error) - 4}l8 8m0 -8l-8 8`} stroke="var(--mag)" stroke-width="2" />`
        : html`<circle cx=${X(one.value)} cy=${Y(one.error)} r=${one.chosen ? 6.5 : 4.5} fill=${one.chosen ? "var(--accent)" : one.baseline ? "var(--paper)" : "var(--mag)"} stroke=${one.chosen ? "var(--ink)" : "var(--mag)"} stroke-width="1.5" />`}
      <title>${`${one.plan}: ${said(one.value)}, ${one.verdict}`}</title></g>`)}
  </svg></div><p class="small faint">large: chosen; hollow: the baseline; cross: breaks the budget</p>`;
}
