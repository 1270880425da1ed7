// Lines of source code, one of them marked.
import { html } from "fwd/dom.js";

/** `source` as exploring.questions.play has it. @param {{source: any}} given */
export function Lines({ source }) {
  if (!source.lines.length) return html`<section><h3>${source.file || "no file"}</h3><p class="small soft">The source cannot be read.</p></section>`;
  return html`<section><h3 class="mono">${source.file}</h3>
    <div class="code" tabindex="0" role="group" aria-label="source, line ${source.line} marked">${source.lines.map((/** @type {string} */ text, /** @type {number} */ at) => {
      const hit = source.first + at === source.line;
      return html`<div class=${hit ? "hit" : ""} aria-current=${hit ? "true" : undefined}><i>${source.first + at}</i>${text || " "}</div>`;
    })}</div></section>`;
}
