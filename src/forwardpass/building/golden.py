"""Golden rows: batches and what came of them, which an opened artefact computes again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from forwardpass.building.replicas import Facts, Replica
from forwardpass.errors import BuildError, LoadError, contained, said
from forwardpass.nouns.artefacts import GOLDEN
from forwardpass.nouns.lowered import Lowered
from forwardpass.tensors.arrays import Array, to_numpy
from forwardpass.tensors.distances import apart, tolerance

_FAR: Final = 1e-3

Batches = Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]
Named = dict[str, np.ndarray[Any, Any]]


def far(facts: Facts) -> float:
    """How far outputs may be apart, of the largest, before it is something else that is computed:
    by another library or another machine."""
    return max(_FAR, tolerance([facts.dtype]), facts.rounding)


def write(folder: Path, batches: Batches) -> None:
    """Write inputs and outputs, by path, of each batch."""
    from safetensors.numpy import save

    named: dict[str, np.ndarray[Any, Any]] = {}
    for place, pair in enumerate(batches):
        for kind, arrays in zip(("in", "out"), pair, strict=True):
            for path, value in arrays.items():
                named[f"{place} {kind} {path}"] = np.asarray(to_numpy(value), order="C")
    (folder / GOLDEN).write_bytes(save(named))  # its own writer says a full disk as its own error


def read(folder: Path, lowered: Lowered) -> list[tuple[Named, Named]]:
    """Inputs and outputs, by path, of each batch. Raises LoadError where they are not those of the
    graph."""
    from safetensors.numpy import load_file

    try:
        with contained():
            named = load_file(folder / GOLDEN)
    except Exception as error:
        raise LoadError(f"{folder / GOLDEN} cannot be read: {said(error)}") from error
    batches: dict[str, tuple[Named, Named]] = {}
    for name, value in named.items():
        place, _, rest = name.partition(" ")
        kind, _, path = rest.partition(" ")
        batches.setdefault(place, ({}, {}))[kind == "out"][path] = value
    ports = tuple({port.path for port in kind} for kind in (lowered.inputs, lowered.outputs))
    found = list(batches.values())
    if not found or any((set(given), set(came)) != ports for given, came in found):
        raise LoadError(
            f"{folder / GOLDEN} holds other inputs and outputs than the graph has; export the "
            "model again"
        )
    return found


def replay(replica: Replica, folder: Path, lowered: Lowered) -> float:
    """Compute the golden rows again; the largest relative distance to what they gave.

    Raises BuildError where it is too far or the graph refuses them, LoadError for a file that
    cannot be read.
    """
    largest, allowed = 0.0, far(replica.facts)
    for inputs, outputs in read(folder, lowered):
        try:
            came = replica.fetch(replica.compute(replica.stage(inputs)))
        except Exception as error:
            raise BuildError(
                f"{folder.name} does not compute its golden rows here: {said(error)}"
            ) from error
        for path, expected in outputs.items():
            distance = apart(to_numpy(came[path]), expected)
            if distance > allowed:
                raise BuildError(
                    f"{folder.name} computes its golden rows otherwise here: {path} is "
                    f"{distance:.1e} away from what was exported, and {allowed:.0e} is allowed; "
                    "export the model again on this machine"
                )
            largest = max(largest, distance)
    return largest
