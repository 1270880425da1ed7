// Modes: train or eval? The same rows in both, and a ledger of what changes the model's state.
import { html, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { told } from "fwd/prediction.js";
import { row } from "fwd/state.js";
import { fixed, grouped, percent, shape } from "fwd/numbers.js";

const PAGE = 100;
const WIDE = 32;

/** @param {{about: any, view: any}} given */
export function View({ about, view }) {
  const reached = useAnswer(about.live ? "modes.both" : null, { row: row.value });
  const ledger = useAnswer(about.live && told("modes", "state") ? "modes.state" : null, { row: row.value });
  if (!about.live) return html`<${Frame} view=${view} said="Both modes are passes that are made now."><div class="state"><p>This was saved: there is no model here to run in another mode.</p></div><//>`;
  const both = reached.answer;
  if (!both) return html`<${Frame} view=${view}><${Waiting} reached=${reached} /><//>`;
  const rows = both.rows.length;
  const rail = html`${both.masks.map((/** @type {any} */ mask) => html`<${Mask} mask=${mask} />`)}`;
  return html`<${Frame} view=${view} rail=${rail}
    said=${`The same ${rows === 1 ? "row" : `${rows} rows`} through the same weights, in both modes. Below: what each step changes, byte for byte.`}>
    <div class="cols2">
      <${Mode} both=${both} runs=${both.eval} />
      <${Mode} both=${both} runs=${both.train} />
    </div>
    <${Verdict} both=${both} />
    ${both.notes.map((/** @type {string} */ note) => html`<p class="soft">${note}</p>`)}
    <${Ledger} reached=${ledger} />
    ${both.norms.length > 0 && html`<${Norms} norms=${both.norms} />`}
    ${both.more > 0 && html`<p class="soft">${grouped(both.more)} more layers drop or take statistics, which are not shown.</p>`}
  <//>`;
}

/** @param {number | null} share */
const far = (share) => (share === null ? "without bound" : share >= 0.0001 ? percent(share, 2) : share.toExponential(1).replaceAll("-", "\u2212"));

/** @param {{both: any, runs: any}} given */
function Mode({ both, runs }) {
  const drops = both.masks.length > 0;
  const norms = both.norms.length > 0;
  const parts = runs.mode === "eval"
    ? [drops && "Dropout passes all on.", norms && "BatchNorm uses the statistics that it kept."]
    : [drops && "Dropout zeroes numbers at random.", norms && "BatchNorm uses this batch."];
  const said = parts.filter(Boolean).join(" ") || "No layer drops at random or takes statistics from the batch.";
  return html`<section><h2>${runs.mode}</h2>
    ${runs.error ? html`<p class="warn">The pass raises in this mode: ${runs.error}</p>` : html`<p class="soft">${said}</p>
    <${Dots} both=${both} runs=${runs} />`}</section>`;
}

/** Two runs: filled and open dots on one scale. @param {{both: any, runs: any}} given */
function Dots({ both, runs }) {
  const all = [...both.eval.numbers, ...both.train.numbers].flat().map(Number).filter(Number.isFinite);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const x = (/** @type {number} */ n) => 28 + ((n - low) / (high - low || 1)) * 220;
  const [first, second] = runs.numbers.map((/** @type {any[]} */ run) => run.map(Number));
  if (!first || first.length === 0) return html`<p class="soft">The outputs have no numbers to show.</p>`;
  const more = both.total > first.length ? `the first ${first.length} of ${grouped(both.total)} numbers` : `${first.length === 1 ? "the number" : `the ${first.length} numbers`}`;
  const title = `${more} of ${both.output}, row ${both.rows[0]}; two runs: ${runs.equal ? "equal" : "differ"}`;
  return html`<figure><h3>${title}</h3>
    <svg class="dots" width="256" height=${first.length * 13 + 4} viewBox=${`0 0 256 ${first.length * 13 + 4}`} role="img" aria-label=${title}>
      ${first.map((/** @type {number} */ n, /** @type {number} */ at) => {
        const again = second ? second[at] : n, odd = [n, again].find((one) => !Number.isFinite(one));
        return html`<text x="0" y=${at * 13 + 11} class="f">${at}</text>
        <line x1="28" x2="248" y1=${at * 13 + 7} y2=${at * 13 + 7} stroke="var(--line)" />
        ${odd !== undefined && html`<text x="28" y=${at * 13 + 11}>${fixed(odd)}</text>`}
        ${Number.isFinite(n) && html`<circle cx=${x(n)} cy=${at * 13 + 7} r="4" fill="var(--ink)" />`}
        ${Number.isFinite(again) && again !== n && html`<circle cx=${x(again)} cy=${at * 13 + 7} r="4" fill="none" stroke="var(--ink)" stroke-width="1.5" />`}`;
      })}
    </svg>
    <p class="small faint">● first run ${runs.equal ? "and second run, at the same places" : "○ second run"}</p>
    <details><summary class="small">as a table</summary><div class="scroll"><table><thead><tr><th class="r">element</th><th class="r">first run</th><th class="r">second run</th></tr></thead>
      <tbody>${first.map((/** @type {number} */ n, /** @type {number} */ at) => html`<tr><td class="r">${at}</td><td class="r">${fixed(n, 6)}</td><td class="r">${second ? fixed(second[at], 6) : ""}</td></tr>`)}</tbody></table></div></details>
  </figure>`;
}

/** @param {{both: any}} given */
function Verdict({ both }) {
  const { eval: still, train } = both;
  if (still.error || train.error) return null;
  return html`<p class="told"><b>${still.equal ? "Eval twice is equal, bit for bit." : `Eval twice differs by ${far(still.apart)} of the outputs’ scale: the code draws at random in eval mode, too.`}</b>${" "}
    ${train.equal ? "Train twice is equal as well." : `Train twice differs by ${far(train.apart)} of the outputs’ scale.`}${" "}
    ${both.apart === 0 ? "Both modes give the same." : `Train is ${far(both.apart)} away from eval.`}</p>`;
}

/** @param {{mask: any}} given */
function Mask({ mask }) {
  const cells = [...mask.cells];
  const high = Math.ceil(cells.length / WIDE);
  const fill = /** @type {Record<string, string>} */ ({ 0: "var(--zero)", k: "var(--pos)", x: "var(--paper)" });
  const above = mask.kept + mask.dropped;
  const all = mask.zero + above;
  const title = `${mask.module} drops in train mode, first row`;
  return html`<section><h3>${title}</h3>
    <svg class="mask" width="100%" viewBox=${`0 0 ${WIDE * 9} ${high * 9}`} role="img" aria-label=${`${title}: ${mask.dropped} of ${above} dropped`}>
      ${cells.map((cell, at) => {
        const [x, y] = [(at % WIDE) * 9, Math.floor(at / WIDE) * 9];
        return html`<rect x=${x} y=${y} width="8" height="8" fill=${fill[cell]} stroke=${cell === "x" ? "var(--line-2)" : "none"} />${cell === "x" && html`<path d=${`M${x + 2} ${y + 2}l4 4m0-4l-4 4`} stroke="var(--ink)" />`}`;
      })}</svg>
    <p class="small soft">Of ${grouped(above)} numbers other than zero, ${grouped(mask.dropped)} were dropped (✕); those kept (filled) were multiplied by ${fixed(mask.grew, 3)}.${mask.zero > 0 ? ` ${grouped(mask.zero)} were zero before.` : ""}${all > cells.length ? ` The first ${cells.length} of ${shape(mask.shape)} are drawn.` : ""}</p></section>`;
}

/** @param {{reached: any}} given */
function Ledger({ reached }) {
  const [shown, show] = useState(PAGE);
  const [only, toggle] = useState(false);
  const ledger = reached.answer;
  if (!told("modes", "state")) return html`<section class="ledger"><h2>What changes the model’s state</h2><p class="soft">A ledger of hashes of each parameter and buffer, after each step: <span class="num">?</span></p></section>`;
  if (!ledger) return html`<section class="ledger"><h2>What changes the model’s state</h2><${Waiting} reached=${reached} /></section>`;
  const entries = only ? ledger.entries.filter((/** @type {any} */ e) => e.changed.some(Boolean)) : ledger.entries;
  const counts = ledger.moments.map((/** @type {string} */ _, /** @type {number} */ at) => ledger.entries.filter((/** @type {any} */ e) => e.changed[at]).length);
  return html`<section class="ledger"><h2>What changes the model’s state</h2>
    <p class="soft">${ledger.moments.slice(1).map((/** @type {string} */ moment, /** @type {number} */ at) => `${moment}: ${counts[at + 1] ? `${grouped(counts[at + 1])} of ${grouped(ledger.entries.length)}` : "nothing"}`).join(" · ")}</p>
    ${ledger.entries.length === 0 ? html`<p>The model holds no parameter and no buffer: there is nothing to change.</p>` : html`
    <p><label><input type="checkbox" checked=${only} onChange=${() => toggle(!only)} /> only what changed</label></p>
    <div class="scroll" tabindex="0" role="region" aria-label="ledger of the model’s state"><table><thead><tr><th>state, hash of its bytes</th>${ledger.moments.map((/** @type {string} */ moment) => html`<th>${moment}</th>`)}</tr></thead>
      <tbody>${entries.slice(0, shown).map((/** @type {any} */ entry) => html`<tr><td>${entry.name} <span class="faint small">${entry.form}${entry.kind === "buffer" ? " buffer" : ""}</span></td>
        ${entry.hashes.map((/** @type {string} */ hash, /** @type {number} */ at) => (entry.changed[at]
          ? html`<td class="changed"><b>▲ ${hash}</b><span class="vh"> changed</span></td>`
          : html`<td class="faint">${at ? "= " : ""}${hash || "no bytes to hash"}</td>`))}</tr>`)}</tbody></table></div>`}
    ${entries.length > shown && html`<p><button class="link" onClick=${() => show(shown + PAGE)}>${grouped(entries.length - shown)} more</button></p>`}
    ${ledger.also.map((/** @type {string} */ said) => html`<p class="soft">${said}</p>`)}
    ${ledger.missing.map((/** @type {string} */ said) => html`<p class="warn">${said}</p>`)}
    <p class="small faint">Both passes ran under no_grad and were taken back; backward and optimizer.step ran on a copy (SGD on the mean square of the outputs, all weights free to learn). The model itself ${ledger.kept ? "has the bytes that it had" : "was changed by what runs beside the page"}.</p></section>`;
}

/** @param {{norms: any[]}} given */
function Norms({ norms }) {
  return html`<section class="ledger"><h2>Statistics of the batch, beside the kept ones</h2>
    ${norms.map((norm) => html`<h3>${norm.module}: ${norm.shown.length < norm.channels ? `the ${norm.shown.length} of ${grouped(norm.channels)} channels that are farthest apart` : `${grouped(norm.channels)} channels`}</h3>
      <div class="scroll"><table><thead><tr><th class="r">channel</th><th class="r">mean, batch</th><th class="r">mean, kept</th><th class="r">variance, batch</th><th class="r">variance, kept</th></tr></thead>
      <tbody>${norm.shown.map((/** @type {any} */ one) => html`<tr><td class="r">${one.channel}</td><td class="r">${fixed(one.batch_mean)}</td><td class="r">${fixed(one.running_mean)}</td>
        <td class="r">${fixed(one.batch_variance)}</td><td class="r">${fixed(one.running_variance)}</td></tr>`)}</tbody></table></div>`)}</section>`;
}
