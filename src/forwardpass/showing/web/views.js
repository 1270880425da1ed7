// The views, by name: one file each.
import { View as Values } from "fwd/views/values.js";

/** @type {Record<string, any>} */
export const VIEWS = { Values };
