// A server while it runs: its queue and the sizes of its batches, every second.
import { html, useEffect, useState } from "fwd/dom.js";
import { ask } from "fwd/source.js";
import { bytes, grouped, percent, seconds } from "fwd/numbers.js";

/** @param {{url: string}} given */
export function Server({ url }) {
  const [now, setNow] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let over = false;
    const look = async () => {
      const answer = await ask("ship.serving", {}, { again: true }).catch((error) => ({ models: [], failed: error.message }));
      if (over) return;
      setNow(answer);
      later = setTimeout(look, 1000);
    };
    let later = setTimeout(look, 0);
    return () => { over = true; clearTimeout(later); };
  }, []);
  if (!now) return html`<p class="faint">Asking ${url}…</p>`;
  if (now.failed) return html`<p class="soft">${url}: ${now.failed}</p>`;
  return html`<p class="small faint">${url}</p>${now.models.map((/** @type {any} */ one) => html`<${Model} one=${one} />`)}`;
}

/** @param {{one: any}} given */
function Model({ one }) {
  const most = Math.max(1, ...one.batches.map((/** @type {any} */ b) => b.batches));
  const refused = Object.entries(one.refused);
  return html`<p><b>${one.name}</b> <span class="faint">${one.ready ? "ready" : "not ready"}</span></p>
    <dl class="kv"><dt>rows that wait</dt><dd>${grouped(one.queue_rows)}, ${bytes(one.queue_bytes)}</dd>
      <dt>answered</dt><dd>${grouped(one.requests)}</dd>
      <dt>mean time</dt><dd>${one.request_seconds === null ? "–" : seconds(one.request_seconds)}</dd>
      <dt>padding</dt><dd>${one.padding === null ? "–" : percent(one.padding, 1)}</dd>
      <dt>late</dt><dd>${grouped(one.misses)}</dd>
      ${refused.map(([reason, count]) => html`<dt>refused: ${reason}</dt><dd>${grouped(/** @type {number} */ (count))}</dd>`)}
      ${one.deaths > 0 && html`<dt>engines that ended</dt><dd>${grouped(one.deaths)}</dd>`}</dl>
    ${one.batches.length > 0 && html`<table class="bars"><caption class="small faint">batches by rows, at most</caption><tbody>
      ${one.batches.map((/** @type {any} */ b) => html`<tr><th scope="row" class="r">${b.rows === null ? "more" : grouped(b.rows)}</th>
        <td><i style=${{ width: `${(b.batches / most) * 100}%` }}></i></td><td class="n r">${grouped(b.batches)}</td></tr>`)}</tbody></table>`}`;
}
