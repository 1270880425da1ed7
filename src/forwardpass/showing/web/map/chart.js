// The map in its window: a canvas that draws what the window shows, and over it, in the same
// places, a tree of the same things for pointer, keyboard and screen reader.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "fwd/dom.js";
import { draw, palette } from "fwd/map/ink.js";
import { seen } from "fwd/map/layout.js";
import { darkNow } from "fwd/state.js";

/** @typedef {import("fwd/map/ink.js").Pane} Pane */
/** A line of the tree: a node of a pane.
 * @typedef {{id: string, pane: number, at: number, level: number, open: boolean | null, place: number, size: number}} Line */

const TALLEST = 1000;
const MOST_LINES = 300;

/** @param {{panes: Pane[], lines: Line[], spoken: (line: Line) => string, selected: string,
 *   lens: {from: [number, number, number, number], pane: number, said: string} | null, width: number, height: number,
 *   select: (id: string) => void, toggle: (line: Line, open: boolean) => void,
 *   leave: (line: Line) => (() => void) | undefined, beside?: (port: any) => any}} given
 * `leave`: how what a line stands in is closed; undefined where nothing around it was opened */
export function Chart({ panes, lines, spoken, selected, lens, width, height, select, toggle, leave, beside }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const wanted = useRef("");
  const [port, setPort] = useState({ left: 0, top: 0, width: 0, height: 0 });
  const dark = darkNow.value;
  useEffect(() => {
    const there = /** @type {HTMLElement} */ (box.current);
    let frame = 0;
    const look = () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => setPort({
        left: there.scrollLeft, top: there.scrollTop, width: there.clientWidth, height: there.clientHeight,
      }));
    };
    const watching = new ResizeObserver(look);
    watching.observe(there);
    there.addEventListener("scroll", look, { passive: true });
    return () => {
      cancelAnimationFrame(frame);
      watching.disconnect();
      there.removeEventListener("scroll", look);
    };
  }, []);
  useLayoutEffect(() => {
    const there = canvas.current, ink = there?.getContext("2d");
    if (!there || !ink || !port.width) return;
    const ratio = devicePixelRatio || 1;
    const [wide, high] = [Math.round(port.width * ratio), Math.round(port.height * ratio)];
    if (there.width !== wide || there.height !== high) [there.width, there.height] = [wide, high];
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw(ink, panes, port, palette(), lens);
  }, [panes, port, lens, dark]);
  const index = useMemo(() => new Map(lines.map((line, at) => [line.id, at])), [lines]);
  const placeOf = (/** @type {Line} */ line) => {
    const { layout, dx, dy } = panes[line.pane], { x, y, w, h } = layout.places[line.at];
    return { x: x + dx, y: y + dy, w, h };
  };
  const shown = visible(panes, lines, index, port, selected);
  const lineNow = () => /** @type {HTMLElement | null} */ (box.current?.querySelector('[role=treeitem][tabindex="0"]'));
  const within = box.current?.contains(document.activeElement);
  useLayoutEffect(() => { // a line that was opened is gone, and with it the focus
    if (within && !box.current?.contains(document.activeElement)) lineNow()?.focus({ preventScroll: true });
  });
  useEffect(() => { // a line that was walked to has the focus when it is there
    if (wanted.current !== selected) return;
    const there = lineNow();
    if (there && there.dataset.id === selected) {
      wanted.current = "";
      there.focus({ preventScroll: true });
    }
  });
  const walk = (/** @type {number} */ to) => {
    const line = lines[Math.max(0, Math.min(lines.length - 1, to))];
    const { x, y, w, h } = placeOf(line), there = /** @type {HTMLElement} */ (box.current);
    if (y < there.scrollTop + 8) there.scrollTop = y - 48;
    if (y + h > there.scrollTop + there.clientHeight - 8) there.scrollTop = y + h + 48 - there.clientHeight;
    if (x < there.scrollLeft || x + w > there.scrollLeft + there.clientWidth) there.scrollLeft = x - 16;
    wanted.current = line.id;
    select(line.id);
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const at = index.get(selected) ?? 0, line = lines[at];
    const page = Math.max(1, Math.floor(port.height / 80));
    const above = line.level > 1 ? lines.findLastIndex((one, i) => i < at && one.level < line.level) : -1;
    const out = line.open ? () => toggle(line, false) : leave(line) ?? (above < 0 ? undefined : () => walk(above));
    /** @type {Record<string, (() => void) | undefined>} */
    const does = {
      ArrowDown: () => walk(at + 1), ArrowUp: () => walk(at - 1), Home: () => walk(0), End: () => walk(lines.length - 1),
      PageDown: () => walk(at + page), PageUp: () => walk(at - page),
      ArrowRight: () => (line.open === false ? toggle(line, true) : line.open ? walk(at + 1) : undefined),
      ArrowLeft: () => out?.(),
      Escape: out, // where there is nothing to go out of, it cancels
      Enter: () => (line.open === null ? undefined : toggle(line, !line.open)),
    };
    const act = does[event.key];
    if (!act) return;
    act();
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="window scroll" ref=${box} style=${{ height: `${Math.min(height, TALLEST)}px` }}>
    <div class="sheet" style=${{ width: `${width}px`, height: `${height}px` }}>
      <canvas ref=${canvas} aria-hidden="true" style=${{ width: `${port.width}px`, height: `${port.height}px` }}></canvas>
      <div role="tree" aria-label="what happens, in order" onKeyDown=${keys}>${shown.map((line) => {
        const { x, y, w, h } = placeOf(line), on = line.id === selected;
        return html`<div key=${line.id} role="treeitem" data-id=${line.id} aria-label=${spoken(line)} aria-selected=${on}
          aria-level=${line.level} aria-posinset=${line.place} aria-setsize=${line.size}
          aria-expanded=${line.open === null ? undefined : line.open} tabindex=${on ? 0 : -1}
          style=${{ left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${Math.max(4, h)}px` }}
          onClick=${() => { wanted.current = line.id; select(line.id); }}
          onDblClick=${() => line.open !== null && toggle(line, !line.open)}></div>`;
      })}</div>
      ${beside?.(port)}
    </div></div>`;
}

/** The lines whose nodes the window shows, and the selected one.
 * @param {Pane[]} panes @param {Line[]} lines @param {Map<string, number>} index @param {any} port @param {string} selected */
function visible(panes, lines, index, port, selected) {
  const found = new Set();
  panes.forEach(({ layout, map, dy }, pane) => {
    const [first, stop] = seen(layout, port.top - dy, port.top + port.height - dy);
    for (let row = first; row < stop && found.size < MOST_LINES; row++) {
      for (const at of layout.rows[row].nodes) found.add(index.get(lineId(pane, map.nodes[at].id)));
    }
  });
  found.add(index.get(selected));
  found.delete(undefined);
  return [...found].sort((a, b) => a - b).map((at) => lines[at]);
}

/** A node stands in one pane or in both. @param {number} pane @param {string} id */
export const lineId = (pane, id) => (pane ? `in:${id}` : id);
