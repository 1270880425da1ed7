// The pass as the map goes through it: modules and calls in their order, what they cost, which
// parts are alike.
import { shape } from "fwd/numbers.js";

/** A part of a module: a module call, or an operator call that is its own.
 * @typedef {{module: number, call: number}} Part */
/** What a map is of: the inside of a module call, or, where `module` is -1, some parts that follow
 * each other. `path` names it, `base` is what the names in it begin with.
 * @typedef {{module: number, parts: Part[], first: number, stop: number, inputs: number[], outputs: number[],
 *   path: string, base: string}} Scope */

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
    /** The last call that reads a value. */
    this.read = new Map();
    calls.inputs.forEach((/** @type {number[]} */ serials, /** @type {number} */ at) => {
      for (const serial of serials) this.read.set(serial, at);
    });
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

  /** @param {number} module @returns {Scope} */
  inside(module) {
    const { first, stop, inputs, outputs, path } = this.graph.modules;
    return {
      module, parts: this.parts(module), first: first[module], stop: stop[module],
      inputs: inputs[module], outputs: outputs[module], path: path[module], base: path[module],
    };
  }

  /** Parts that follow each other; of a single module that. @param {Part[]} parts @returns {Scope} */
  scope(parts) {
    if (parts.length === 1 && parts[0].module >= 0) return this.inside(parts[0].module);
    const { calls, values, modules } = this.graph, { first, stop } = this.range(parts);
    const made = new Set(), inputs = new Set();
    for (let at = first; at < stop; at++) {
      for (const serial of calls.inputs[at]) {
        const comes = values.origin[serial] === "call" || values.origin[serial] === "input";
        if (comes && !made.has(serial)) inputs.add(serial);
      }
      for (const serial of calls.outputs[at]) made.add(serial);
    }
    const outputs = [...made].filter((serial) => this.outputs.has(serial) || (this.read.get(serial) ?? -1) >= stop);
    const paths = parts.filter((part) => part.module >= 0).map((part) => modules.path[part.module]);
    return {
      module: -1, parts, first, stop, inputs: [...inputs], outputs, path: paths.join(", ") || `#${first} to #${stop - 1}`,
      base: modules.path[modules.parent[parts[0].module] ?? calls.module[first]] ?? "",
    };
  }

  /** The calls of parts that follow each other. @param {Part[]} parts */
  range(parts) {
    const { stop } = this.graph.modules, { module, call } = parts[parts.length - 1];
    const first = parts[0].call;
    return { first, stop: Math.max(first, module >= 0 ? stop[module] : call + 1) };
  }

  /** The same text for parts of one structure. @param {Part} part */
  sign({ module, call }) {
    if (module >= 0) return `m${this.likeness[module]}`;
    const { calls, values } = this.graph;
    return `${calls.operator[call]}:${calls.outputs[call].map((/** @type {number} */ serial) => values.shape[serial]).join(";")}`;
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
  const { modules, values } = pass.graph;
  /** @type {Map<string, number>} */
  const known = new Map();
  const found = new Int32Array(modules.path.length);
  pass.likeness = found; // the parts of a module are told apart before it is
  const made = (/** @type {number[]} */ serials) => serials.map((serial) => values.shape[serial]).join(";");
  for (let at = found.length - 1; at >= 0; at--) {
    const parts = pass.parts(at).map((part) => pass.sign(part));
    const key = `${modules.kind[at]}(${parts.join("|")})${made(modules.inputs[at])}>${made(modules.outputs[at])}:${modules.parameters[at]}`;
    const number = known.get(key) ?? known.size;
    known.set(key, number);
    found[at] = number;
  }
  return found;
}
