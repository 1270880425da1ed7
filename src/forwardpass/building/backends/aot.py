"""aot(threads=): machine code for this kind of processor, made ahead of time by AOTInductor.

Needs a C++ compiler where it is made, none where it is opened. An artefact holds the exported
program beside the machine code, so that it can be made anew on another kind of machine. `threads`
is the number of threads inside an operator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from forwardpass.building.exporting import quiet
from forwardpass.building.graphs import exported, saved
from forwardpass.building.lowering import Draft, lower
from forwardpass.building.plain import PlainReplica
from forwardpass.building.replicas import Example, threads_of
from forwardpass.errors import BuildError, LoadError, said
from forwardpass.loading.archives import prove_data, prove_pickles
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.programs import Program, Trust

GRAPH = "graph.pt2"
_PROGRAM = "program.pt2"
"""The exported program that the machine code was made of: for another machine it is made again."""


def save(program: Program, example: Example, folder: Path) -> Lowered:
    """Write `graph.pt2`. Raises BuildError."""
    return lower(
        program, example, folder, backend="aot", routes={"torch.export": _packaged}, opened=open
    )


def trust(lowered: Lowered) -> Trust:
    """It is machine code."""
    return "native"


def open(folder: Path, lowered: Lowered, threads: int | None = None) -> list[PlainReplica]:
    """One replica. The loader reads machine code, and unpickles nothing. Raises LoadError."""
    threads = threads_of("aot", threads)
    prove_pickles(folder / GRAPH)
    native: Any = torch._C  # pyright: ignore[reportPrivateUsage]
    try:
        loader = native._aoti.AOTIModelPackageLoader(str(folder / GRAPH), "model", False, 1, -1)
    except Exception as error:
        raise LoadError(f"{GRAPH} cannot be opened by PyTorch {torch.__version__}") from error

    def computed(*inputs: torch.Tensor) -> list[torch.Tensor]:
        return loader.run(list(inputs))

    return [PlainReplica(computed, lowered, threads)]


def rebuild(graph: Path, folder: Path) -> None:
    """Machine code for this machine, into `folder`. Raises LoadError, or BuildError."""
    if not (graph / _PROGRAM).is_file():
        raise LoadError(
            f"{graph.parent} has no {_PROGRAM} to rebuild it from; export the model again"
        )
    prove_data(graph / _PROGRAM)
    try:
        with quiet():
            _compiled(torch.export.load(graph / _PROGRAM), folder)
    except Exception as error:
        raise BuildError(f"{graph.parent} cannot be rebuilt here: {said(error)}") from error


def _packaged(draft: Draft, folder: Path) -> None:
    program = exported(draft)
    saved(lambda file: torch.export.save(program, file), folder / _PROGRAM)
    _compiled(program, folder)


def _compiled(program: Any, folder: Path) -> None:
    from torch._inductor import aoti_compile_and_package

    saved(lambda file: aoti_compile_and_package(program, package_path=file), folder / GRAPH)
