// The map on a canvas: what the window shows of it, and nothing else.
import { laneX, seen } from "fwd/map/layout.js";

/** What is written on a node.
 * @typedef {{title: string, type: string, out: string, sub: string, share: number, selected: boolean, faulty: string}} Label */
/** A map at a place: `told` writes on its nodes, `turns` says which outputs go on an edge.
 * @typedef {{map: import("fwd/map/nodes.js").Drawn, layout: import("fwd/map/layout.js").Layout, dx: number, dy: number,
 *   told: (at: number) => Label, turns: boolean[]}} Pane */
/** @typedef {{left: number, top: number, width: number, height: number}} Port */

const NAMES = ["paper", "wash", "line", "line-2", "ink", "ink-2", "ink-3", "accent", "accent-wash", "mag", "neg", "neg-text", "warn-text"];

/** The theme's own colours and fonts. */
export function palette() {
  const style = getComputedStyle(document.documentElement);
  const found = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  return { ...found, text: style.getPropertyValue("--text"), mono: style.getPropertyValue("--mono") };
}

/** @param {CanvasRenderingContext2D} ink @param {Pane[]} panes @param {Port} port @param {any} look
 * @param {{from: [number, number, number, number], pane: number, said: string} | null} lens */
export function draw(ink, panes, port, look, lens) {
  ink.clearRect(0, 0, port.width, port.height);
  ink.save();
  ink.translate(-port.left, -port.top);
  if (lens) {
    wedge(ink, panes[lens.pane], lens.from, look);
    const { dx, dy, layout } = panes[lens.pane];
    written(ink, lens.said, dx, dy - 20, "left", `600 12px ${look.text}`, look.ink, layout.width);
  }
  for (const pane of panes) {
    ink.save();
    ink.translate(pane.dx, pane.dy);
    const top = port.top - pane.dy, bottom = top + port.height;
    const [first, stop] = seen(pane.layout, top, bottom);
    for (let row = Math.max(0, first - 1); row < stop; row++) for (const edge of pane.layout.near[row]) near(ink, pane, edge, look);
    for (const way of pane.layout.far) {
      const { places } = pane.layout;
      if (places[way.from].y <= bottom && places[way.to].y + places[way.to].h >= top) far(ink, pane, way, look);
    }
    for (let row = first; row < stop; row++) for (const at of pane.layout.rows[row].nodes) node(ink, pane, at, look);
    ink.restore();
  }
  ink.restore();
}

/** @param {CanvasRenderingContext2D} ink @param {Pane} pane @param {[number, number, number, number]} from @param {any} look */
function wedge(ink, { layout, dx, dy }, [x, y, , h], look) {
  const left = dx - 32, top = dy - 48, right = dx + layout.width + 24, bottom = dy + layout.height + 20;
  ink.fillStyle = look.wash;
  ink.beginPath();
  ink.moveTo(x, y);
  ink.lineTo(left, top);
  ink.lineTo(right, top);
  ink.lineTo(right, bottom);
  ink.lineTo(left, bottom);
  ink.lineTo(x, y + h);
  ink.fill();
}

/** @param {CanvasRenderingContext2D} ink @param {any} look @param {boolean} strong @param {boolean} dead */
function pen(ink, look, strong, dead) {
  ink.strokeStyle = strong ? look.ink : look["line-2"];
  ink.fillStyle = ink.strokeStyle;
  ink.lineWidth = strong ? 2 : 1.25;
  ink.setLineDash(dead ? [4, 4] : []);
}

/** @param {CanvasRenderingContext2D} ink @param {number} x @param {number} y @param {number} dx @param {number} dy */
function tip(ink, x, y, dx, dy) {
  ink.setLineDash([]);
  ink.beginPath();
  ink.moveTo(x, y);
  ink.lineTo(x - 7 * dx - 3.5 * dy, y - 7 * dy - 3.5 * dx);
  ink.lineTo(x - 7 * dx + 3.5 * dy, y - 7 * dy + 3.5 * dx);
  ink.fill();
}

/** @param {CanvasRenderingContext2D} ink @param {Pane} pane @param {{from: number, to: number}} edge @param {any} look */
function near(ink, { map, layout, told, turns }, { from, to }, look) {
  const { places, rows, row } = layout, a = places[from], b = places[to];
  const x = a.x + a.w / 2, end = b.x + b.w / 2, start = a.y + a.h;
  const bend = rows[row[from]].y + rows[row[from]].h + layout.gap / 2;
  pen(ink, look, false, map.nodes[to].dead);
  ink.beginPath();
  ink.moveTo(x, start);
  if (Math.abs(x - end) > 1) {
    ink.lineTo(x, bend);
    ink.lineTo(end, bend);
  }
  ink.lineTo(end, b.y - 1);
  ink.stroke();
  if (layout.gap >= 10) tip(ink, end, b.y - 1, 0, 1);
  if (layout.gap < 20 || !turns[from]) return;
  ink.font = `12px ${look.mono}`;
  ink.textAlign = "left";
  ink.fillStyle = look["ink-3"];
  ink.fillText(told(from).out, x + 10, start + layout.gap / 2 + (Math.abs(x - end) > 1 ? -1 : 4));
}

/** A way in its lane, from below the node that made it to the node that reads it.
 * @param {CanvasRenderingContext2D} ink @param {Pane} pane @param {import("fwd/map/layout.js").Far} way @param {any} look */
function far(ink, { map, layout }, way, look) {
  const { places, rows, row, gap } = layout, a = places[way.from], b = places[way.to];
  const lane = laneX(layout, way.lane), x = a.x + a.w / 2;
  const out = rows[row[way.from]].y + rows[row[way.from]].h + gap / 3;
  pen(ink, look, way.res, map.nodes[way.to].dead);
  const r = Math.min(10, gap / 2);
  ink.beginPath();
  ink.moveTo(x, a.y + a.h);
  ink.lineTo(x, out);
  const into = way.res ? b.y + b.h / 2 : b.y - gap / 3;
  ink.arcTo(lane, out, lane, into, r);
  ink.arcTo(lane, into, b.x, into, r);
  if (way.res) ink.lineTo(b.x + b.w + 2, into);
  else {
    ink.lineTo(b.x + b.w / 2, into);
    ink.lineTo(b.x + b.w / 2, b.y - 1);
  }
  ink.stroke();
  if (gap < 10) return;
  if (way.res) tip(ink, b.x + b.w + 1, into, -1, 0);
  else tip(ink, b.x + b.w / 2, b.y - 1, 0, 1);
}

/** @param {CanvasRenderingContext2D} ink @param {Pane} pane @param {number} at @param {any} look */
function node(ink, { map, layout, told }, at, look) {
  const one = map.nodes[at], { x, y, w, h } = layout.places[at];
  const label = told(at);
  ink.setLineDash([]);
  if (one.kind === "input" || one.kind === "output") {
    if (h < 11) return;
    ink.fillStyle = look.ink;
    ink.font = `600 13px ${look.mono}`;
    const right = written(ink, label.out, x + w, y + h - 8, "right", `12px ${look.mono}`, look.ink, w / 2);
    written(ink, label.title, x, y + h - 8, "left", `600 13px ${look.mono}`, look.ink, w - right - 12);
    return;
  }
  if (one.kind === "join") {
    plus(ink, x, y, h, label.selected, look);
    return;
  }
  if (h < 8) {
    ink.fillStyle = label.selected ? look.accent : look.line;
    ink.fillRect(x, y, w, Math.max(1, h));
    ink.fillStyle = look.mag;
    ink.fillRect(x, y, w * label.share, Math.max(1, h));
    return;
  }
  const edge = label.faulty ? look.neg : label.selected ? look.accent : look["line-2"];
  const box = (/** @type {number} */ shift, /** @type {boolean} */ filled) => {
    ink.beginPath();
    ink.roundRect(x + shift, y - shift, w, h, 4);
    ink.fillStyle = filled ? look["accent-wash"] : look.paper;
    ink.fill();
    ink.strokeStyle = edge;
    ink.lineWidth = label.faulty || label.selected ? 2 : 1;
    ink.setLineDash(one.still ? [3, 3] : []);
    ink.stroke();
    ink.setLineDash([]);
  };
  if (one.kind === "stack" && h > 20) {
    box(8, false);
    box(4, false);
  }
  box(0, label.selected);
  const small = h < 40, base = small ? y + Math.min(17, h / 2 + 5) : y + 17;
  if (h >= 11) {
    const room = w - 24;
    const right = small && w < 200 ? 0 : written(ink, label.out, x + w - 12, base, "right", `12px ${look.mono}`, look.ink, room * 0.6);
    const left = room - right - 8;
    const used = label.type ? written(ink, label.title, x + 12, base, "left", `13px ${look.mono}`, look["ink-3"], left) : 0;
    const rest = left - used - (used ? 8 : 0);
    if (!label.type || rest > 24) written(ink, label.type || label.title, x + 12 + used + (used ? 8 : 0), base, "left", `600 14px ${look.text}`, look.ink, rest);
    if (!small) {
      const part = one.kind !== "failed" && label.share > 0.001 ? `${share(label.share)} of macs` : "";
      const taken = part ? written(ink, part, x + w - 12, y + 32, "right", `12px ${look.mono}`, look["ink-3"], room) : 0;
      const colour = label.faulty ? look["neg-text"] : look["ink-3"];
      if (room - taken > 80) written(ink, label.faulty || label.sub, x + 12, y + 32, "left", `12px ${look.mono}`, colour, room - taken - 8);
    }
  }
  if (one.kind !== "failed" && !one.still) {
    ink.fillStyle = look.line;
    ink.fillRect(x + 12, y + h - 4, w - 24, 1);
    ink.fillStyle = look.mag;
    ink.fillRect(x + 12, y + h - Math.min(6, h / 2), (w - 24) * label.share, Math.min(4, h / 3));
  }
  if (one.loose && h >= 24) {
    written(ink, "no output depends on it", x + w / 2, y + h + 18, "center", `12px ${look.text}`, look["ink-3"], w);
    pen(ink, look, false, true);
    ink.beginPath();
    ink.moveTo(x + w / 2, y + h);
    ink.lineTo(x + w / 2, y + h + 5);
    ink.moveTo(x + w / 2 - 8, y + h + 5);
    ink.lineTo(x + w / 2 + 8, y + h + 5);
    ink.stroke();
  }
}

/** @param {number} part */
const share = (part) => `${(part * 100).toFixed(part < 0.1 || part > 0.995 ? 1 : 0)}\u2009%`;

/** Two ways that are added. @param {CanvasRenderingContext2D} ink @param {number} x @param {number} y
 * @param {number} h @param {boolean} selected @param {any} look */
function plus(ink, x, y, h, selected, look) {
  const middle = x + h / 2, centre = y + h / 2, r = h / 2 - 1;
  ink.beginPath();
  ink.arc(middle, centre, Math.max(1, r), 0, 7);
  ink.fillStyle = selected ? look["accent-wash"] : look.paper;
  ink.fill();
  ink.strokeStyle = selected ? look.accent : look.ink;
  ink.lineWidth = h < 12 ? 1 : 2;
  ink.stroke();
  ink.beginPath();
  ink.moveTo(middle - r / 2, centre);
  ink.lineTo(middle + r / 2, centre);
  ink.moveTo(middle, centre - r / 2);
  ink.lineTo(middle, centre + r / 2);
  ink.stroke();
}

/** Write what fits; returns how wide it is. @param {CanvasRenderingContext2D} ink @param {string} text
 * @param {number} x @param {number} y @param {CanvasTextAlign} align @param {string} font @param {string} colour @param {number} room */
function written(ink, text, x, y, align, font, colour, room) {
  if (!text || room < 8) return 0;
  ink.font = font;
  ink.textAlign = align;
  ink.fillStyle = colour;
  let shown = text, wide = ink.measureText(text).width;
  if (wide > room) {
    const fits = Math.max(1, Math.floor((text.length * room) / wide) - 1);
    shown = `${text.slice(0, fits)}\u2026`;
    wide = ink.measureText(shown).width;
  }
  ink.fillText(shown, x, y);
  return wide;
}
