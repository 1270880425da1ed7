// The prediction at the top of the rail: asked before the answer is there, settled by a run.
import { html, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { row, said } from "fwd/state.js";

const DONT_KNOW = -1;
const SKIPPED = -2;

/** Whether a view may show what a prediction hides.
 * @param {string} view @param {string} id */
export const told = (view, id) => `${view}:${id}:${row.value}` in said.value;

/** @param {{view: string, prediction: any}} given; `prediction` as exploring.predictions has it */
export function Prediction({ view, prediction }) {
  const key = `${view}:${prediction.id}:${row.value}`;
  const choice = said.value[key];
  const answered = choice !== undefined;
  const { answer, refusal, progress, again } = useAnswer(
    answered ? `${view}.settle` : null,
    { row: row.value, id: prediction.id, ...prediction.arguments },
  );
  const say = (/** @type {number} */ place) => { said.value = { ...said.value, [key]: place }; };
  const unsay = () => { const { [key]: _, ...rest } = said.value; said.value = rest; };
  const choices = [...prediction.choices, "I don\u2019t know"];
  return html`<section class="ask" aria-label="prediction">
    <p class="faint small">Measured on your model</p>
    <h2>${prediction.question}</h2>
    <ol>${choices.map((text, place) => {
      const own = choice === (place === choices.length - 1 ? DONT_KNOW : place);
      const measured = answer?.choice.includes(place);
      return html`<li class="${measured ? "is" : ""} ${own ? "you" : ""}">
        <button disabled=${answered} onClick=${() => say(place === choices.length - 1 ? DONT_KNOW : place)}>
          <i aria-hidden="true"></i><span>${text}</span>
          <em>${[own && "you", measured && (answer.tied ? "within noise" : "measured")].filter(Boolean).join(" · ")}</em>
        </button></li>`;
    })}</ol>
    ${!answered && html`<p><button class="link" onClick=${() => say(SKIPPED)}>Skip</button></p>`}
    <div aria-live="polite">
      ${answered && !answer && !refusal && html`<p class="faint">Running… ${progress?.stage ?? ""}</p>`}
      ${refusal && html`<p class="warn">${refusal.message}</p>`}
      ${answer && html`<p class="big num">${answer.answer}</p><p>${answer.why}</p>
        <p><button class="link" onClick=${again}>Run it again</button>
        <button class="link" onClick=${unsay}>Ask me again</button></p>`}
    </div>
  </section>`;
}

/** Those of a view, or nothing where it has none. @param {{view: string, asks?: Record<string, unknown>}} given */
export function Predictions({ view, asks }) {
  const { answer } = useAnswer(`${view}.predictions`, { row: row.value, ...asks });
  const [place] = useState(0);
  const one = answer?.predictions[place];
  return one ? html`<${Prediction} view=${view} prediction=${one} />` : null;
}
