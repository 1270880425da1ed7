// Repeats: stretches of parts of one structure that follow each other, drawn as one.

/** @typedef {import("fwd/map/pass.js").Pass} Pass */
/** @typedef {import("fwd/map/pass.js").Part} Part */
/** A part, or copies of a stretch of parts: `chained` if each reads what the one before it made.
 * @typedef {{part: Part, copies: Part[][], chained: boolean}} Folded */

const LONGEST = 16; // parts of a stretch that is looked for

/** Parts, the repeats among them together. @param {Pass} pass @param {Part[]} parts
 * @param {(id: string) => boolean} unfolded repeats that are to stay apart @returns {Folded[]} */
export function folded(pass, parts, unfolded) {
  const signs = parts.map((part) => pass.sign(part));
  /** @type {Folded[]} */
  const found = [];
  for (let at = 0; at < parts.length;) {
    const repeat = repeated(pass, parts, signs, at);
    const size = repeat ? repeat.copies.length * repeat.copies[0].length : 1;
    if (repeat && !unfolded(idOf(pass, repeat.copies))) found.push(repeat);
    else for (const part of parts.slice(at, at + size)) found.push({ part, copies: [], chained: true });
    at += size;
  }
  return found;
}

/** What a stack of copies is called by. @param {Pass} pass @param {Part[][]} copies */
export function idOf(pass, copies) {
  const { first, stop } = pass.range(copies[0]);
  return `s${first}-${stop - first}`;
}

/** The repeat that begins at a part and covers most; of two that cover as much, that of the shorter
 * stretch. Side by side stand single modules alone.
 * @param {Pass} pass @param {Part[]} parts @param {string[]} signs @param {number} at @returns {Folded | null} */
function repeated(pass, parts, signs, at) {
  /** @type {Folded | null} */
  let best = null;
  let most = 0;
  for (let size = 1; size <= LONGEST && at + 2 * size <= parts.length; size++) {
    let end = at + size;
    while (end < parts.length && signs[end] === signs[end - size]) end++;
    const count = Math.floor((end - at) / size), first = parts.slice(at, at + size);
    const { first: start, stop } = pass.range(first), calls = stop - start;
    const modules = first.some((part) => part.module >= 0);
    if (count < 2 || count * size <= most || !calls || (size === 1 && !modules)) continue;
    const copies = [first, parts.slice(at + size, at + 2 * size)];
    const chained = follows(pass, copies[0], copies[1]);
    if (!chained && size > 1) continue;
    for (let next = 2; next < count; next++) {
      const copy = parts.slice(at + next * size, at + (next + 1) * size);
      if (follows(pass, copies[next - 1], copy) !== chained) break;
      copies.push(copy);
    }
    const least = !chained ? 4 : calls > size ? 2 : 3;
    if (copies.length < least || copies.length * size <= most) continue;
    most = copies.length * size;
    best = { part: first[0], copies, chained };
  }
  return best;
}

/** Whether a stretch reads what the one before it made.
 * @param {Pass} pass @param {Part[]} before @param {Part[]} after */
function follows(pass, before, after) {
  const { modules, calls, values } = pass.graph, { first, stop } = pass.range(before);
  return after.some(({ module, call }) => (module >= 0 ? modules.inputs[module] : calls.inputs[call]).some(
    (/** @type {number} */ serial) => values.producer[serial] >= first && values.producer[serial] < stop));
}
