// The page around the views: model, row, search, state, theme; the views' tabs; keys.
import { html, useEffect } from "fwd/dom.js";
import { connection, watch } from "fwd/source.js";
import { darkNow, row, shown, theme, view } from "fwd/state.js";
import { useAnswer } from "fwd/asked.js";
import { grouped } from "fwd/numbers.js";
import { VIEWS } from "fwd/views.js";

const WORDS = { live: "live", saved: "saved, not live", gone: "server gone" };

export function Shell() {
  const { answer, refusal } = useAnswer("page.shown");
  useEffect(watch, []);
  useEffect(() => { if (answer) shown.value = answer; }, [answer]);
  useEffect(() => {
    document.addEventListener("keydown", keys);
    return () => document.removeEventListener("keydown", keys);
  }, []);
  if (refusal) return html`<main><p class="warn">${refusal.message}</p></main>`;
  if (!answer) return html`<main aria-busy="true"></main>`;
  const known = /** @type {any[]} */ (answer.views);
  const now = known.find((one) => one.place === view.value) ?? known[0];
  const View = VIEWS[now.name];
  return html`<a class="vh" href="#main">Skip to the view</a>
    <header>
      <${Top} about=${answer} />
      <div class="tabs" role="tablist" aria-label="Views">${known.map((one) => html`
        <button role="tab" aria-selected=${one === now} aria-controls="main" tabindex=${one === now ? 0 : -1}
          onClick=${() => { view.value = one.place; }}><i>${one.place}</i>${one.name}</button>`)}</div>
      ${connection.value === "gone" && html`<div class="banner err" role="alert"><p><b>The server is gone.</b>
        <span class="soft"> What is there can still be read; nothing can be run.</span></p></div>`}
    </header>
    <main id="main" tabindex="-1" aria-label=${now.name}><${View} key=${now.name} about=${answer} view=${now} /></main>`;
}

/** @param {{about: any}} given */
function Top({ about }) {
  const step = (/** @type {number} */ by) => { row.value = (row.value + by + about.rows) % about.rows; };
  return html`<div class="top">
    <div class="mark"><span>forwardpass</span></div>
    <div class="pick model"><span><b>${about.name}</b></span></div>
    <div class="inputs">
      <button class="icon" aria-label="previous row" onClick=${() => step(-1)}>‹</button>
      <span class="pick"><span><b>row ${row.value}</b><span>of ${grouped(about.rows)}</span></span></span>
      <button class="icon" aria-label="next row" onClick=${() => step(1)}>›</button></div>
    <span class="grow"></span>
    <div class="live ${connection.value}" role="status"><i></i><span>${WORDS[connection.value]}</span></div>
    <button class="icon" aria-label="light or dark"
      onClick=${() => { theme.value = darkNow.value ? "light" : "dark"; }}>◐</button>
  </div>`;
}

/** @param {KeyboardEvent} event */
function keys(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (target.matches("input:not([type=range]), select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key >= "1" && event.key <= "9" && shown.value?.views.some((/** @type {any} */ v) => v.place === Number(event.key))) {
    view.value = Number(event.key);
    event.preventDefault();
  }
}
