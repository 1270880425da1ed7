// Find: the search box; a module, a call or a line is found by what it is called.
import { html, useState } from "fwd/dom.js";
import { SEARCH } from "fwd/icons.js";
import { found } from "fwd/search.js";
import { call, view } from "fwd/state.js";

const MAP = 1;
const PLAY = 2;

/** @param {{graph: any}} given */
export function Find({ graph }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const all = graph && text.trim() ? found(graph, text) : [];
  const place = Math.min(at, Math.max(0, all.length - 1));
  const go = (/** @type {{call: number}} */ one) => {
    call.value = one.call;
    if (view.value !== MAP && view.value !== PLAY) view.value = MAP;
    setText("");
  };
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (by) setAt((place + by + all.length) % Math.max(1, all.length));
    else if (event.key === "Enter" && all[place]) go(all[place]);
    else if (event.key === "Escape") {
      setText("");
      /** @type {HTMLElement} */ (event.target).blur();
    } else return;
    event.preventDefault();
  };
  const open = text.trim() !== "";
  return html`<div class="opens finds"><label class="search">${SEARCH}
      <input id="search" role="combobox" aria-label="find a module, a call, a line" aria-expanded=${open}
        aria-controls="found" aria-autocomplete="list" autocomplete="off" spellcheck=${false}
        aria-activedescendant=${open && all.length ? `found-${place}` : undefined}
        placeholder="Find a module, a call, a line" value=${text} onKeyDown=${pressed}
        onInput=${(/** @type {any} */ event) => { setText(event.target.value); setAt(0); }} />
      <kbd aria-hidden="true">/</kbd></label>
    ${open && html`<div class="menu" role="listbox" id="found" aria-label="found">${all.map((one, n) => html`
      <div role="option" id=${`found-${n}`} aria-selected=${n === place} onPointerDown=${() => go(one)}>
        <b>${one.title}</b><span class="faint">${one.said}</span></div>`)}
      ${all.length === 0 && html`<div role="option" aria-selected="false" aria-disabled="true" class="soft">${
        graph ? "Nothing is called so." : "There is no pass to search."}</div>`}</div>`}</div>`;
}
