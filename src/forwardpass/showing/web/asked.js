// useAnswer: what a question came to, for a component: loading, refused, or there.
import { useEffect, useState } from "fwd/dom.js";
import { ask, keyOf } from "fwd/source.js";

/** @typedef {{answer?: any, refusal?: Error, progress?: import("fwd/source.js").Progress}} Reached */

/** Ask when the question changes; a component that goes, or asks something else, stops waiting.
 * @param {string | null} of null: nothing is asked @param {Record<string, unknown>} [given]
 * @returns {Reached & {again: () => void}} */
export function useAnswer(of, given = {}) {
  const [reached, setReached] = useState(/** @type {Reached & {key: string}} */ ({ key: "" }));
  const [turn, setTurn] = useState(0);
  const key = of === null ? "" : keyOf({ of, arguments: given });
  useEffect(() => {
    if (of === null) return;
    const stops = new AbortController();
    const tell = (/** @type {Reached} */ what) => stops.signal.aborted || setReached({ ...what, key });
    ask(of, given, { again: turn > 0, progress: (progress) => tell({ progress }) })
      .then((answer) => tell({ answer }), (refusal) => tell({ refusal }));
    return () => stops.abort();
  }, [key, turn]);
  const now = reached.key === key ? reached : {};
  return { ...now, again: () => setTurn(turn + 1) };
}
