// Icons: 16 px, in the colour of the text around them; and the marks that drawings share.
import { html } from "fwd/dom.js";

/** @param {any} inner @param {string} [kind] */
const icon = (inner, kind = "") => html`<svg class=${kind} width="16" height="16" viewBox="0 0 16 16"
  fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"
  aria-hidden="true">${inner}</svg>`;

export const LEFT = icon(html`<path d="M10 3 5 8l5 5" />`);
export const RIGHT = icon(html`<path d="m6 3 5 5-5 5" />`);
export const DOWN = icon(html`<path d="m4 6 4 4 4-4" />`, "down");
export const SEARCH = icon(html`<circle cx="7" cy="7" r="4.5" /><path d="m10.5 10.5 3 3" />`);
export const THEME = icon(html`<circle cx="8" cy="8" r="5.5" /><path d="M8 2.5v11A5.5 5.5 0 0 0 8 2.5z" fill="currentColor" />`);
export const HELP = icon(html`<path d="M5.5 6a2.5 2.5 0 1 1 3.6 2.2C8.3 8.7 8 9 8 10" /><path d="M8 12.7v.1" />`);
export const PLAY = icon(html`<path d="M5 3v10l8-5z" fill="currentColor" />`);
export const PAUSE = icon(html`<path d="M5 3v10M11 3v10" />`);
export const WRONG = icon(html`<path d="m4 4 8 8M12 4l-8 8" />`);
export const WARNING = icon(html`<path d="M8 2 14.5 13.5h-13z" /><path d="M8 6.5v3M8 11.6v.1" />`);
export const FINE = icon(html`<path d="m3 8.5 3.5 3.5L13 4.5" />`);
export const LEFT_OUT = icon(html`<path d="M3 8h10" />`);

export const MARK = html`<svg width="22" height="16" viewBox="0 0 22 16" fill="none" stroke="currentColor"
  stroke-width="2" stroke-linecap="round" aria-hidden="true"><path d="M2 2 9 8 2 14M11 2l7 6-7 6" /></svg>`;

/** Hatches and arrow heads, by `url(#hatch)`, `#hatch2`, `#arr`, `#arr2`. */
export const Marks = () => html`<svg class="marks" width="0" height="0" aria-hidden="true"><defs>
  <pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
    <rect width="5" height="5" fill="var(--neg)" /><line x1="0" y1="0" x2="0" y2="5" stroke="var(--paper)" stroke-width="2.2" /></pattern>
  <pattern id="hatch2" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
    <line x1="0" y1="0" x2="0" y2="5" stroke="var(--ink-3)" stroke-width="2" /></pattern>
  <marker id="arr" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
    <path d="M0 1 7 4 0 7z" fill="var(--line-2)" /></marker>
  <marker id="arr2" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto-start-reverse">
    <path d="M0 1 7 4 0 7z" fill="var(--ink)" /></marker></defs></svg>`;
