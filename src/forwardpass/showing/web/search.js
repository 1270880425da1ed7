// What is called so: modules, calls and lines of a pass.

const MOST = 12;

/** @typedef {{kind: "module" | "call" | "line", title: string, said: string, call: number}} Found */

/** The first few whose name holds each word: modules before calls before lines, and names that
 * begin so before others.
 * @param {any} graph as structure.graph answers @param {string} text @returns {Found[]} */
export function found(graph, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  /** @type {[number, Found][]} */
  const all = [];
  const look = (/** @type {string} */ names, /** @type {() => Found} */ make, /** @type {number} */ rank) => {
    const low = names.toLowerCase();
    if (words.every((word) => low.includes(word))) all.push([rank + (low.startsWith(words[0]) ? 0 : 1), make()]);
  };
  const { calls, modules, sites } = graph;
  modules.path.forEach((/** @type {string} */ path, /** @type {number} */ n) => {
    if (modules.first[n] >= modules.stop[n]) return; // nothing of it ran
    look(`${path} ${modules.kind[n]}`, () => ({ kind: "module", title: path || modules.kind[n],
      said: `module, ${modules.kind[n]}`, call: modules.first[n] }), 0);
  });
  const lines = new Set();
  calls.name.forEach((/** @type {string} */ name, /** @type {number} */ n) => {
    const path = modules.path[calls.module[n]] ?? "";
    look(`${name} ${calls.operator[n]} #${n}`, () => ({ kind: "call", title: `#${n} ${name}`,
      said: path ? `call in ${path}` : "call", call: n }), 2);
    const site = sites[calls.site[n]];
    if (!site || lines.has(calls.site[n])) return;
    lines.add(calls.site[n]);
    look(`${site[0]}:${site[1]} ${site[2]}`, () => ({ kind: "line", title: `${site[0]}:${site[1]}`,
      said: `line, ${site[2]}`, call: n }), 4);
  });
  return all.sort((a, b) => a[0] - b[0]).slice(0, MOST).map(([, one]) => one);
}
