// What every view stands in: its question, one sentence, the body, the rail with its prediction.
import { Cancel } from "fwd/cancel.js";
import { html, useEffect, useState } from "fwd/dom.js";
import { Predictions } from "fwd/prediction.js";
import { grouped } from "fwd/numbers.js";

/** `asks`: what the predictions are asked with, beside the row.
 * @param {{view: any, said?: any, rail?: any, asks?: Record<string, unknown>, children?: any}} given */
export function Frame({ view, said, rail, asks, children }) {
  return html`<div class="head"><h1>${view.question}</h1><p>${said}</p></div>
    <div class="body">${children}</div>
    <aside class="rail" aria-label="predictions and details"><${Predictions} view=${view.file} asks=${asks} />${rail}</aside>`;
}

/** While an answer is on its way, or where there is none. It is shown when that takes a while, and
 * can be stopped. @param {{reached: import("fwd/asked.js").Reached & {again?: () => void,
 * stop?: () => void}}} given */
export function Waiting({ reached }) {
  const { refusal, progress, stop, again } = reached;
  if (refusal) {
    return html`<div class="state" role="status"><p>${refusal.message}</p>
      ${again && refusal.kind === "Stopped" && html`<button class="btn" onClick=${again}>Run it</button>`}
      ${again && refusal.kind === "ServerGone" && html`<button class="btn" onClick=${again}>Try again</button>`}</div>`;
  }
  return html`<div class="state late" aria-busy="true"><${Bar} progress=${progress} />
    ${stop && html`<${Cancel} stop=${stop} />`}</div>`;
}

/** How far it has come: calls of the pass, steps of the stage, seconds.
 * @param {{progress?: import("fwd/source.js").Progress}} given */
export function Bar({ progress }) {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    const begun = performance.now();
    const every = setInterval(() => setSeconds((performance.now() - begun) / 1000), 100);
    return () => clearInterval(every);
  }, []);
  const { words, share } = worded(progress);
  return html`<div class="prog" role="progressbar" aria-label="how far it is" aria-valuemin="0"
      aria-valuemax="100" aria-valuenow=${share === null ? undefined : Math.round(share * 100)}>
      <i style=${{ width: `${(share ?? 0) * 100}%` }}></i></div>
    <p class="said"><span>${words}</span><span class="num faint">${seconds.toFixed(1)} s</span></p>`;
}

/** @param {import("fwd/source.js").Progress} [progress]
 * @returns {{words: string, share: number | null}} share: null where nobody knows */
function worded(progress) {
  if (!progress) return { words: "Asking", share: null };
  const { stage, done, total, calls, expected } = progress;
  const steps = total > 1 ? `${stage}: ${grouped(Math.min(done + 1, total))} of ${grouped(total)}` : "";
  const of = expected ? ` of ${grouped(expected)}` : "";
  const within = expected ? Math.min(1, calls / expected) : 0;
  const share = total > 1 ? Math.min(1, (done + within) / total) : expected ? within : null;
  const call = calls ? `call ${grouped(calls)}${of}` : "";
  return { words: [steps, call].filter(Boolean).join(", ") || stage, share };
}
