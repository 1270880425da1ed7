// The sentence as a picture: what comes in × weights = products → the sum → what follows → the number.
import { html } from "fwd/dom.js";
import { Heat } from "fwd/heat.js";
import { grouped, shape } from "fwd/numbers.js";
import { digits } from "fwd/state.js";
import { Grid } from "fwd/neuron/grid.js";
import { ending, textOf, written } from "fwd/neuron/arithmetic.js";

const IMAGE = 112; // px of an image along its longer side
const LONG = 16; // letters of a path
const CURVE = { wide: 132, high: 104 };

/** @param {{parts: any[], picture: any, open: boolean, go: (element: string) => void}} given */
export function Picture({ parts, picture, open, go }) {
  return html`<div class="picture neuron">${picture && html`<${Factors} picture=${picture} />`}
    <${Sum} part=${parts[0]} rest=${parts.slice(1)} open=${open} go=${go} />
    ${parts.length > 1 && html`<${Curve} before=${parts.at(-2)} part=${parts.at(-1)} open=${open} />`}</div>`;
}

/** @param {{sign: string}} given */
const Sign = ({ sign }) => html`<span class="sign" aria-hidden="true">${sign}</span>`;

/** @param {{title: string, sub: string, children?: any}} given */
const Figure = ({ title, sub, children }) => html`<figure><p class="kicker">${title}</p>${children}<figcaption class="small faint num">${sub}</figcaption></figure>`;

/** @param {{picture: any}} given */
function Factors({ picture }) {
  const { blocks, height, width, factors, titles, products, image, exact } = picture;
  const count = grouped(products.filter((/** @type {any} */ one) => one !== null).length);
  const grid = (/** @type {any} */ numbers, /** @type {string} */ label, /** @type {string} */ kind = "sign") => html`<${Grid}
    blocks=${blocks} height=${height} width=${width} numbers=${numbers} label=${label} kind=${kind} exact=${exact} />`;
  const of = exact ? `${blocks > 1 ? `${blocks} × ` : ""}${height} × ${width}` : `${count} numbers`;
  return html`<${Figure} title=${image ? `the image, and ${of} of it` : `${count} numbers come in`} sub=${titles[0] || of}>
      <div class="row">${image && html`<${Image} image=${image} />`}${grid(factors[0], `what comes in: ${of}`, image ? kindOf(image) : "sign")}</div><//>
    <${Sign} sign="×" /><${Figure} title="${count} weights" sub=${titles[1]}>${grid(factors[1], `weights: ${of}`)}<//>
    <${Sign} sign="=" /><${Figure} title="${count} products" sub="one times the other">${grid(products, `products: ${of}`)}<//><${Sign} sign="→" />`;
}

/** A short path as it is, of a long one what runs there. @param {any} part */
const named = ({ module, kind }) => (module.length > LONG ? kind : `${module} ${kind}`);

/** Ink for pixels that only have more or less of it. @param {any} image */
const kindOf = (image) => (image.numbers.some((/** @type {any} */ one) => Number(one) < 0) ? "sign" : "ink");

/** @param {{image: any}} given */
function Image({ image }) {
  const cell = Math.max(1, Math.floor(IMAGE / Math.max(image.height, image.width)));
  const numbers = image.numbers.map(Number);
  const most = Math.max(0, ...numbers.map(Math.abs).filter(Number.isFinite));
  const fit = { cell, tall: cell, columns: 1, lines: 1, wide: image.width * cell, high: image.height * cell };
  return html`<div class="windowed"><${Heat} numbers=${numbers} height=${image.height} width=${image.width} fit=${fit} most=${most} kind=${kindOf(image)}
      label="${image.name || "the input"} ${shape(image.shape)}${image.channels > 1 ? `, the mean of ${image.channels} channels` : ""}" />
    <svg width=${fit.wide} height=${fit.high} aria-hidden="true"><rect x=${image.left * cell} y=${image.top * cell}
      width=${(image.right - image.left) * cell} height=${(image.bottom - image.top) * cell} fill="none" stroke="var(--accent)" stroke-width="2" /></svg></div>`;
}

/** The steps from the sum to the number, and what follows.
 * @param {{part: any, rest: any[], open: boolean, go: (element: string) => void}} given */
function Sum({ part, rest, open, go }) {
  const steps = ending(part.steps).slice(-5);
  if (!steps.length) return null;
  const line = (/** @type {any} */ name, /** @type {any} */ value, /** @type {string} */ kind = "") => html`<div class=${`sum ${kind}`}>
    <span class="soft">${name}</span><span class="num">${open ? written(value, digits.value, Math.abs(Number(value)) || 1) : html`<span class="faint">?</span>`}</span></div>`;
  return html`<figure class="added"><p class="kicker">${part.steps.some((/** @type {any} */ step) => step.sums) ? "added up" : "computed"}</p>
    ${steps.map((/** @type {any} */ step, /** @type {number} */ at) => line(
      `${step.adds ? "+ " : at === steps.length - 1 ? "= " : ""}${step.name}`, step.value, at === steps.length - 1 ? "is" : ""))}
    ${rest.map((next) => line(html`<button class="go" onClick=${() => go(textOf(next.stand))}
      disabled=${!next.stand.owner} title=${next.module}>${named(next)}</button>`, next.recorded))}</figure>`;
}

/** The activation where this number meets it: what goes in, and what comes out, by the numbers that
 * were recorded. @param {{before: any, part: any, open: boolean}} given */
function Curve({ before, part, open }) {
  const { wide, high } = CURVE;
  const [x, y] = [Number(before.recorded), Number(part.recorded)];
  const reach = Math.max(Math.abs(x), Math.abs(y), 1e-12) * 1.25;
  const across = (/** @type {number} */ v) => wide / 2 + (v / reach) * (wide / 2);
  const up = (/** @type {number} */ v) => high / 2 + 16 - (v / reach) * (high / 2 - 8);
  const there = open && Number.isFinite(x) && Number.isFinite(y);
  const write = (/** @type {number} */ v) => written(v, digits.value, Math.abs(v) || 1);
  const formula = part.steps.at(-1)?.formula ?? "";
  return html`<figure><p class="kicker" title=${part.module}>${named(part)}</p>
    <svg width=${wide} height=${high + 24} role="img" aria-label=${there ? `${part.kind}: ${write(x)} goes in, ${write(y)} comes out` : part.kind}>
      <line x1="0" y1=${up(0)} x2=${wide} y2=${up(0)} stroke="var(--line-2)" /><line x1=${wide / 2} y1="4" x2=${wide / 2} y2=${high + 16} stroke="var(--line-2)" />
      <line x1=${across(-reach)} y1=${up(-reach)} x2=${across(reach)} y2=${up(reach)} stroke="var(--line)" stroke-dasharray="2 3" />
      ${there ? html`<path d=${`M${across(x)} ${up(0)}V${up(y)}H${wide / 2}`} fill="none" stroke="var(--accent)" stroke-dasharray="2 3" />
        <circle cx=${across(x)} cy=${up(y)} r="6" fill="var(--accent)" stroke="var(--paper)" stroke-width="2" />`
        : html`<text x="26" y="34" class="f">?</text>`}</svg>
    <figcaption><b class="num result">${open ? write(y) : "?"}</b> <span class="small soft">${open ? (y === 0 ? "nothing goes on" : "goes on") : ""}
      ${open && formula ? `: ${formula}` : ""}</span></figcaption></figure>`;
}

