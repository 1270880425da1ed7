"""pt2e(quantize=, dynamic=, threads=): machine code with layers in int8, by torchao.

Its PT2E rounds weights and activations of linear layers and convolutions to int8, as its quantizer
for x86 wants; AOTInductor fuses that into kernels that compute so. Ranges of activations come from
data (`fwd export … --calibrate DATA`); with `dynamic` they are found anew in each pass, without
data, and linear layers alone are quantized. `quantize` is int8. `threads` is the number of threads
inside an operator. Needs the extra `quantize` and a C++ compiler where it is made, none of them
where it is opened.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from forwardpass.building.backends import aot
from forwardpass.building.graphs import exported, saved
from forwardpass.building.lowering import Draft, lower
from forwardpass.building.plain import PlainReplica
from forwardpass.building.replicas import Example, quantizes, threads_of
from forwardpass.errors import BuildError, UsageError, missing_extra
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.programs import Program, Trust
from forwardpass.tensors.dtypes import tensors

if TYPE_CHECKING:
    from forwardpass.building.quantizing import Quantized
    from forwardpass.nouns.plans import Where

_PROGRAM = "program.pt2"
"""The exported program before it is quantized, which is tried first."""


def save(
    program: Program, example: Example, folder: Path, quantize: str, dynamic: bool = False,
    *, layers: Where | None = None,
) -> Lowered:  # fmt: skip
    """Write a package. Raises BuildError, UsageError for layers that are not there."""
    quantizes("pt2e", quantize, layers)
    if type(dynamic) is not bool:
        raise UsageError(f"pt2e(dynamic={dynamic}): dynamic must be true or false")
    if find_spec("torchao") is None:
        raise missing_extra("torchao", "quantize", "pt2e")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise BuildError(
            f"pt2e quantizes for x86, and this processor is {platform.machine()}; use onnxruntime("
            "quantize=int8)"
        )
    if example.data is None and not dynamic:
        raise BuildError(
            f"@ pt2e(quantize={quantize}) is fitted to data, and there are none: write an artefact "
            "with `fwd export FORWARD -o NAME.fwd --calibrate DATA`; or write pt2e(quantize="
            f"{quantize}, dynamic=true), which needs none"
        )

    def to_int8(draft: Draft, folder: Path) -> Quantized:
        from forwardpass.building.backends._torchao import quantized

        (folder / _PROGRAM).unlink()
        batches = None if dynamic else _Batches(draft, example)
        return quantized(draft, folder / aot.GRAPH, batches, layers)

    return lower(
        program, example, folder,
        backend="pt2e",
        routes={"torch.export": _exported},
        opened=_opened,
        quantize=to_int8,
    )  # fmt: skip


def trust(lowered: Lowered) -> Trust:
    """It is machine code."""
    return "native"


def open(folder: Path, lowered: Lowered, threads: int | None = None) -> list[PlainReplica]:
    """One replica. Raises LoadError."""
    return aot.open(folder, lowered, threads_of("pt2e", threads))


@dataclass(frozen=True)
class _Batches:
    """The user's rows as a graph takes them, anew at each iteration."""

    draft: Draft
    example: Example

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        assert self.example.signature is not None
        for batch in self.example.data or ():
            named = tensors(batch, self.example.signature)
            yield tuple(named[port.path] for port in self.draft.inputs)


def _exported(draft: Draft, folder: Path) -> None:
    program = exported(draft)
    saved(lambda file: torch.export.save(program, file), folder / _PROGRAM)


def _opened(folder: Path, lowered: Lowered) -> list[PlainReplica]:
    """What stands in `folder` while it is made: the program, or the package that it became."""
    if (folder / aot.GRAPH).is_file():
        return open(folder, lowered)
    module = torch.export.load(folder / _PROGRAM).module(check_guards=False)
    return [PlainReplica(module, lowered, None)]
