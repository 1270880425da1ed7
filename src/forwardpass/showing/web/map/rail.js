// What is selected on the map.
import { html } from "fwd/dom.js";
import { count, grouped, percent } from "fwd/numbers.js";
import { call, element, shown, view } from "fwd/state.js";
import { Tensor } from "fwd/tensors.js";

/** Another view, where the page has it; null where it has not. @param {string} name */
function place(name) {
  const there = shown.value?.views.find((/** @type {any} */ one) => one.name === name);
  return there ? there.place : null;
}

/** @param {{pass: import("fwd/map/pass.js").Pass, node: import("fwd/map/nodes.js").Node, words: import("fwd/map/words.js").Words,
 *   line: import("fwd/map/chart.js").Line, inputs: number[], toggle: (line: any, open: boolean) => void,
 *   unfold: ((id: string) => void) | null, hides: boolean}} given */
export function Selected({ pass, node, words, line, inputs, toggle, unfold, hides }) {
  const { graph } = pass, { first, stop } = node;
  const calls = stop - first, ends = node.kind === "input" || node.kind === "output";
  const shape = (/** @type {number} */ serial) => `${words.shape(serial)} ${graph.values.dtype[serial] ?? ""}`;
  const copies = node.copies.length;
  const macs = pass.macs[stop] - pass.macs[first], all = graph.totals.macs;
  const unknown = graph.calls.macs.slice(first, stop).includes(null);
  /** @type {[string, string | null][]} */
  const facts = [
    ["path", node.module > 0 ? graph.modules.path[node.module] : null],
    ["call", calls === 1 ? `#${first} ${pass.named(first)}` : null],
    ["calls", calls > 1 ? (copies ? `${grouped(calls / copies)} each, ${grouped(calls)} in all` : `#${first} to #${stop - 1}`) : null],
    ["written at", calls === 1 ? pass.written(first) : null],
    ["input", inputs.length ? inputs.slice(0, 3).map(shape).join(" · ") : null],
    .../** @type {[string, string][]} */ (ends && node.members.length
      ? node.members.map((serial) => [graph.values.name[serial] || "in", shape(serial)])
      : node.serial >= 0 ? [[ends ? "shape" : "output", shape(node.serial)]] : []),
    ["parameters", ends ? null : copies ? `${grouped(words.parameters(node))} each` : grouped(words.parameters(node))],
    ["macs", ends ? null : `${copies ? `${count(macs / copies)} each` : grouped(macs)}${unknown ? " + ?" : ""}`],
    ["share of all", !ends && all ? percent(macs / all, 1) : null],
    ["arithmetic", ends ? null : arithmetic(pass, node)],
  ];
  const at = ends ? null : elementOf(pass, node);
  const go = (/** @type {string} */ name, /** @type {() => void} */ set) => () => {
    set();
    view.value = place(name);
  };
  return html`<section aria-label="selected"><p class="small faint">Selected</p>
    <h2>${copies ? node.type : `${node.name} ${node.type}`}</h2>
    <dl class="kv">${facts.filter(([, said]) => said).map(([name, said]) => html`<dt>${name}</dt><dd>${said}</dd>`)}</dl>
    ${node.dead && html`<p>No output depends on it: a dead end.</p>`}
    ${words.fault(node) && node.kind !== "failed" && html`<p class="warn">The first ${words.first?.kind} is made here:
      ${" "}${grouped(words.first?.count ?? 0)} of ${grouped(words.first?.of ?? 0)} numbers of call #${words.first?.call}.</p>`}
    <p class="links">
      ${line.open !== null && html`<button class="link" onClick=${() => toggle(line, !line.open)}>
        ${line.open ? "Close it" : copies ? "Open one of them" : "Open it"}</button>`}
      ${copies > 0 && unfold && html`<button class="link" onClick=${() => unfold(node.id)}>Unfold all ${copies}</button>`}
      ${at && place("Neuron") && html`<button class="link" onClick=${go("Neuron", () => { element.value = at; })}>Explain one number of it</button>`}
      ${calls > 0 && place("Play") && html`<button class="link" onClick=${go("Play", () => { call.value = first; })}>Play from here</button>`}
    </p>
    ${node.serial >= 0 && html`<h3>${ends ? "its numbers" : "what it made of this row"}</h3>
      ${hides ? html`<p class="faint small">after your prediction</p>`
        : html`<${Tensor} value=${node.serial} title=${node.name} dtype=${graph.values.dtype[node.serial]} room=${296} high=${128} />`}`}
  </section>`;
}

/** @param {import("fwd/map/pass.js").Pass} pass @param {import("fwd/map/nodes.js").Node} node */
function arithmetic(pass, node) {
  if (node.still) return "none";
  const layers = pass.graph.layers.filter((/** @type {any} */ one) => one.affine >= node.first && one.affine < node.stop);
  if (node.stop - node.first <= 2 && layers.length === 1) {
    const sign = pass.graph.calls.operator[layers[0].affine].includes("conv") ? "\u2217" : "\u00b7";
    return `W ${sign} x${layers[0].bias ? " + b" : ""}`;
  }
  if (node.kind === "join") return "x + y";
  return layers.length > 1 ? `${layers.length} products W \u00b7 x` : null;
}

/** The middle element of what it made, as Neuron reads it.
 * @param {import("fwd/map/pass.js").Pass} pass @param {import("fwd/map/nodes.js").Node} node */
function elementOf(pass, node) {
  const { graph } = pass;
  const sizes = graph.values.shape[node.serial];
  if (!sizes || sizes.includes(0)) return null;
  const { path, index } = graph.modules;
  const again = node.module > 0 && index[node.module] ? `:${index[node.module]}` : "";
  const name = node.module > 0 && node.kind !== "stack" ? `${path[node.module]}${again}` : node.stop - node.first === 1 ? `#${node.first}` : null;
  return name && `${name}[${sizes.map((/** @type {number} */ size) => Math.floor(size / 2)).join(", ")}]`;
}
