// The predictions at the top of the rail: asked before the answer is there, settled by a run.
import { signal } from "@preact/signals";
import { html, useRef } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Cancel } from "fwd/cancel.js";
import { row, said } from "fwd/state.js";

const DONT_KNOW = -1;
const SKIPPED = -2;
const LETTERS = "abcdefgh";
/** By view and row, the id of the prediction that is shown. */
const asking = signal(/** @type {Record<string, string>} */ ({}));

/** @param {string} view @param {string} id */
const keyOf = (view, id) => `${view}:${id}:${row.value}`;

/** Whether a view may show what a prediction hides.
 * @param {string} view @param {string} id */
export const told = (view, id) => keyOf(view, id) in said.value;

/** What stands in the place of a number until it may be told. */
export const hidden = () => html`<span class="faint" title="after your prediction">?</span>`;

/** Those of a view, one after the other; nothing where it has none.
 * @param {{view: string, asks?: Record<string, unknown>}} given */
export function Predictions({ view, asks }) {
  const { answer } = useAnswer(`${view}.predictions`, { row: row.value, ...asks });
  const all = /** @type {any[]} */ (answer?.predictions ?? []);
  const now = keyOf(view, "");
  // What is answered stays until the next is asked for, though the view is drawn anew meanwhile.
  const kept = all.findIndex((one) => one.id === asking.value[now]);
  const place = kept >= 0 ? kept : Math.max(0, all.findIndex((one) => !told(view, one.id)));
  const choose = (/** @type {number} */ at) => { asking.value = { ...asking.value, [now]: all[at].id }; };
  if (!all.length) return null;
  return html`<${Prediction} key=${`${all[place].id} ${row.value}`} view=${view} prediction=${all[place]}
    place=${place} count=${all.length} stay=${() => choose(place)} next=${() => choose((place + 1) % all.length)} />`;
}

/** @param {{view: string, prediction: any, place: number, count: number, stay: () => void,
 * next: () => void}} given;
 * `prediction` as exploring.predictions has it */
function Prediction({ view, prediction, place, count, stay, next }) {
  const key = keyOf(view, prediction.id);
  const choice = said.value[key];
  const answered = choice !== undefined;
  const settled = useAnswer(answered ? `${view}.settle` : null,
    { row: row.value, id: prediction.id, ...prediction.arguments });
  const top = useRef(/** @type {HTMLElement | null} */ (null));
  const say = (/** @type {number} */ at) => {
    stay();
    said.value = { ...said.value, [key]: at };
    top.current?.focus(); // the buttons go, and the keyboard must not be lost
  };
  const unsay = () => {
    const { [key]: _, ...rest } = said.value;
    said.value = rest;
    top.current?.focus();
  };
  const choices = [...prediction.choices, "I don\u2019t know"];
  const meant = (/** @type {number} */ at) => (at === choices.length - 1 ? DONT_KNOW : at);
  return html`<section class="ask" aria-labelledby="asked" tabindex="-1" ref=${top}>
    <p class="kicker">${answered ? "Measured on your model" : "Before you look"}${count > 1 && html`<span class="of">${place + 1} of ${count}</span>`}</p>
    <h2 class="q" id="asked">${prediction.question}</h2>
    <ol>${choices.map((text, at) => (answered
      ? html`<${Choice} text=${text} own=${choice === meant(at)} measured=${settled.answer?.choice.includes(at)}
          tied=${settled.answer?.tied} />`
      : html`<li><button onClick=${() => say(meant(at))}><i aria-hidden="true"></i><span>${text}</span>
          <kbd aria-hidden="true">${LETTERS[at]}</kbd></button></li>`))}</ol>
    ${!answered && html`<div class="acts"><button class="link" onClick=${() => say(SKIPPED)}>Skip, just show me</button></div>`}
    <div aria-live="polite">${answered && html`<${Outcome} settled=${settled} />`}</div>
    ${answered && html`<div class="acts">
      ${(settled.answer || settled.refusal) && html`<button class="link" onClick=${settled.again}>Run it again</button>`}
      <button class="link" onClick=${unsay}>Ask me again</button>
      ${count > 1 && html`<button class="link" onClick=${() => { next(); top.current?.focus(); }}>Next question</button>`}</div>`}
  </section>`;
}

/** @param {{text: string, own: boolean, measured: boolean, tied: boolean}} given */
function Choice({ text, own, measured, tied }) {
  const tags = [own && "you", measured && (tied ? "within noise" : "measured")].filter(Boolean);
  return html`<li class="${measured ? "was" : ""} ${own ? "said" : ""}"><div>
    <i aria-hidden="true"></i>${measured ? html`<b>${text}</b>` : html`<span>${text}</span>`}
    <span class="tag">${tags.join(" · ")}</span></div></li>`;
}

/** @param {{settled: any}} given */
function Outcome({ settled }) {
  const { answer, refusal, progress, stop } = settled;
  if (refusal) return html`<p class="say">${refusal.message}</p>`;
  if (!answer) {
    const calls = progress?.calls ? `, call ${progress.calls}` : "";
    const steps = progress?.total > 1 ? `: ${progress.done} of ${progress.total}` : "";
    return html`<p class="say late">Running${progress ? ` (${progress.stage}${steps}${calls})` : ""} <${Cancel} stop=${stop} kind="link" /></p>`;
  }
  // The unit and the rest stand small: from the first word on that begins with a letter.
  const [, large, rest] = /^(.*?)(\s[A-Za-z\u00b5].*)?$/s.exec(answer.answer) ?? [];
  return html`<p class="big">${large}${rest && html` <small>${rest.trim()}</small>`}</p><p class="say">${answer.why}</p>`;
}
