// The page around the views: the top, the views' tabs, banners, the foot; keys.
import { html, useEffect, useRef } from "fwd/dom.js";
import { Banners } from "fwd/banners.js";
import { Empty } from "fwd/empty.js";
import { Waiting } from "fwd/frame.js";
import { Help } from "fwd/help.js";
import { Marks } from "fwd/icons.js";
import { keys } from "fwd/keys.js";
import { useAnswer } from "fwd/asked.js";
import { exported, watch } from "fwd/source.js";
import { example, row, shown, view } from "fwd/state.js";
import { Top } from "fwd/top.js";
import { VIEWS } from "fwd/views.js";

export function Shell() {
  const reached = useAnswer("page.shown", { example: example.value || undefined });
  const about = reached.answer;
  useEffect(watch, []);
  useEffect(() => {
    shown.value = about ?? null;
    if (about && row.value >= about.rows) row.value = 0;
  }, [about]);
  if (!about) return html`<main class="alone"><h1 class="vh">forwardpass</h1><${Waiting} reached=${reached} /></main>`;
  if (!exported && !about.live && !about.nouns.length) return html`<${Empty} />`;
  return html`<${Views} about=${about} />`;
}

/** @param {{about: any}} given */
function Views({ about }) {
  const help = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const known = /** @type {any[]} */ (about.views).filter((one) => one.name in VIEWS);
  const now = known.find((one) => one.place === view.value) ?? known[0];
  const reached = useAnswer("structure.graph", { row: row.value });
  const graph = reached.answer ?? null;
  // The first pass, before which no view has anything: it is waited for once, and can be stopped.
  const first = useRef(true);
  if (graph || (reached.refusal && reached.refusal.kind !== "Stopped")) first.current = false;
  const show = () => help.current?.showModal();
  useEffect(() => {
    const pressed = (/** @type {KeyboardEvent} */ event) => keys(event, known, show);
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, [about]);
  useEffect(() => { document.title = `${now.name} · ${about.name} · forwardpass`; }, [now, about]);
  const View = VIEWS[now.name];
  return html`<a class="vh skip" href="#view" onClick=${skip}>Skip to the view</a>
    <header><${Top} about=${about} graph=${graph} help=${show} />
      <${Tabs} known=${known} now=${now} /><${Banners} about=${about} graph=${graph} /></header>
    <main><div id="view" class="view" role="tabpanel" tabindex="-1" aria-labelledby=${`tab-${now.place}`}>${
      first.current ? html`<div class="head"><h1>${now.question}</h1></div><div class="body"><${Waiting} reached=${reached} /></div>`
      : html`<${View} key=${now.name} about=${about} view=${now} />`}</div></main>
    <${Foot} graph=${graph} /><${Help} at=${help} /><${Marks} />`;
}

/** The fragment of the URL is the page's own. @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("view")?.focus();
}

/** @param {{known: any[], now: any}} given */
function Tabs({ known, now }) {
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [now]);
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    const at = known.indexOf(now);
    /** @type {Record<string, number>} */
    const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: known.length - 1 };
    if (!(event.key in places)) return;
    const to = known[(places[event.key] + known.length) % known.length];
    view.value = to.place;
    document.getElementById(`tab-${to.place}`)?.focus();
    event.preventDefault();
  };
  return html`<div class="tabs" role="tablist" aria-label="views" ref=${list} onKeyDown=${pressed}>${known.map((one) => html`
    <button role="tab" id=${`tab-${one.place}`} aria-selected=${one === now} aria-controls="view" tabindex=${one === now ? 0 : -1}
      onClick=${() => { view.value = one.place; }}><i aria-hidden="true">${one.place}</i>${one.name}</button>`)}</div>`;
}

/** @param {{graph: any}} given */
function Foot({ graph }) {
  const { torch } = graph?.versions ?? {};
  const changes = graph?.changes.length
    ? `the pass changed: ${graph.changes.join("; ")}` : "the pass changed nothing of the module";
  return html`<footer class="foot">${graph && html`
      <span>torch ${torch} · ${graph.mode} mode · ${graph.grad === "inference" ? "inference" : `grad ${graph.grad}`}</span>
      <span class="wide">path ${graph.path.slice(0, 8)} · ${graph.failed ? "the pass failed" : changes}</span>`}
    <span class="grow"></span><span class="wide"><kbd>1</kbd>…<kbd>9</kbd> views${"\u2002"}<kbd>?</kbd> keys</span></footer>`;
}
