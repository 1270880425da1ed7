// What the map draws: modules opened as far as they fit, repeats folded, and what leads where.
import { shape } from "fwd/numbers.js";
import { folded, idOf } from "fwd/map/repeats.js";

/** @typedef {import("fwd/map/pass.js").Pass} Pass */
/** @typedef {import("fwd/map/pass.js").Part} Part */
/** @typedef {import("fwd/map/pass.js").Scope} Scope */
/** A thing on the map; its calls are those from `first` up to `stop`. `members` are the values of an
 * end, `copies` what a stack holds.
 * @typedef {{id: string, kind: "input" | "output" | "module" | "call" | "run" | "stack" | "join" | "failed",
 *   first: number, stop: number, module: number, members: number[], copies: Part[][], name: string, type: string,
 *   serial: number, still: boolean, dead: boolean, loose: boolean, chained: boolean}} Node */
/** @typedef {{from: number, to: number, serial: number}} Edge */
/** @typedef {{nodes: Node[], edges: Edge[]}} Drawn */
/** What the reader chose: the zoom, nodes opened (true) or closed (false), stacks unfolded (true: all).
 * @typedef {{zoom: "modules" | "operators", opened: Map<string, boolean>, unfolded: boolean | Set<string>}} Choice */
/** @typedef {{dead: Set<number>, still: Set<number>, failure: any}} Marks */

const ROOM = 14;
const ROOM_INSIDE = 20;
/** @type {{members: number[], copies: Part[][], module: number, type: string, serial: number, still: boolean, dead: boolean, loose: boolean, chained: boolean}} */
const EMPTY = { members: [], copies: [], module: -1, type: "", serial: -1, still: false, dead: false, loose: false, chained: false };

/** The map of the pass, or of what is in a scope.
 * @param {Pass} pass @param {Marks} marks @param {Choice} choice @param {Scope} [within]
 * @returns {Drawn} */
export function drawn(pass, marks, choice, within) {
  const whole = !within;
  const scope = within ?? (pass.graph.modules.path.length ? pass.inside(0) : null);
  const made = new Making(pass, marks, choice, scope?.base ?? "");
  const steps = scope
    ? choice.zoom === "operators" ? made.operators(scope) : made.fitting(scope)
    : made.loose();
  const inputs = whole ? made.inputs() : made.entries(within);
  const ends = marks.failure && whole ? [made.failed(marks.failure)] : whole ? made.outputs() : made.exits(within);
  const nodes = [...inputs, ...steps, ...ends], edges = leading(pass, nodes, marks);
  const read = new Set(edges.map((edge) => edge.from));
  nodes.forEach((node, at) => { node.loose = node.dead && !read.has(at); });
  return { nodes, edges };
}

class Making {
  /** @param {Pass} pass @param {Marks} marks @param {Choice} choice @param {string} base */
  constructor(pass, marks, choice, base) {
    this.pass = pass;
    this.marks = marks;
    this.choice = choice;
    this.base = base;
    const { failure } = marks, { parent } = pass.graph.modules;
    /** The layer that raised, which is drawn as that; -1 where it was no layer. */
    this.broken = failure && failure.module >= 0 && !pass.children[failure.module].length ? failure.module : -1;
    /** The modules around it. */
    this.around = new Set();
    for (let at = failure ? parent[failure.module] ?? -1 : -1; at >= 0; at = parent[at]) this.around.add(at);
  }

  /** Modules. Opened is what the reader opened; and, as long as all fits, the largest: of one of
   * several alike whatever fits, of the whole only what most of it is in.
   * @param {Scope} scope @returns {Node[]} */
  fitting(scope) {
    const all = scope.stop - scope.first, part = scope.module !== 0;
    let now = this.steps(scope);
    for (;;) {
      const size = (/** @type {Node} */ node) => {
        const wish = this.choice.opened.get(node.id) ?? (this.around.has(node.module) || undefined), calls = node.stop - node.first;
        if (node.kind !== "module" || wish === false) return 0;
        if (wish) return all + calls;
        const most = part || now.length === 1 || 2 * calls > all;
        return this.pass.children[node.module].length && most ? calls : 0;
      };
      const sizes = now.map(size), largest = sizes.reduce((a, b) => Math.max(a, b), 0);
      if (!largest) return now;
      const at = sizes.indexOf(largest), inside = this.steps(this.pass.inside(now[at].module));
      if (largest <= all && now.length - 1 + inside.length > (part ? ROOM_INSIDE : ROOM) && now.length > 1) return now;
      now = [...now.slice(0, at), ...inside, ...now.slice(at + 1)];
    }
  }

  /** Every call for itself, repeats folded. @param {Scope} scope @returns {Node[]} */
  operators(scope) {
    /** @type {Node[]} */
    const found = [];
    const into = (/** @type {Part[]} */ parts) => {
      for (const { part, copies, chained } of this.folded(parts)) {
        if (copies.length) found.push(this.stack(copies, chained));
        else if (part.module < 0) found.push(this.call(part.call));
        else if (this.pass.graph.modules.first[part.module] === this.pass.graph.modules.stop[part.module]) {
          if (part.module !== this.broken && !this.pass.children[part.module].length) found.push(this.module(part.module));
        } else into(this.pass.parts(part.module));
      }
    };
    into(scope.parts);
    return found;
  }

  /** Without modules there are calls alone. @returns {Node[]} */
  loose() {
    return Array.from({ length: this.pass.count }, (_, call) => this.call(call));
  }

  /** What is in a scope: its modules, and its own calls between them as one.
   * @param {Scope} scope @returns {Node[]} */
  steps({ parts }) {
    /** @type {Node[]} */
    const found = [];
    /** @type {number[]} */
    let run = [];
    const end = () => {
      if (run.length === 1 || this.choice.opened.get(`r${run[0]}`)) found.push(...run.map((call) => this.call(call)));
      else if (run.length) found.push(this.run(run[0], run[run.length - 1] + 1));
      run = [];
    };
    const alone = parts.every((part) => part.module < 0);
    for (const { part, copies, chained } of this.folded(parts)) {
      if (part.module < 0 && !copies.some((copy) => copy.some((one) => one.module >= 0)) && !alone) {
        for (const { call } of copies.length ? copies.flat() : [part]) {
          if (this.pass.joins(call)) {
            end();
            found.push(this.call(call));
          } else run.push(call);
        }
        continue;
      }
      end();
      if (copies.length) found.push(this.stack(copies, chained));
      else if (part.module < 0) found.push(this.call(part.call));
      else if (part.module !== this.broken) found.push(this.module(part.module));
    }
    end();
    return found;
  }

  /** Parts, repeats together but for those that the reader unfolded. @param {Part[]} parts */
  folded(parts) {
    const { unfolded } = this.choice;
    if (unfolded === true) return parts.map((part) => ({ part, copies: /** @type {Part[][]} */ ([]), chained: true }));
    return folded(this.pass, parts, (id) => unfolded !== false && unfolded.has(id));
  }

  /** @param {number} module @returns {Node} */
  module(module) {
    const { first, stop, kind, outputs } = this.pass.graph.modules;
    return this.ranged({
      ...EMPTY, id: `m${module}`, kind: "module", first: first[module], stop: stop[module], module,
      name: this.named(module), type: kind[module], serial: outputs[module][0] ?? -1,
    });
  }

  /** @param {Part[][]} copies @param {boolean} chained @returns {Node} */
  stack(copies, chained) {
    const { kind, outputs, path } = this.pass.graph.modules;
    const modules = copies[0].filter((part) => part.module >= 0), last = copies[copies.length - 1];
    const kinds = [...new Set(modules.map((part) => kind[part.module]))];
    const names = kinds.length ? kinds : [...new Set(copies[0].map((part) => this.pass.named(part.call)))];
    const told = names.slice(0, 3).join(", ") + (names.length > 3 ? "\u2026" : "");
    const ending = last[last.length - 1], lasts = last.filter((part) => part.module >= 0);
    const name = modules.length ? this.named(modules[0].module) : `#${copies[0][0].call}`;
    const tail = modules.length ? unlike(path[modules[0].module], path[lasts[lasts.length - 1].module]) : `#${ending.call}`;
    return this.ranged({
      ...EMPTY, id: idOf(this.pass, copies), kind: "stack", first: this.pass.range(copies[0]).first, stop: this.pass.range(last).stop,
      module: copies[0].length === 1 ? copies[0][0].module : -1, copies, name: tail ? `${name}\u2026${tail}` : name,
      type: `${copies.length} \u00d7 ${names.length > 1 ? `(${told})` : told}`,
      serial: (ending.module >= 0 ? outputs[ending.module] : this.pass.graph.calls.outputs[ending.call])[0] ?? -1, chained,
    });
  }

  /** @param {number} call @returns {Node} */
  call(call) {
    const { calls } = this.pass.graph;
    return this.ranged({
      ...EMPTY, id: `c${call}`, kind: this.pass.joins(call) ? "join" : "call", first: call, stop: call + 1,
      module: -1, name: `#${call}`, type: this.pass.named(call), serial: calls.outputs[call][0] ?? -1,
    });
  }

  /** @param {number} first @param {number} stop @returns {Node} */
  run(first, stop) {
    const calls = Array.from({ length: stop - first }, (_, i) => first + i);
    const still = (/** @type {number} */ call) => Number(this.marks.still.has(call));
    const names = [...new Set(calls.sort((a, b) => still(a) - still(b) || a - b).map((call) => this.pass.named(call)))];
    const told = names.slice(0, 2).join(", ") + (names.length > 2 ? "\u2026" : "");
    let serial = -1;
    for (let at = stop - 1; at >= first && serial < 0; at--) serial = this.pass.graph.calls.outputs[at][0] ?? -1;
    return this.ranged({
      ...EMPTY, id: `r${first}`, kind: "run", first, stop, name: told, type: `${stop - first} calls`, serial,
    });
  }

  /** @param {Node} node @returns {Node} */
  ranged(node) {
    const every = (/** @type {Set<number>} */ set) => {
      for (let at = node.first; at < node.stop; at++) if (!set.has(at)) return false;
      return true;
    };
    const still = every(this.marks.still); // what computes nothing is no dead end to speak of
    return { ...node, still, dead: !still && node.stop > node.first && every(this.marks.dead) };
  }

  /** @param {number} module */
  named(module) {
    const { path, kind } = this.pass.graph.modules;
    const full = path[module];
    const inside = this.base && full.startsWith(`${this.base}.`) ? full.slice(this.base.length + 1) : full;
    return brief(inside) || kind[module];
  }

  inputs() {
    const given = Object.entries(this.pass.graph.inputs);
    if (!given.length) return [];
    const one = end("input", given.map(([name]) => name).join(", "), /** @type {number} */ (given[0][1]), 0);
    return [{ ...one, members: given.map(([, serial]) => /** @type {number} */ (serial)) }];
  }

  outputs() {
    return Object.entries(this.pass.graph.outputs).map(([name, serial]) => end("output", name, /** @type {number} */ (serial), this.pass.count));
  }

  /** What goes into one of several alike. @param {Scope} scope */
  entries({ inputs, first }) {
    const serials = [...new Set(inputs)];
    if (!serials.length) return [];
    return [{ ...end("input", "in", serials[0], first), members: serials }];
  }

  /** @param {Scope} scope */
  exits({ outputs, stop }) {
    return [...new Set(outputs)].map((serial) => end("output", "out", serial, stop));
  }

  /** @param {any} failure @returns {Node} */
  failed(failure) {
    const at = this.pass.count, layer = this.broken >= 0 && this.choice.zoom === "modules";
    const { first, stop } = this.pass.graph.modules;
    return {
      ...EMPTY, id: "failed", kind: "failed", module: failure.module,
      first: layer ? first[this.broken] : at, stop: layer ? stop[this.broken] : at,
      name: failure.module > 0 ? this.named(failure.module) : `#${at}`,
      type: layer ? failure.kind : failure.operator || "here",
    };
  }
}

/** The last words of a path, as many as are read at a glance. @param {string} path */
function brief(path) {
  let short = path;
  while (short.length > 16 && /^[^.]*\.(?!\d+$)/.test(short)) short = short.replace(/^[^.]*\./, "");
  return short;
}

/** What the second of two paths does not begin with as the first does. @param {string} one @param {string} other */
function unlike(one, other) {
  const [own, parts] = [one.split("."), other.split(".")];
  let same = 0;
  while (same < parts.length && own[same] === parts[same]) same++;
  return parts.slice(same).join(".");
}

/** @param {"input" | "output"} kind @param {string} name @param {number} serial @param {number} at @returns {Node} */
const end = (kind, name, serial, at) =>
  ({ ...EMPTY, id: `${kind}:${name}:${serial}`, kind, first: at, stop: at, name, serial });

/** What leads from one node to another: each pair once, with the first value that goes that way.
 * @param {Pass} pass @param {Node[]} nodes @param {Marks} marks @returns {Edge[]} */
function leading(pass, nodes, marks) {
  const { calls, modules } = pass.graph;
  /** @type {Map<number, number>} */
  const holder = new Map();
  /** @type {Edge[]} */
  const edges = [];
  nodes.forEach((node, to) => {
    const from = new Set();
    const reads = (/** @type {number} */ serial) => {
      const at = holder.get(serial);
      if (at === undefined || at === to || from.has(at)) return;
      from.add(at);
      edges.push({ from: at, to, serial });
    };
    if (node.kind === "failed") (modules.inputs[node.module] ?? []).forEach(reads);
    if (node.kind === "input") node.members.forEach((serial) => holder.set(serial, to));
    else if (node.kind === "output") reads(node.serial);
    else if (node.first === node.stop && node.kind !== "failed") { // a module that only hands on
      modules.inputs[node.module].forEach(reads);
      modules.outputs[node.module].forEach((/** @type {number} */ serial) => holder.set(serial, to));
    }
    for (let call = node.first; call < node.stop; call++) {
      calls.inputs[call].forEach(reads);
      calls.outputs[call].forEach((/** @type {number} */ serial) => holder.set(serial, to));
    }
  });
  if (marks.failure && nodes.length > 1 && !edges.some((edge) => nodes[edge.to].kind === "failed")) {
    const to = nodes.findIndex((node) => node.kind === "failed");
    if (to > 0) edges.push({ from: to - 1, to, serial: nodes[to - 1].serial });
  }
  return edges;
}

/** The id of what was opened around a node: the run that its call was one of, or the module that it
 * is in; "" where that is all that the map is of.
 * @param {Pass} pass @param {Drawn} map @param {number} at @param {Map<string, boolean>} opened @param {Scope | null} within */
export function holding(pass, { nodes }, at, opened, within) {
  const { modules, calls } = pass.graph;
  const home = (/** @type {Part} */ { module, call }) => (module >= 0 ? modules.parent[module] : calls.module[call]);
  const { kind, copies, module, first } = nodes[at];
  if (kind === "input" || kind === "output" || kind === "failed") return "";
  const around = home(copies.length ? copies[0][0] : { module, call: first });
  for (let i = at; kind === "call" && nodes[i]?.kind === "call" && calls.module[nodes[i].first] === around; i--) {
    if (opened.get(`r${nodes[i].first}`)) return `r${nodes[i].first}`;
  }
  const root = !within ? 0 : within.module >= 0 ? within.module : home(within.parts[0]);
  return around > root ? `m${around}` : "";
}

/** What leads to each node. @param {Drawn} map @returns {Edge[][]} */
export function arriving({ nodes, edges }) {
  /** @type {Edge[][]} */
  const found = nodes.map(() => []);
  for (const edge of edges) found[edge.to].push(edge);
  return found;
}

/** The shapes that differ from the one that came in, by node: worth a word on the edge.
 * @param {Pass} pass @param {Drawn} map */
export function turning(pass, map) {
  const { values } = pass.graph;
  const first = new Map();
  for (const { to, serial } of map.edges) if (!first.has(to)) first.set(to, serial);
  return map.nodes.map((node, at) => node.serial >= 0 && first.has(at) && node.kind !== "output"
    && shape(values.shape[first.get(at)]) !== shape(values.shape[node.serial]));
}
