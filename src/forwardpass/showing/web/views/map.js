// Map: what happens, in what order?
import { html, useEffect, useMemo, useState } from "fwd/dom.js";
import { useAnswer } from "fwd/asked.js";
import { Frame, Waiting } from "fwd/frame.js";
import { Chart, lineId } from "fwd/map/chart.js";
import { Failed, headline, subline } from "fwd/map/failed.js";
import { laid } from "fwd/map/layout.js";
import { arriving, drawn, holding, turning } from "fwd/map/nodes.js";
import { Pass } from "fwd/map/pass.js";
import { Selected } from "fwd/map/rail.js";
import { Strip } from "fwd/map/strips.js";
import { Words } from "fwd/map/words.js";
import { told } from "fwd/prediction.js";
import { call, row } from "fwd/state.js";
import { grouped, percent, shape } from "fwd/numbers.js";

const SCALES = [0.1, 0.18, 0.35, 0.5, 0.7, 1];
const NO_MARKS = { dead: [], still: [], failure: null, unknown: "" };
const STRIPS = 560;
const MOST_BESIDE = 20;

/** @param {{view: any}} given */
export function View({ view }) {
  const graph = useAnswer("structure.graph", { row: row.value });
  const asked = useAnswer("map.predictions", { row: row.value });
  const marked = useAnswer("map.marks", { row: row.value });
  if (!graph.answer) return html`<${Frame} view=${view}><${Waiting} reached=${graph} /><//>`;
  // Before it is known what is asked, any shape may be the answer.
  if (!asked.answer && !asked.refusal) return html`<${Frame} view=${view}><${Waiting} reached=${asked} /><//>`;
  return html`<${Whole} key=${row.value} view=${view} graph=${graph.answer} asked=${asked.answer} marks=${marked.answer ?? NO_MARKS} />`;
}

/** @param {{view: any, graph: any, asked: any, marks: any}} given */
function Whole({ view, graph, asked, marks }) {
  const { answer: health } = useAnswer("map.faults", { row: row.value });
  const [zoom, setZoom] = useState(/** @type {"modules" | "operators"} */ ("modules"));
  const [opened, setOpened] = useState(/** @type {Map<string, boolean>} */ (new Map()));
  const [unfolded, setUnfolded] = useState(/** @type {boolean | Set<string>} */ (false));
  const [lens, setLens] = useState(/** @type {string | null | undefined} */ (undefined));
  // Of a stack in the wedge, the one of its copies that was opened.
  const [deep, setDeep] = useState(/** @type {import("fwd/map/pass.js").Part[] | null} */ (null));
  const [scale, setScale] = useState(SCALES.length - 1);
  const [chosen, setChosen] = useState("");
  const pass = useMemo(() => new Pass(graph), [graph]);
  const sets = useMemo(() => ({ dead: new Set(marks.dead), still: new Set(marks.still), failure: marks.failure }), [marks]);
  const open = asked?.predictions.find((/** @type {any} */ one) => !told("map", one.id));
  const hidden = open ? shape(graph.values.shape[open.arguments.value]) : null;

  const whole = useMemo(() => drawn(pass, sets, { zoom, opened, unfolded }), [pass, sets, zoom, opened, unfolded]);
  const stack = useMemo(() => lensOf(whole, lens), [whole, lens]);
  const member = useMemo(() => (stack < 0 ? null : pass.scope(deep ?? whole.nodes[stack].copies[0])), [pass, whole, stack, deep]);
  const one = useMemo(() => (member && drawn(pass, sets, { zoom, opened, unfolded }, member)),
    [whole, member, pass, sets, zoom, opened, unfolded]);
  const given = { hidden, marks, health };
  const words = useMemo(() => new Words(pass, { ...given, from: 0, until: pass.count }), [pass, hidden, marks, health]);
  const inner = useMemo(() => (member ? new Words(pass, { ...given, from: member.first, until: member.stop }) : words), [member, words]);

  const lines = useMemo(() => tree(whole, one, stack, opened), [whole, one, stack, opened]);
  const into = useMemo(() => [arriving(whole), one ? arriving(one) : []], [whole, one]);
  const line = picked(lines, whole, one, chosen || (marks.failure ? "failed" : ""));
  const layouts = useMemo(() => {
    const narrow = one ? { wide: 240, narrow: 176 } : { wide: Math.max(160, Math.min(336, innerWidth - 48)) };
    return [laid(whole, { scale: SCALES[scale], ...narrow }), one && laid(one, { scale: SCALES[scale], wide: 456, narrow: 156 })];
  }, [whole, one, scale]);
  const stage = useMemo(() => staged(whole, one, stack, layouts, words, inner, line?.id ?? "", pass, member?.path ?? ""), [layouts, words, inner, line?.id]);
  useEffect(() => {
    setLens(undefined);
    setDeep(null);
  }, [zoom, unfolded]);
  if (!line) return html`<${Frame} view=${view} said="This pass called no operator."><p>There is nothing to draw.</p><//>`;

  const map = line.pane ? /** @type {any} */ (one) : whole, node = map.nodes[line.at];
  const before = (/** @type {import("fwd/map/chart.js").Line} */ of) => into[of.pane][of.at];
  const select = (/** @type {string} */ id) => {
    const there = lines.find((l) => l.id === id);
    if (!there) return;
    const to = (there.pane ? /** @type {any} */ (one) : whole).nodes[there.at];
    setChosen(id);
    if (to.first < to.stop) call.value = to.first;
  };
  const toggle = (/** @type {import("fwd/map/chart.js").Line} */ of, /** @type {boolean} */ wish) => {
    const to = (of.pane ? /** @type {any} */ (one) : whole).nodes[of.at];
    if (to.kind === "stack" && of.pane) setDeep(to.copies[0]);
    else if (to.kind === "stack") {
      setLens(wish ? to.id : null);
      setDeep(null);
    }
    else setOpened(new Map([...opened, [to.id, wish]]));
  };
  const leave = (/** @type {import("fwd/map/chart.js").Line} */ of) => {
    const id = zoom === "modules" && holding(pass, of.pane ? /** @type {any} */ (one) : whole, of.at, opened, of.pane ? member : null);
    return id ? () => {
      setOpened(new Map([...opened, [id, false]]));
      setChosen(lineId(of.pane, id));
    } : undefined;
  };
  const layout = layouts[0], beside = !one && layout?.single && SCALES[scale] === 1 && whole.nodes.length <= 60;
  const strips = beside ? (/** @type {any} */ port) => html`<div class="strips">
    <p class="small faint" style=${{ left: `${layout.width + 40}px`, top: "4px" }}>what each made of this row, every channel</p>
    ${whole.nodes.map((to, at) => {
      const { y, h } = layout.places[at];
      if (to.serial < 0 || to.kind === "output" || to.kind === "input" || y + h < port.top - 200 || y > port.top + port.height + 200) return null;
      return html`<div key=${to.id} style=${{ left: `${layout.width + 40}px`, top: `${y + 5}px` }}>${words.shape(to.serial) === "?"
        ? html`<span class="faint small">after your prediction</span>`
        : html`<${Strip} serial=${to.serial} title=${`${to.name} ${to.type}`} width=${STRIPS} />`}</div>`;
    })}</div>` : undefined;
  const width = stage.width + (beside ? 40 + STRIPS : 0);
  const rail = html`${marks.failure && html`<${Failed} failure=${marks.failure} />`}
    <${Selected} pass=${pass} node=${node} words=${line.pane ? inner : words} line=${line} toggle=${toggle}
      inputs=${before(line).map((/** @type {any} */ edge) => edge.serial)} hides=${words.shape(node.serial) === "?"}
      unfold=${line.pane ? null : (/** @type {string} */ id) => setUnfolded(new Set([...(unfolded instanceof Set ? unfolded : []), id]))} />`;
  const heading = marks.failure ? { ...view, question: headline(marks.failure) } : view;
  return html`<${Frame} view=${heading} said=${marks.failure ? subline(marks.failure) : sentence(pass, whole, health)} rail=${rail}>
    <div class="bar">
      <div class="seg" role="group" aria-label="zoom">${["modules", "operators"].map((/** @type {any} */ name) => html`
        <button aria-pressed=${zoom === name} onClick=${() => setZoom(name)}>${name}</button>`)}</div>
      <div class="seg" role="group" aria-label="repeats">${[["repeats folded", false], ["all drawn", true]].map(([name, all]) => html`
        <button aria-pressed=${(unfolded === true) === all} onClick=${() => setUnfolded(/** @type {boolean} */ (all))}>${name}</button>`)}</div>
      <div class="row" role="group" aria-label="size">
        <button class="icon" aria-label="smaller" disabled=${scale === 0} onClick=${() => setScale(scale - 1)}>\u2212</button>
        <button class="icon" aria-label="larger" disabled=${scale === SCALES.length - 1} onClick=${() => setScale(scale + 1)}>+</button></div>
      <span class="small faint key"><span><i class="mac"></i> share of the multiply-adds</span>
        <span><i class="still"></i> no arithmetic</span>
        ${layouts.some((there) => there?.far.some((way) => way.res)) && html`<span><i class="res"></i> the same numbers, added</span>`}</span>
    </div>
    ${marks.unknown && !marks.failure && html`<p class="small faint">Which calls no output depends on cannot be told: ${marks.unknown}</p>`}
    <${Chart} panes=${stage.panes} lens=${stage.lens} lines=${lines} selected=${line.id} width=${width} height=${stage.height}
      select=${select} toggle=${toggle} leave=${leave} beside=${strips}
      spoken=${(/** @type {import("fwd/map/chart.js").Line} */ of) => (of.pane ? inner : words).spoken(
        of.pane ? /** @type {any} */ (one) : whole, of.at, before(of).map((/** @type {any} */ edge) => edge.from))} />
  <//>`;
}

/** The stack that the wedge opens: the one that was asked for, else the largest.
 * @param {import("fwd/map/nodes.js").Drawn} map @param {string | null | undefined} lens */
function lensOf({ nodes }, lens) {
  if (lens === null) return -1;
  if (lens) return nodes.findIndex((node) => node.id === lens);
  let best = -1;
  if (nodes.length > MOST_BESIDE) return best; // what stands beside a large map is not seen
  nodes.forEach((node, at) => {
    if (node.kind === "stack" && node.chained && (best < 0 || node.stop - node.first > nodes[best].stop - nodes[best].first)) best = at;
  });
  return best;
}

/** The lines of the tree: the map in order, what a wedge shows below its stack.
 * @param {import("fwd/map/nodes.js").Drawn} whole @param {import("fwd/map/nodes.js").Drawn | null} one @param {number} stack @param {Map<string, boolean>} opened
 * @returns {import("fwd/map/chart.js").Line[]} */
function tree(whole, one, stack, opened) {
  const lines = (/** @type {import("fwd/map/nodes.js").Drawn} */ map, /** @type {number} */ pane) => map.nodes.map((node, at) => ({
    id: lineId(pane, node.id), pane, at, level: pane + 1, place: at + 1, size: map.nodes.length,
    open: node.kind === "stack" ? !pane && at === stack : node.kind === "run" || (node.kind === "module" && node.stop - node.first > 1)
      ? opened.get(node.id) ?? false : null,
  }));
  const outer = lines(whole, 0);
  return one ? [...outer.slice(0, stack + 1), ...lines(one, 1), ...outer.slice(stack + 1)] : outer;
}

/** The line that is selected: the one that was picked, if the call of the page is in it; else
 * where that call is.
 * @param {import("fwd/map/chart.js").Line[]} lines @param {any} whole @param {any} one @param {string} chosen */
function picked(lines, whole, one, chosen) {
  const at = call.value;
  const node = (/** @type {any} */ line) => (line.pane ? one : whole).nodes[line.at];
  const there = lines.find((line) => line.id === chosen);
  if (there && (node(there).first === node(there).stop || (node(there).first <= at && at < node(there).stop))) return there;
  const holds = (/** @type {any} */ line) => node(line).first <= at && at < node(line).stop;
  return lines.find((line) => line.pane && holds(line)) ?? lines.find(holds) ?? lines.find((line) => node(line).first < node(line).stop) ?? lines[0];
}

/** The panes beside each other, the wedge between them.
 * @param {any} whole @param {any} one @param {number} stack @param {any[]} layouts @param {Words} words @param {Words} inner
 * @param {string} selected @param {Pass} pass @param {string} path of what stands in the wedge */
function staged(whole, one, stack, layouts, words, inner, selected, pass, path) {
  const pane = (/** @type {any} */ map, /** @type {any} */ layout, /** @type {Words} */ by, /** @type {number} */ at, /** @type {number} */ dx, /** @type {number} */ dy) => ({
    map, layout, dx, dy, turns: turning(pass, map),
    told: (/** @type {number} */ i) => by.label(map.nodes[i], lineId(at, map.nodes[i].id) === selected),
  });
  const [first, second] = layouts, edge = 4;
  if (!one) return { panes: [pane(whole, first, words, 0, edge, edge)], lens: null, width: first.width + 2 * edge, height: first.height + 32 };
  const { x, y, w, h } = first.places[stack], dx = first.width + 76;
  const dy = Math.max(56, Math.min(y - 80, Math.max(56, first.height - second.height)));
  return {
    panes: [pane(whole, first, words, 0, edge, edge), pane(one, second, inner, 1, dx, dy)],
    lens: { pane: 1, said: `Inside one of them: ${path}`, from: /** @type {[number, number, number, number]} */ ([x + w + 8 + edge, y + edge, w, h]) },
    width: dx + second.width + 28, height: Math.max(first.height, dy + second.height + 20) + 32,
  };
}

/** @param {Pass} pass @param {import("fwd/map/nodes.js").Drawn} whole @param {any} health */
function sentence(pass, whole, health) {
  const { totals } = pass.graph;
  const stacks = whole.nodes.filter((node) => node.kind === "stack" && node.chained);
  const calls = totals.calls === 1 ? "One call in one pass" : `${grouped(totals.calls)} calls in one pass`;
  const macs = totals.macs ? `, ${grouped(totals.macs)} multiply-adds` : ", no multiply-adds";
  const largest = stacks.reduce((a, b) => (!a || b.stop - b.first > a.stop - a.first ? b : a), /** @type {any} */ (null));
  const part = largest && pass.macs[pass.count] ? (pass.macs[largest.stop] - pass.macs[largest.first]) / pass.macs[pass.count] : 0;
  const alike = largest ? ` ${grouped(largest.copies.length)} ${largest.module >= 0 ? "layers" : "stretches"} are alike, so they are drawn once${part > 0.005 ? `; ${percent(part, 1)} of the multiply-adds are in them` : ""}.` : "";
  const bad = health?.first ? ` The first ${health.first.kind} is made by call #${health.first.call}.` : "";
  return `${calls}${macs}.${alike}${bad}`;
}
