// The top of the page: model, row, search, state, theme, help.
import { html, useEffect, useRef } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Find } from "fwd/find.js";
import { DOWN, HELP, LEFT, MARK, RIGHT, THEME } from "fwd/icons.js";
import { Menu } from "fwd/menu.js";
import { count, grouped } from "fwd/numbers.js";
import { connection } from "fwd/source.js";
import { darkNow, row, theme } from "fwd/state.js";

const WORDS = { live: "live", saved: "saved, not live", gone: "server gone" };
const LISTED = 64;

/** @param {{about: any, graph: any, help: () => void}} given */
export function Top({ about, graph, help }) {
  const now = connection.value === "live" && !about.live ? "saved" : connection.value;
  return html`<div class="top">
    <div class="mark">${MARK}<span>forwardpass</span></div>
    <${Model} about=${about} graph=${graph} />
    <${Rows} about=${about} live=${now === "live"} />
    <span class="grow"></span>
    <${Find} graph=${graph} />
    <div class="live ${now}" role="status"><i></i><span>${WORDS[/** @type {keyof typeof WORDS} */ (now)]}</span></div>
    <button class="icon" aria-label=${darkNow.value ? "light" : "dark"}
      onClick=${() => { theme.value = darkNow.value ? "light" : "dark"; }}>${THEME}</button>
    <button class="icon" aria-label="keys and words" onClick=${help}>${HELP}</button>
  </div>`;
}

/** The command that opens this again. @param {any} about */
export const command = (about) => (/[./:]/.test(about.name) ? `fwd explain ${about.name}` : "fwd explain FORWARD");

/** @param {{about: any, graph: any}} given */
function Model({ about, graph }) {
  const kind = graph?.modules.kind[0] ?? "";
  const said = graph ? `${kind} · ${grouped(graph.totals.parameters)} parameters` : about.nouns.join(", ");
  const name = about.name.replace(/^.*\//, "") || about.name;
  const face = html`<span><b>${name}</b><span>${said}</span></span>${DOWN}`;
  return html`<${Menu} kind="model" label=${`the model: ${about.name}`} face=${face}>${() => html`
    <dl class="kv"><dt>model</dt><dd>${about.name}</dd>
      ${graph && html`<dt>type</dt><dd>${kind}</dd><dt>parameters</dt><dd>${grouped(graph.totals.parameters)}</dd>
        <dt>calls</dt><dd>${grouped(graph.totals.calls)}</dd><dt>multiply-adds</dt><dd>${count(graph.totals.macs)}</dd>`}
      ${about.nouns.length > 0 && html`<dt>saved</dt><dd>${about.nouns.join(", ")}</dd>`}</dl>
    ${about.notes.map((/** @type {string} */ note) => html`<p class="small soft">${note}</p>`)}
    <p class="small soft">Another model:</p><div class="cmd" tabindex="0">fwd explain FORWARD --data ROWS</div>`}<//>`;
}

/** @param {{about: any, live: boolean}} given */
function Rows({ about, live }) {
  const { answer } = useAnswer("page.row", { row: row.value });
  const step = (/** @type {number} */ by) => { row.value = (row.value + by + about.rows) % about.rows; };
  const still = !live || about.rows < 2;
  const face = html`<${Picture} picture=${answer?.picture} cell=${4} /><span><b>${answer?.title ?? `row ${row.value}`}</b>
    <span>${answer?.said || (about.rows > 1 ? `of ${grouped(about.rows)}` : "")}</span></span>`;
  return html`<div class="inputs">
    <button class="icon" aria-label="previous row" disabled=${still} onClick=${() => step(-1)}>${LEFT}</button>
    <${Menu} kind="chosen" label=${`choose a row: now ${answer?.title ?? row.value}`} face=${face}>${
      (/** @type {() => void} */ close) => html`<ol class="rows">${Array.from(
        { length: still ? 1 : Math.min(about.rows, LISTED) },
        (_, at) => html`<li><${One} row=${still ? row.value : at} close=${close} /></li>`)}</ol>
        ${about.rows > LISTED && html`<p class="small soft">The first ${LISTED} of ${grouped(about.rows)}.</p>`}`}<//>
    <button class="icon" aria-label="next row" disabled=${still} onClick=${() => step(1)}>${RIGHT}</button></div>`;
}

/** @param {{row: number, close: () => void}} given */
function One({ row: at, close }) {
  const { answer } = useAnswer("page.row", { row: at });
  const choose = () => { row.value = at; close(); };
  return html`<button aria-current=${row.value === at ? "true" : undefined} onClick=${choose}>
    <${Picture} picture=${answer?.picture} cell=${3} />
    <span><b>${answer?.title ?? `row ${at}`}</b><span class="faint">${answer?.said ?? ""}</span></span></button>`;
}

const SIDE = 32;

/** Grey ink, darker where the number is larger. @param {{picture: any, cell: number}} given */
function Picture({ picture, cell }) {
  const at = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  useEffect(() => {
    const context = at.current?.getContext("2d");
    if (!context || !picture) return;
    const image = context.createImageData(picture.width, picture.height);
    const ends = darkNow.value ? [0x24, 0xed] : [0xf1, 0x1a];
    picture.shades.forEach((/** @type {number} */ shade, /** @type {number} */ n) => {
      image.data.fill(Math.round(ends[0] + (ends[1] - ends[0]) * shade), n * 4, n * 4 + 3);
      image.data[n * 4 + 3] = 255;
    });
    context.putImageData(image, 0, 0);
  }, [picture, darkNow.value]);
  if (!picture) return null;
  const scale = Math.min(cell, SIDE / Math.max(picture.height, picture.width));
  return html`<canvas class="small-picture" ref=${at} width=${picture.width} height=${picture.height} aria-hidden="true"
    style=${{ width: `${picture.width * scale}px`, height: `${picture.height * scale}px` }}></canvas>`;
}
