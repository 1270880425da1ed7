// The views, by name: one file each.
import { View as Map } from "fwd/views/map.js";
import { View as Neuron } from "fwd/views/neuron.js";
import { View as Play } from "fwd/views/play.js";
import { View as Ship } from "fwd/views/ship.js";
import { View as Values } from "fwd/views/values.js";

/** @type {Record<string, any>} */
export const VIEWS = { Map, Neuron, Play, Ship, Values };
