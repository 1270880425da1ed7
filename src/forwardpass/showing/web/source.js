// Where answers come from: the server while it lives, or what an exported page holds.
// A page is a function of its answers: each is asked for once, and kept under its question.
import { signal } from "@preact/signals";

/** @typedef {{of: string, arguments: Record<string, unknown>}} Question */
/** @typedef {{stage: string, done: number, total: number}} Progress */
/** @typedef {{head: any, numbers: Float32Array}} Tile */

/** "live", "saved" (exported, or no model), or "gone". */
export const connection = signal("live");

const held = /** @type {any} */ (globalThis).FORWARDPASS ?? null;
const token = new URLSearchParams(location.hash.slice(1)).get("t") ?? "";
/** @type {Map<string, Promise<any>>} */
const kept = new Map();

export const exported = held !== null;
if (exported) connection.value = "saved";

/** What a question is kept under: the same for the same question, whatever the order of its
 * arguments; those that are undefined are not there.
 * @param {Question} question */
export function keyOf({ of, arguments: given }) {
  const sorted = (/** @type {any} */ value) =>
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

/** An answer; of one that was asked for before, the same.
 * @param {string} of @param {Record<string, unknown>} [given]
 * @param {{signal?: AbortSignal, again?: boolean, progress?: (p: Progress) => void}} [options] */
export function ask(of, given = {}, options = {}) {
  return remembered({ of, arguments: given }, options, answered);
}

/** A tile of numbers.
 * @param {string} of @param {Record<string, unknown>} [given] @returns {Promise<Tile>} */
export function tile(of, given = {}) {
  return remembered({ of, arguments: given }, {}, tiled);
}

/** @param {Question} question @param {any} options
 * @param {(q: Question, key: string, options: any) => Promise<any>} make */
function remembered(question, options, make) {
  const key = keyOf(question);
  if (options.again) kept.delete(key);
  let found = kept.get(key);
  if (!found) {
    found = make(question, key, options);
    kept.set(key, found);
    found.catch(() => kept.delete(key)); // asked again, it may come
  }
  return found;
}

/** Why a copy has no answer. @param {string} key */
function notHeld(key) {
  const refusal = held.refusals[key];
  if (refusal) return new Refused(refusal.kind, refusal.error);
  return held.left.includes(key)
    ? new Refused("LeftOut", "Left out of this copy, which would be too large with it.")
    : new Refused("NotHeld", "This page is a copy, which runs nothing: it holds what its views open with.");
}

/** @param {Question} question @param {string} key @param {any} options */
async function answered(question, key, options) {
  if (exported) {
    if (!(key in held.answers)) throw notHeld(key);
    return held.answers[key];
  }
  const reply = await posted("/ask", question, options.signal);
  for await (const { event, data } of events(reply)) {
    if (event === "answer") return data;
    if (event === "refusal") throw new Refused(data.kind, data.error);
    options.progress?.(data);
  }
  connection.value = "gone";
  throw new Refused("ServerGone", "The server has gone.");
}

/** @param {Question} question @param {string} key */
async function tiled(question, key) {
  if (exported) {
    const there = held.tiles[key];
    if (!there) throw notHeld(key);
    const bytes = Uint8Array.from(atob(there.numbers), (c) => c.charCodeAt(0));
    return { head: there.head, numbers: new Float32Array(bytes.buffer) };
  }
  const reply = await posted("/tile", question);
  const head = JSON.parse(reply.headers.get("x-tile") ?? "null");
  if (!head) {
    const said = await reply.json();
    throw new Refused(said.kind, said.error);
  }
  return { head, numbers: new Float32Array(await reply.arrayBuffer()) };
}

/** @param {string} path @param {Question} question @param {AbortSignal} [signal] */
async function posted(path, question, signal) {
  let reply;
  try {
    reply = await fetch(path, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(question),
      signal,
    });
  } catch (error) {
    if (!signal?.aborted) connection.value = "gone";
    throw error;
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

/** Look every two seconds whether the server is there; the banner goes by `connection`. */
export function watch() {
  if (exported) return;
  setInterval(async () => {
    try {
      await fetch("/web/icon.svg", { method: "HEAD" });
      if (connection.value === "gone") connection.value = "live";
    } catch {
      connection.value = "gone";
    }
  }, 2000);
}
