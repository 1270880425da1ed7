// Where answers come from: the server while it lives, or what an exported page holds.
// A page is a function of its answers: each is asked for once, and kept under its question.
import { signal } from "@preact/signals";

/** @typedef {{of: string, arguments: Record<string, unknown>}} Question */
/** @typedef {{stage: string, done: number, total: number, calls: number, expected: number}} Progress */
/** @typedef {{head: any, numbers: Float32Array}} Tile */
/** Who waits for an answer: told of its progress, and no more when its signal says so.
 * @typedef {{signal?: AbortSignal, again?: boolean, progress?: (p: Progress) => void}} Waits */
/** @typedef {{answer: Promise<any>, waiting: Set<Waits>, stops: AbortController, over: boolean,
 *   latest?: Progress}} Kept */

/** "live", "saved" (exported, or no model), or "gone". */
export const connection = signal("live");
/** Files of the model that are not as they were when its pass was recorded. */
export const changed = signal(/** @type {string[]} */ ([]));

const held = /** @type {any} */ (globalThis).FORWARDPASS ?? null;
const token = new URLSearchParams(location.hash.slice(1)).get("t") ?? "";
/** @type {Map<string, Kept>} */
const kept = new Map();
const LINGER_MS = 300;

export const exported = held !== null;
if (exported) connection.value = "saved";

/** What a question is kept under: the same for the same question, whatever the order of its
 * arguments; those that are undefined are not there.
 * @param {Question} question */
export function keyOf({ of, arguments: given }) {
  /** @type {(value: any) => any} */
  const sorted = (value) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.keys(value).sort().filter((k) => value[k] !== undefined)
          .map((k) => [k, sorted(value[k])]))
      : Array.isArray(value) ? value.map(sorted) : value;
  return JSON.stringify([of, sorted(given)]);
}

/** Why there is no answer. */
export class Refused extends Error {
  /** @param {string} kind @param {string} said */
  constructor(kind, said) {
    super(said);
    this.kind = kind;
  }
}

/** An answer; of one that was asked for before, the same. When nobody waits for it any more, the
 * server stops between two calls.
 * @param {string} of @param {Record<string, unknown>} [given] @param {Waits} [waits] */
export function ask(of, given = {}, waits = {}) {
  return remembered({ of, arguments: given }, waits, answered);
}

/** A tile of numbers.
 * @param {string} of @param {Record<string, unknown>} [given] @param {Waits} [waits]
 * @returns {Promise<Tile>} */
export function tile(of, given = {}, waits = {}) {
  return remembered({ of, arguments: given }, waits, tiled);
}

/** @param {Question} question @param {Waits} waits
 * @param {(q: Question & {again?: boolean}, key: string, one: Kept) => Promise<any>} make */
function remembered(question, waits, make) {
  const key = keyOf(question);
  let one = waits.again ? undefined : kept.get(key);
  if (!one) {
    const begun = /** @type {Kept} */ ({ waiting: new Set(), stops: new AbortController(), over: false });
    const asked = waits.again ? { ...question, again: true } : question;
    begun.answer = make(asked, key, begun).finally(() => { begun.over = true; });
    begun.answer.catch(() => forget(key, begun)); // asked again, it may come
    kept.set(key, begun);
    one = begun;
  }
  joined(key, one, waits);
  return one.answer;
}

/** Nobody shall wait for it any more. @param {string} of @param {Record<string, unknown>} given */
export function halt(of, given) {
  const one = kept.get(keyOf({ of, arguments: given }));
  if (one && !one.over) one.stops.abort();
}

/** @param {string} key @param {Kept} one */
const forget = (key, one) => { if (kept.get(key) === one) kept.delete(key); };

/** @param {string} key @param {Kept} one @param {Waits} waits */
function joined(key, one, waits) {
  one.waiting.add(waits);
  if (one.latest && !one.over) waits.progress?.(one.latest);
  waits.signal?.addEventListener("abort", () => {
    one.waiting.delete(waits);
    // Another view may ask for the same at once.
    setTimeout(() => {
      if (one.waiting.size || one.over) return;
      forget(key, one);
      one.stops.abort();
    }, LINGER_MS);
  });
}

const BEARER = { authorization: `Bearer ${token}` };
const GONE = new Refused("ServerGone", "The server is gone: this cannot be run now.");

/** Why a copy has no answer. @param {string} key */
function notHeld(key) {
  const refusal = held.refusals[key];
  if (refusal) return new Refused(refusal.kind, refusal.error);
  return held.left.includes(key)
    ? new Refused("LeftOut", "Left out of this copy, which would be too large with it.")
    : new Refused("NotHeld", "This page is a copy, which runs nothing: it holds what its views open with.");
}

/** @param {Question} question @param {string} key @param {Kept} one */
async function answered(question, key, one) {
  if (exported) {
    if (!(key in held.answers)) throw notHeld(key);
    return held.answers[key];
  }
  const reply = await posted("/ask", question, one.stops.signal);
  for await (const { event, data } of events(reply)) {
    if (event === "answer") return data;
    if (event === "refusal") throw new Refused(data.kind, data.error);
    one.latest = data;
    for (const waits of one.waiting) waits.progress?.(data);
  }
  if (one.stops.signal.aborted) throw new Refused("Stopped", "It was stopped.");
  connection.value = "gone";
  throw GONE;
}

/** @param {Question} question @param {string} key @param {Kept} one */
async function tiled(question, key, one) {
  if (exported) {
    const there = held.tiles[key];
    if (!there) throw notHeld(key);
    const bytes = Uint8Array.from(atob(there.numbers), (c) => c.charCodeAt(0));
    return { head: there.head, numbers: new Float32Array(bytes.buffer) };
  }
  const reply = await posted("/tile", question, one.stops.signal);
  const head = JSON.parse(reply.headers.get("x-tile") ?? "null");
  if (!head) {
    const said = await reply.json();
    throw new Refused(said.kind, said.error);
  }
  return { head, numbers: new Float32Array(await reply.arrayBuffer()) };
}

/** @param {string} path @param {Question} question @param {AbortSignal} signal */
async function posted(path, question, signal) {
  let reply;
  try {
    reply = await fetch(path, {
      method: "POST",
      headers: { ...BEARER, "content-type": "application/json" },
      body: JSON.stringify(question),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw new Refused("Stopped", "It was stopped.");
    connection.value = "gone";
    throw GONE;
  }
  connection.value = "live";
  if (!reply.ok) {
    const said = await reply.json().catch(() => ({ error: `status ${reply.status}` }));
    throw new Refused("Refused", said.error);
  }
  return reply;
}

/** Server-sent events of a reply to a POST, which EventSource cannot make.
 * @param {Response} reply */
async function* events(reply) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (reply.body).getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch {
      return; // the connection broke off: the caller says so
    }
    if (part.done) return;
    text += decoder.decode(part.value, { stream: true });
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const [first, second] = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      yield { event: first.slice(7), data: JSON.parse(second.slice(6)) };
    }
  }
}

/** Look whether the server is there, and whether the model's files have changed. */
export async function look() {
  try {
    const reply = await fetch("/fresh", { headers: BEARER });
    if (!reply.ok) throw GONE; // another server has its port
    changed.value = (await reply.json()).changed;
    connection.value = "live";
  } catch {
    connection.value = "gone";
  }
}

/** Look every two seconds; the banner goes by `connection`. */
export function watch() {
  if (exported) return;
  const every = setInterval(look, 2000);
  return () => clearInterval(every);
}
