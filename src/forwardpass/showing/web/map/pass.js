// The pass as the map goes through it: modules and calls in their order, what they cost, which
// modules are alike.
import { shape } from "fwd/numbers.js";

/** A part of a module: a module call, or an operator call that is its own.
 * @typedef {{module: number, call: number}} Part */

export class Pass {
  /** @param {any} graph what `structure.graph` answers */
  constructor(graph) {
    this.graph = graph;
    const { modules, calls } = graph;
    /** @type {number[][]} */
    this.children = modules.path.map(() => []);
    modules.parent.forEach((/** @type {number} */ parent, /** @type {number} */ at) => {
      if (parent >= 0) this.children[parent].push(at);
    });
    this.count = calls.operator.length;
    /** Macs of the calls before each. */
    this.macs = new Float64Array(this.count + 1);
    calls.macs.forEach((/** @type {number | null} */ macs, /** @type {number} */ at) => {
      this.macs[at + 1] = this.macs[at] + (macs ?? 0);
    });
    this.sizes = new Map(graph.parameters.name.map((/** @type {string} */ name, /** @type {number} */ at) =>
      [name, graph.parameters.buffer[at] ? 0 : graph.parameters.shape[at].reduce(
        (/** @type {number} */ a, /** @type {number} */ b) => a * b, 1)]));
    /** The same number for modules of one structure: kinds, calls, shapes. */
    this.likeness = likeness(this);
    this.outputs = new Map(Object.entries(graph.outputs).map(([path, serial]) => [serial, path]));
  }

  /** What is in a module call, in order. @param {number} module @returns {Part[]} */
  parts(module) {
    const { first, stop } = this.graph.modules;
    /** @type {Part[]} */
    const found = [];
    let at = first[module];
    for (const child of this.children[module]) {
      for (; at < first[child]; at++) found.push({ module: -1, call: at });
      found.push({ module: child, call: first[child] });
      at = Math.max(at, stop[child]);
    }
    for (; at < stop[module]; at++) found.push({ module: -1, call: at });
    return found;
  }

  /** Numbers in the parameters that calls read, each once. @param {number} first @param {number} stop */
  parameters(first, stop) {
    const names = new Set();
    for (let at = first; at < stop; at++) for (const name of this.graph.calls.parameters[at]) names.add(name);
    let sum = 0;
    for (const name of names) sum += this.sizes.get(name) ?? 0;
    return sum;
  }

  /** The name that the code wrote, or the operator's. @param {number} call */
  named(call) {
    const { name, operator } = this.graph.calls;
    const full = name[call] || operator[call].replace(/\.[^.]*$/, "");
    return full.length > 20 ? full.replace(/^.*\.(?=[^.]+$)/, "") : full;
  }

  /** `conv.py:560`. @param {number} call */
  written(call) {
    const site = this.graph.sites[this.graph.calls.site[call]];
    return site ? `${site[0].split(/[\\/]/).pop()}:${site[1]}` : "";
  }

  /** A call that adds two values of the pass, of one shape: where two ways meet.
   * @param {number} call */
  joins(call) {
    const { calls, values } = this.graph;
    if (!/^aten\.add_?\./.test(calls.operator[call])) return false;
    const [one, other, more] = calls.inputs[call];
    if (other === undefined || more !== undefined) return false;
    const comes = (/** @type {number} */ serial) => values.origin[serial] === "call" || values.origin[serial] === "input";
    return comes(one) && comes(other) && shape(values.shape[one]) === shape(values.shape[other]);
  }
}

/** @param {Pass} pass */
function likeness(pass) {
  const { modules, calls, values } = pass.graph;
  /** @type {Map<string, number>} */
  const known = new Map();
  const found = new Int32Array(modules.path.length);
  const made = (/** @type {number[]} */ serials) => serials.map((serial) => values.shape[serial]).join(";");
  for (let at = found.length - 1; at >= 0; at--) {
    const parts = pass.parts(at).map(({ module, call }) =>
      module >= 0 ? `m${found[module]}` : `${calls.operator[call]}:${made(calls.outputs[call])}`);
    const key = `${modules.kind[at]}(${parts.join("|")})${made(modules.inputs[at])}>${made(modules.outputs[at])}:${modules.parameters[at]}`;
    const number = known.get(key) ?? known.size;
    known.set(key, number);
    found[at] = number;
  }
  return found;
}
