// What is said of a node: on the map, to a screen reader, and in the rail.
import { count, grouped, percent, shape } from "fwd/numbers.js";

/** @typedef {import("fwd/map/pass.js").Pass} Pass */
/** @typedef {import("fwd/map/nodes.js").Node} Node */
/** @typedef {import("fwd/map/nodes.js").Drawn} Drawn */

const STILL = "no arithmetic";

export class Words {
  /** @param {Pass} pass @param {{hidden: string | null, from: number, until: number, marks: any, health: any}} given
   *   `hidden`: a shape that is not told yet; shares are of the calls `from` … `until` */
  constructor(pass, { hidden, from, until, marks, health }) {
    this.pass = pass;
    this.hidden = hidden;
    this.all = pass.macs[until] - pass.macs[from];
    this.marks = marks;
    this.first = health?.first ?? null;
  }

  /** The shape of a value. @param {number} serial */
  shape(serial) {
    if (serial < 0) return "no output";
    const text = shape(this.pass.graph.values.shape[serial]);
    return text === this.hidden ? "?" : text;
  }

  /** @param {Node} node */
  share(node) {
    return this.all ? (this.pass.macs[node.stop] - this.pass.macs[node.first]) / this.all : 0;
  }

  /** Numbers in the parameters of one of them. @param {Node} node */
  parameters(node) {
    if (node.module >= 0) return this.pass.graph.modules.parameters[node.module];
    const { first, stop } = node.copies.length ? this.pass.range(node.copies[0]) : node;
    return this.pass.parameters(first, stop);
  }

  /** The modules of some parts, or what they read of the model. @param {import("fwd/map/pass.js").Part[]} parts */
  whose(parts) {
    const { modules, calls } = this.pass.graph;
    return parts.map(({ module, call }) => (module >= 0 ? modules.path[module] : calls.parameters[call].join())).join(" ");
  }

  /** What is wrong with it, or nothing. @param {Node} node */
  fault(node) {
    if (node.kind === "failed") return this.met();
    const { first } = this;
    return first && first.call >= node.first && first.call < node.stop ? `\u2715 first ${first.kind}` : "";
  }

  met() {
    const forms = this.marks.failure.met.map((/** @type {any} */ one) => one.form);
    return forms.join(" \u00b7 ") || "\u2715 raised";
  }

  /** @param {Node} node */
  sub(node) {
    if (node.kind === "stack") {
      const each = this.parameters(node), times = node.copies.length;
      if (new Set(node.copies.map((copy) => this.whose(copy))).size === 1) {
        return each ? `${grouped(each)} parameters, the same each time` : `called ${grouped(times)} times`;
      }
      return each ? `${times} \u00d7 ${count(each)} parameters` : `${grouped(node.stop - node.first)} calls`;
    }
    if (node.still) return node.kind === "run" ? `${node.type}, ${STILL}` : STILL;
    const own = this.parameters(node);
    if (own) return `${grouped(own)} parameters`;
    return node.kind === "run" ? node.type : node.kind === "call" ? this.pass.written(node.first) : "no parameters";
  }

  /** @param {Node} node @param {boolean} selected @returns {import("fwd/map/ink.js").Label} */
  label(node, selected) {
    const ends = node.kind === "input" || node.kind === "output";
    const untitled = node.kind === "run" || (node.kind === "stack" && node.module < 0); // its parts are what is read
    return {
      title: untitled ? "" : node.name, type: node.kind === "run" ? node.name : node.type, selected, faulty: this.fault(node),
      out: node.kind === "failed" ? "\u2715 no output" : this.shape(node.serial),
      sub: ends ? "" : this.sub(node), share: ends ? 0 : this.share(node),
    };
  }

  /** In one line, for who cannot see it. @param {Drawn} map @param {number} at @param {number[]} before */
  spoken(map, at, before) {
    const node = map.nodes[at];
    const path = (/** @type {Node} */ one) => (one.module > 0 && one.kind !== "stack" ? this.pass.graph.modules.path[one.module] : one.name);
    const came = before.map((from) => path(map.nodes[from])).join(" and ");
    const kind = node.kind === "input" || node.kind === "output" ? node.kind : "";
    const part = this.share(node);
    return [
      [kind, path(node), node.type].filter(Boolean).join(" "),
      node.kind === "failed" ? `the pass failed here: ${this.met()}` : `${kind ? "shape" : "output"} ${kind && node.members.length ? node.members.map((serial) => this.shape(serial)).join(" and ") : this.shape(node.serial)}`,
      !kind && node.kind !== "failed" && this.sub(node),
      !kind && part > 0.001 && `${percent(part, 1)} of the multiply-adds`,
      node.kind === "join" && "two ways are added",
      came && `reads ${came}`,
      node.dead && "no output depends on it",
      node.kind !== "failed" && this.fault(node),
    ].filter(Boolean).join(", ");
  }
}
