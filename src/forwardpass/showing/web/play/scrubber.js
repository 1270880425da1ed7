// The scrubber: every call of the pass in order, in at most forty legs; what each takes, once told.
import { html, useState } from "fwd/dom.js";
import { grouped, seconds } from "fwd/numbers.js";

const WRITTEN = 14; // legs, up to which each has its time written above it
const NAMED = 14; // legs, up to which each has its name
const HIGH = 56;

/** Seconds by leg: all of it, and its longest call. @param {any} legs @param {any} times */
export function costs(legs, times) {
  /** @type {Map<number, number>} */
  const by = new Map(times.calls.map((/** @type {number} */ call, /** @type {number} */ at) => [call, times.median[at]]));
  return legs.map((/** @type {any} */ leg) => {
    let sum = 0, peak = 0;
    for (let call = leg.first; call < leg.stop; call++) {
      const took = by.get(call) ?? 0;
      sum += took;
      peak = Math.max(peak, took);
    }
    return { sum, peak };
  });
}

/** @param {any} leg */
export const legName = (leg) => leg.name ? `${leg.first} ${leg.name}`
  : `${[leg.path, leg.kind].filter(Boolean).join(" ")}: calls ${grouped(leg.first)} to ${grouped(leg.stop - 1)}`;

/** @param {{score: any, at: number, go: (call: number) => void, playing: boolean, play: () => void, times: any}} given */
export function Scrubber({ score, at, go, playing, play, times }) {
  const { legs, names } = score, last = names.length - 1;
  const cost = times && costs(legs, times);
  const most = cost ? Math.max(...cost.map((/** @type {any} */ one) => one.sum), 1e-12) : 1;
  const peak = cost ? cost.findIndex((/** @type {any} */ one) => one.sum === most) : -1;
  return html`<div class="player">
    <div class="row acts"><button class="icon" aria-label="step back" disabled=${at === 0} onClick=${() => go(at - 1)}>‹</button>
      <button class="icon boxed" aria-label=${playing ? "pause" : "play"} aria-pressed=${playing} onClick=${play}>${playing ? "❚❚" : "▶"}</button>
      <button class="icon" aria-label="step" disabled=${at === last} onClick=${() => go(at + 1)}>›</button></div>
    <div class="scroll grow"><div class="scrub" role="group" aria-label="calls of the pass" style=${{ gridAutoColumns: `minmax(${legs.length > NAMED ? 20 : times ? 62 : 34}px, 1fr)` }}>
      ${legs.map((/** @type {any} */ leg, /** @type {number} */ place) => {
        const now = leg.first <= at && at < leg.stop, one = cost?.[place];
        return html`<div>${one && html`<div class="cost" title="${legName(leg)}: ${seconds(one.sum)}">
            <i style=${{ height: `${(one.sum / most) * HIGH}px` }}>${leg.stop - leg.first > 1 && html`<b style=${{ height: `${(one.peak / most) * HIGH}px` }}></b>`}
              ${(legs.length <= WRITTEN || place === peak) && html`<span class="small num">${seconds(one.sum)}</span>`}</i></div>`}
          <button class=${leg.stop <= at ? "past" : ""} aria-current=${now ? "step" : undefined} aria-label=${legName(leg)} title=${legName(leg)} onClick=${() => go(leg.first)}>
            <span>${grouped(leg.first)}</span>${legs.length <= NAMED && html`<span>${leg.name || (leg.path.split(".").pop() || leg.kind)}</span>`}</button></div>`;
      })}</div>
    ${last >= legs.length && html`<input class="along" type="range" min="0" max=${last} value=${at} aria-label="call"
      aria-valuetext="call ${at} of ${last}: ${names[at]}" onInput=${(/** @type {any} */ event) => go(Number(event.target.value))} />`}</div></div>`;
}

/** The times behind the bars, the longest first. @param {{score: any, times: any}} given */
export function Times({ score, times }) {
  const order = times.calls.map((/** @type {number} */ _, /** @type {number} */ at) => at)
    .sort((/** @type {number} */ a, /** @type {number} */ b) => times.median[b] - times.median[a]);
  const shown = order.slice(0, 200);
  const [open, setOpen] = useState(false);
  return html`<details class="gap" onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary>The times as a table</summary>${open && html`
    <p class="small soft">${grouped(times.rounds)} rounds; a plain pass takes ${seconds(times.whole)}.${shown.length < order.length && ` The ${shown.length} longest of ${grouped(order.length)} calls.`}</p>
    <div class="scroll"><table><thead><tr><th class="r">call</th><th>name</th><th class="r">time</th><th class="r">10–75 %</th></tr></thead>
    <tbody>${shown.map((/** @type {number} */ at) => html`<tr><td class="r">${times.calls[at]}</td><td>${score.names[times.calls[at]]}</td>
      <td class="r">${seconds(times.median[at])}</td><td class="r">${seconds(times.low[at])} … ${seconds(times.high[at])}</td></tr>`)}</tbody></table></div>`}</details>`;
}
