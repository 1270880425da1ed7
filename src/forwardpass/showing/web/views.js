// The views, by name: one file each.
import { View as Batch } from "fwd/views/batch.js";
import { View as Map } from "fwd/views/map.js";
import { View as Modes } from "fwd/views/modes.js";
import { View as Neuron } from "fwd/views/neuron.js";
import { View as Path } from "fwd/views/path.js";
import { View as Play } from "fwd/views/play.js";
import { View as Ship } from "fwd/views/ship.js";
import { View as Values } from "fwd/views/values.js";
import { View as WhatIf } from "fwd/views/what_if.js";

/** @type {Record<string, any>} */
export const VIEWS = { Batch, Map, Modes, Neuron, Path, Play, Ship, Values, "What if": WhatIf };
