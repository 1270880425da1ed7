// Where things stand: layers in one pass over the recorded order, ways past a layer in lanes on
// the right. Linear in nodes and edges.

/** @typedef {import("fwd/map/nodes.js").Drawn} Drawn */
/** @typedef {{x: number, y: number, w: number, h: number}} Place */
/** A way that passes layers by; `res` where it is added to what the others made.
 * @typedef {{from: number, to: number, serial: number, lane: number, res: boolean}} Far */
/** @typedef {{places: Place[], rows: {y: number, h: number, nodes: number[]}[], near: {from: number, to: number, serial: number}[][],
 *   far: Far[], width: number, height: number, lanes: number, single: boolean, row: Int32Array, gap: number}} Layout */

const ACROSS = 5;
const LANES = 12;
const LANE = 12;
const NODE = 42;
const ENDS = 22;
const JOIN = 24;

/** @param {Drawn} map @param {{scale?: number, wide?: number, narrow?: number}} [look] widths of a
 *   node that stands alone, and of those beside each other @returns {Layout} */
export function laid({ nodes, edges }, { scale = 1, wide = 336, narrow = 200 } = {}) {
  const row = layers(nodes, edges);
  /** @type {number[][]} */
  const members = [];
  row.forEach((at, node) => { (members[at] ??= []).push(node); });
  for (let at = 0; at < members.length; at++) members[at] ??= [];
  const most = members.reduce((a, b) => Math.max(a, b.length), 1);
  const single = most === 1;
  const shrink = Math.max(scale, 0.3);
  const w = (single ? wide : narrow) * shrink, space = 12 * shrink;
  const alone = single ? w : Math.max(w, wide * shrink);
  const inner = Math.max(alone, most * w + (most - 1) * space);
  const gap = Math.max(1, 24 * scale);
  /** @type {Place[]} */
  const places = new Array(nodes.length);
  /** @type {number[][]} */
  const before = nodes.map(() => []);
  for (const { from, to } of edges) before[to].push(from);
  let y = 0;
  const rows = members.map((there) => {
    const middle = (/** @type {number} */ node) => {
      const known = before[node].filter((from) => places[from]);
      return known.length ? known.reduce((sum, from) => sum + places[from].x + places[from].w / 2, 0) / known.length : inner / 2;
    };
    const order = there.map((node) => ({ node, at: middle(node) })).sort((a, b) => a.at - b.at || a.node - b.node);
    const width = order.length > 1 ? w : alone;
    const left = (inner - order.length * width - (order.length - 1) * space) / 2;
    let tall = 0;
    order.forEach(({ node }, place) => {
      const { kind } = nodes[node];
      const high = kind === "join" ? JOIN : kind === "input" || kind === "output" ? ENDS : NODE;
      const h = Math.max(2, high * scale);
      const x = left + place * (width + space);
      places[node] = kind === "join" ? { x: x + width / 2 - h / 2, y, w: h, h } : { x, y, w: width, h };
      tall = Math.max(tall, h);
    });
    const one = { y, h: tall, nodes: order.map(({ node }) => node) };
    y += tall + gap + (one.nodes.some((node) => nodes[node].loose) ? 14 * Math.min(1, scale) : 0);
    return one;
  });
  const { near, far, lanes } = ways(nodes, edges, row, members.length);
  return { places, rows, near, far, lanes, row, gap, single, width: inner + (lanes ? 16 + lanes * LANE : 0), height: Math.max(0, y - gap) };
}

/** Each node below all that lead to it, a few beside each other; what hangs on nothing that came
 * in stands just above what reads it.
 * @param {Drawn["nodes"]} nodes @param {Drawn["edges"]} edges */
function layers(nodes, edges) {
  const row = new Int32Array(nodes.length);
  const rooted = nodes.map((node) => node.kind === "input");
  /** @type {number[][]} */
  const before = nodes.map(() => []);
  /** @type {number[][]} */
  const after = nodes.map(() => []);
  for (const { from, to } of edges) {
    before[to].push(from);
    after[from].push(to);
  }
  /** @type {number[]} */
  const filled = [];
  let last = 0;
  nodes.forEach((node, at) => {
    let place = node.kind === "failed" ? last + 1 : 0;
    for (const from of before[at]) {
      place = Math.max(place, row[from] + 1);
      if (rooted[from]) rooted[at] = true;
    }
    while ((filled[place] ?? 0) >= ACROSS) place++;
    filled[place] = (filled[place] ?? 0) + 1;
    row[at] = place;
    last = Math.max(last, place);
  });
  for (let at = nodes.length - 1; at >= 0; at--) {
    if (rooted[at] || !after[at].length) continue;
    const lowest = after[at].reduce((least, to) => Math.min(least, row[to]), Infinity) - 1;
    for (let place = lowest; place > row[at]; place--) {
      if ((filled[place] ?? 0) >= ACROSS) continue;
      filled[row[at]]--;
      filled[place] = (filled[place] ?? 0) + 1;
      row[at] = place;
    }
  }
  const used = [...new Set(row)].sort((a, b) => a - b);
  const packed = new Map(used.map((place, at) => [place, at]));
  return row.map((place) => /** @type {number} */ (packed.get(place)));
}

/** @param {Drawn["nodes"]} nodes @param {Drawn["edges"]} edges @param {Int32Array} row @param {number} count */
function ways(nodes, edges, row, count) {
  /** @type {Layout["near"]} */
  const near = Array.from({ length: count }, () => []);
  /** @type {Far[]} */
  const far = [];
  for (const edge of edges) {
    if (row[edge.to] === row[edge.from] + 1) near[row[edge.from]].push(edge);
    else far.push({ ...edge, lane: 0, res: nodes[edge.to].kind === "join" });
  }
  // A value that is read far away more than once has one lane. Short ways lie inside.
  /** @type {Map<string, Far[]>} */
  const groups = new Map();
  for (const one of far) {
    const key = `${one.from}:${one.serial}`;
    const there = groups.get(key);
    if (there) there.push(one);
    else groups.set(key, [one]);
  }
  const spans = [...groups.values()].map((group) => ({
    group, top: row[group[0].from], end: group.reduce((most, one) => Math.max(most, row[one.to]), 0),
  })).sort((a, b) => a.top - b.top || a.end - b.end);
  /** @type {number[]} */
  const until = [];
  for (const { group, top, end } of spans) {
    let lane = until.findIndex((stop) => stop < top);
    if (lane < 0) lane = until.length < LANES ? until.length : LANES - 1;
    until[lane] = Math.max(until[lane] ?? 0, end);
    for (const one of group) one.lane = lane;
  }
  return { near, far, lanes: until.length };
}

/** Where a lane runs. @param {Layout} layout @param {number} lane */
export const laneX = (layout, lane) => layout.width - (layout.lanes - lane - 0.5) * LANE;

/** The rows that a stretch of the map shows: from the first up to the one behind the last.
 * @param {Layout} layout @param {number} top @param {number} bottom */
export function seen({ rows }, top, bottom) {
  const below = (/** @type {number} */ y) => {
    let low = 0, high = rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].y + rows[middle].h < y) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return [Math.max(0, below(top) - 1), Math.min(rows.length, below(bottom) + 1)];
}
