// useAnswer: what a question came to, for a component: on its way, refused, or there.
import { useLayoutEffect, useRef, useState } from "fwd/dom.js";
import { Refused, ask, halt, keyOf } from "fwd/source.js";

/** @typedef {{answer?: any, refusal?: Error & {kind?: string},
 *   progress?: import("fwd/source.js").Progress}} Reached */

/** Ask when the question changes; a component that goes, or asks something else, stops waiting.
 * `again` makes the server answer anew, `stop` ends the waiting.
 * @param {string | null} of null: nothing is asked @param {Record<string, unknown>} [given]
 * @returns {Reached & {again: () => void, stop: () => void}} */
export function useAnswer(of, given = {}) {
  const [reached, setReached] = useState(/** @type {Reached & {key: string}} */ ({ key: "" }));
  const [turn, setTurn] = useState({ key: "", count: 0 });
  const stops = useRef(/** @type {AbortController | null} */ (null));
  const key = of === null ? "" : keyOf({ of, arguments: given });
  const again = turn.key === key && turn.count > 0;
  const tell = (/** @type {Reached} */ what) => setReached({ ...what, key });
  useLayoutEffect(() => { // who sees that it is asked may stop it
    if (of === null) return;
    const waits = new AbortController();
    stops.current = waits;
    const told = (/** @type {Reached} */ what) => { if (!waits.signal.aborted) tell(what); };
    if (again) tell({});
    ask(of, given, { again, signal: waits.signal, progress: (progress) => told({ progress }) })
      .then((answer) => told({ answer }), (refusal) => told({ refusal }));
    return () => waits.abort();
  }, [key, turn]);
  const now = reached.key === key ? reached : {};
  return {
    ...now,
    again: () => setTurn({ key, count: again ? turn.count + 1 : 1 }),
    stop: () => {
      stops.current?.abort();
      if (of !== null) halt(of, given);
      tell({ refusal: new Refused("Stopped", "You stopped it before it was there.") });
    },
  };
}
