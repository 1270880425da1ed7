// Numbers as coloured cells in blocks; few of them with the number in each.
import { html } from "fwd/dom.js";
import { fitted, Heat } from "fwd/heat.js";

const FEW = 25; // cells that are large enough for their numbers
const LARGE = 42; // px
const SIDE = 140; // px of the others, about

/** @param {{blocks: number, height: number, width: number, numbers: (number | string | null)[],
 *   kind?: import("fwd/colours.js").Kind, label: string, exact: boolean}} given; null: padding, which is 0 */
export function Grid({ blocks, height, width, numbers, kind = "sign", label, exact }) {
  const values = numbers.map((number) => Number(number ?? 0));
  const most = Math.max(0, ...values.map(Math.abs).filter(Number.isFinite));
  const large = exact && blocks === 1 && height * width <= FEW && width <= 5;
  const fit = large
    ? { cell: LARGE, tall: LARGE, columns: 1, lines: 1, wide: width * LARGE, high: height * LARGE }
    : fitted(blocks, height, width, SIDE, SIDE);
  return html`<${Heat} numbers=${values} count=${blocks} height=${height} width=${width} fit=${fit} most=${most} kind=${kind} label=${label} />`;
}
