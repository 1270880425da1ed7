// Find a module, a call, a line: for the search box of the page.

/** @typedef {{kind: "module" | "call" | "line", title: string, detail: string, call: number}} Found */

/** What a text may mean, best first; all its words must be there.
 * @param {any} graph what `structure.graph` answers @param {string} text @param {number} [most] @returns {Found[]} */
export function find(graph, text, most = 20) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  /** @type {{rank: number, found: Found}[]} */
  const found = [];
  const look = (/** @type {Found} */ one, /** @type {string} */ key) => {
    const where = `${key} ${one.title} ${one.detail}`.toLowerCase();
    if (!words.every((word) => where.includes(word))) return;
    const name = one.title.toLowerCase();
    const rank = name === words[0] || key === words[0] ? 0 : name.split(/[. ]/).some((part) => part.startsWith(words[0])) ? 1 : 2;
    found.push({ rank, found: one });
  };
  const { modules, calls, sites } = graph;
  modules.path.forEach((/** @type {string} */ path, /** @type {number} */ at) => {
    const again = modules.index[at] ? `, called again (${modules.index[at] + 1})` : "";
    if (modules.stop[at] > modules.first[at]) {
      look({ kind: "module", title: path || modules.kind[at], detail: `${modules.kind[at]}${again}`, call: modules.first[at] }, "");
    }
  });
  /** @type {Map<number, number>} */
  const lines = new Map();
  calls.operator.forEach((/** @type {string} */ operator, /** @type {number} */ at) => {
    look({ kind: "call", title: `#${at} ${calls.name[at] || operator}`, detail: `${operator} in ${modules.path[calls.module[at]] || "the whole"}`, call: at }, `#${at}`);
    if (!lines.has(calls.site[at])) lines.set(calls.site[at], at);
  });
  for (const [site, call] of lines) {
    if (!sites[site]) continue;
    const [file, line, name] = sites[site];
    look({ kind: "line", title: `${file.split(/[\\/]/).pop()}:${line}`, detail: `${name}, ${file}`, call }, `:${line}`);
  }
  return found.sort((a, b) => a.rank - b.rank).slice(0, most).map((one) => one.found);
}
