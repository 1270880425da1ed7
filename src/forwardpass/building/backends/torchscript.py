"""torchscript(threads=): a trace, for the runtimes that ask for one.

PyTorch has deprecated TorchScript, and nothing is quicker for it. `threads` is the number of
threads inside an operator.
"""

from __future__ import annotations

from pathlib import Path

import torch

from forwardpass.building.graphs import saved, traced
from forwardpass.building.lowering import Draft, lower
from forwardpass.building.plain import PlainReplica
from forwardpass.building.replicas import Example, threads_of
from forwardpass.errors import LoadError
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.programs import Program, Trust

GRAPH = "graph.pt"


def save(program: Program, example: Example, folder: Path) -> Lowered:
    """Write `graph.pt`. Raises BuildError."""
    return lower(
        program, example, folder, backend="torchscript", routes={"trace": _written}, opened=open
    )


def trust(lowered: Lowered) -> Trust:
    """Opening a trace may run what is in it."""
    return "code"


def open(folder: Path, lowered: Lowered, threads: int | None = None) -> list[PlainReplica]:
    """One replica. Raises LoadError for a file that is no TorchScript."""
    try:
        module = torch.jit.load(folder / GRAPH)
    except Exception as error:
        raise LoadError(f"{GRAPH} cannot be opened by PyTorch {torch.__version__}") from error
    return [PlainReplica(module, lowered, threads_of("torchscript", threads))]


def _written(draft: Draft, folder: Path) -> None:
    trace = traced(draft)
    saved(lambda file: torch.jit.save(trace, file), folder / GRAPH)
