// Values that take much memory are recorded when somebody asks for them.
import { html, useState } from "fwd/dom.js";
import { ask } from "fwd/source.js";
import { row } from "fwd/state.js";

/** Why there are no numbers; a button where they only have to be recorded.
 * @param {{refusal: Error & {kind?: string}, again: () => void}} given */
export function Unrecorded({ refusal, again }) {
  const [said, say] = useState("");
  const press = () => {
    say("Recording…");
    ask("page.keep", { row: row.value }, { again: true }).then(again, (error) => say(error.message));
  };
  return html`<p class="small soft">${refusal.message}</p>
    ${refusal.kind === "UnkeptError" && html`<p class="row"><button class="btn" onClick=${press}>Record this</button>
      <span class="small faint" role="status">${said}</span></p>`}`;
}
