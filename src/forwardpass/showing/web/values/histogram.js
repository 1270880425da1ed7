// How numbers lie before and after an activation: line before, filled after, one bar for exact zeros.
import { html, useState } from "fwd/dom.js";
import { brief, Heat } from "fwd/heat.js";
import { grouped, percent } from "fwd/numbers.js";

const WIDE = 560, HIGH = 148, HEAD = 44;
const MANY = 64; // channels, from which on each is a cell and no bar

/** `before` and `after` as exploring.tallies.Histogram; `told`: whether zeros may be seen.
 * @param {{before: any, after: any, told: boolean, title: string}} given */
export function Histogram({ before, after, told, title }) {
  const shown = [before, ...(after && told ? [after] : [])].filter((one) => one.counts.length);
  if (!shown.length) return html`<p class="soft">${nothing(before)}</p>`;
  const width = shown[0].width;
  const low = Math.min(...shown.map((one) => one.first)) - 1, high = Math.max(...shown.map((one) => one.first + one.counts.length)) + 1;
  const first = Math.min(low, after ? -1 : low), last = Math.max(high, after ? 1 : high);
  const x = (/** @type {number} */ bin) => ((bin - first) / (last - first)) * WIDE;
  const most = Math.max(...shown.flatMap((one) => one.counts));
  const y = (/** @type {number} */ count) => Math.sqrt(count / most) * (HIGH - HEAD);
  const step = `M${x(before.first)} ${HIGH}${before.counts.map((/** @type {number} */ count, /** @type {number} */ at) =>
    `V${HIGH - y(count)}H${x(before.first + at + 1)}`).join("")}V${HIGH}`;
  const zeros = after ?? before, share = zeros.count ? zeros.zeros / zeros.count : 0;
  const within = first <= 0 && last >= 0, right = x(0) > WIDE * 0.6;
  const range = before.min === null ? "no finite number before" : `before from ${brief(before.min)} to ${brief(before.max)}`;
  const words = `${title}: ${range}${after && told ? `, ${percent(share, 1)} exactly zero after` : ""}`;
  return html`<svg width="100%" viewBox="0 0 ${WIDE} ${HIGH + 20}" role="img" aria-label=${words} style=${{ maxWidth: `${WIDE}px` }}>
    ${after && told && after.counts.map((/** @type {number} */ count, /** @type {number} */ at) => count > 0 && html`<rect
      x=${x(after.first + at)} y=${HIGH - y(count)} width=${Math.max(1, x(1) - x(0) - 1)} height=${y(count)} fill="var(--pos)" />`)}
    ${after && within && (told ? share > 0 && html`<rect x=${x(0) - 3} y="0" width="6" height=${HIGH} fill="var(--ink)" />
      <text x=${x(0) + (right ? -10 : 10)} y="12" text-anchor=${right ? "end" : "start"} class="i b">${percent(share, 1)} <tspan class="f t">exactly zero, in one bar</tspan></text>`
      : html`<text x=${x(0)} y="14" text-anchor="middle" class="f">?</text>`)}
    <path d=${step} fill="none" stroke="var(--ink)" stroke-width="1.25" />
    <line x1="0" x2=${WIDE} y1=${HIGH} y2=${HIGH} stroke="var(--line-2)" />
    <text x="0" y=${HIGH + 16} class="f">${brief(first * width)}</text>
    ${within && x(0) > 60 && x(0) < WIDE - 60 && html`<text x=${x(0)} y=${HIGH + 16} text-anchor="middle" class="f">0</text>`}
    <text x=${WIDE} y=${HIGH + 16} text-anchor="end" class="f">${brief(last * width)}</text></svg>`;
}

/** @param {any} of */
function nothing(of) {
  if (of.count && of.zeros === of.count) return `All ${grouped(of.count)} numbers are exactly zero.`;
  return "There is no finite number other than zero.";
}

/** Share of zeros, channel by channel; dead ones hatched and marked.
 * @param {{shares: number[], told: boolean, title: string}} given */
export function Channels({ shares, told, title }) {
  const dead = shares.filter((one) => one === 1).length;
  const words = `${title}: ${told ? `${shares.length} channels, ${dead} of them always zero` : "after your prediction"}`;
  if (shares.length > MANY) return html`<${Cells} shares=${told ? shares : shares.map(() => 0)} words=${words} />`;
  const step = 16, bar = 12;
  return html`<div class="gap"><h3>share of zeros, channel by channel</h3>
    <div class="scroll"><svg width=${shares.length * step} height="46" role="img" aria-label=${words}>
    ${shares.map((share, at) => html`<rect x=${at * step} y="0" width=${bar} height="30" fill=${told && share === 1 ? "url(#hatch2)" : "var(--line)"} />
      ${told && share < 1 && html`<rect x=${at * step} y=${30 - share * 30} width=${bar} height=${share * 30} fill="var(--mag)" />`}
      ${told && share === 1 && html`<path d="m${at * step + 2} 36 8 8m0-8-8 8" stroke="var(--ink)" stroke-width="1.5" />`}`)}</svg></div></div>`;
}

/** Of many channels, a cell each; of very many, the largest share of neighbours.
 * @param {{shares: number[], words: string}} given */
function Cells({ shares, words }) {
  const each = Math.ceil(shares.length / 2048), count = Math.ceil(shares.length / each), wrap = 64;
  const high = Math.ceil(count / wrap), numbers = Array.from({ length: high * wrap }, (_, at) => Math.max(0, ...shares.slice(at * each, (at + 1) * each)));
  const fit = { cell: 8, tall: 8, columns: 1, lines: 1, wide: wrap * 8, high: high * 8 };
  return html`<div class="gap"><h3>share of zeros, a cell for ${each === 1 ? "each channel" : `${each} channels, the largest of them`}</h3>
    <div class="scroll"><${Heat} numbers=${numbers} height=${high} width=${wrap} fit=${fit} most=${1} kind="mag" label=${words} /></div></div>`;
}

/** The bins behind the picture. @param {{before: any, after: any}} given */
export function Bins({ before, after }) {
  const [open, setOpen] = useState(false);
  const both = [before, after].filter((one) => one?.counts.length);
  if (!both.length) return null;
  const first = Math.min(...both.map((one) => one.first)), last = Math.max(...both.map((one) => one.first + one.counts.length));
  const width = both[0].width, count = (/** @type {any} */ of, /** @type {number} */ bin) => grouped(of?.counts[bin - of.first] ?? 0);
  return html`<details class="gap" onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary class="small">The numbers as a table</summary>${open && html`<div class="scroll"><table>
    <thead><tr><th class="r">from</th><th class="r">to</th><th class="r">${after ? "before" : "numbers"}</th>${after && html`<th class="r">after</th>`}</tr></thead>
    <tbody>${Array.from({ length: last - first }, (_, at) => html`<tr><td class="r">${brief((first + at) * width)}</td><td class="r">${brief((first + at + 1) * width)}</td>
      <td class="r">${count(before, first + at)}</td>${after && html`<td class="r">${count(after, first + at)}</td>`}</tr>`)}
    <tr><td class="r" colspan="2">exactly zero</td><td class="r">${grouped(before.zeros)}</td>${after && html`<td class="r">${grouped(after.zeros)}</td>`}</tr></tbody></table></div>`}</details>`;
}
