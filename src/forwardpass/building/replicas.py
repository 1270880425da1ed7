"""What a backend makes, and what it makes it from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import msgspec

from forwardpass.errors import UsageError
from forwardpass.nouns.applied import Applied
from forwardpass.nouns.signatures import Signature
from forwardpass.tensors.arrays import Array

if TYPE_CHECKING:
    from forwardpass.keeping.standing import Standing


class Arguments(NamedTuple):
    """What the program is called with, where the user's collate made it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Inputs: TypeAlias = "Mapping[str, Array] | Arguments"
"""A batch: arrays by the paths of a signature, or what the user's collate made."""


Data: TypeAlias = "Iterable[Mapping[str, Array]]"
"""Batches of the user's rows, by input path; each iteration begins anew."""


Resized: TypeAlias = "Callable[[Sequence[int], Mapping[str, int]], Mapping[str, Array]]"
"""A batch of these rows, by number, with the variable axes at these sizes. There is a row for every
number from 0; they are real ones, or were drawn, and need not differ for long."""


class FullGraph(NamedTuple):
    """A graph in full precision that a backend has written of the same module, by the same example.

    Attributes:
        folder: where it is. route: the way in which it was written.
    """

    folder: Path
    route: str


class Example(NamedTuple):
    """A batch that the program takes, and the signature that names its inputs, if there is one.

    Attributes:
        signature: of the model; without one the inputs have no names.
        inputs: the batch.
        at: batches of other rows and sizes, to build from and to try what was built on; None where
            rows cannot be resized.
        data: the rows that the user gave to fit to, in batches; None where there are none.
        graph: what a backend that quantizes begins with; None: it writes that first.
    """

    signature: Signature | None
    inputs: Inputs
    at: Resized | None = None
    data: Data | None = None
    graph: FullGraph | None = None


class Facts(msgspec.Struct, frozen=True):
    """What others must know of a replica.

    Attributes:
        device: as text, "cpu" or "cuda:0". dtype: the coarsest floating one that it computes in.
        library: what computes, with what decides its last bits: "torch 2.13.0 (AVX512)".
        threads: inside an operator while it computes; None: as they are.
        workers: threads that should feed it; with two, one transfers while the other computes.
        rounding: the relative distance by which two right results of a row may differ,
            where it was quantized.
        applied: what its backend made of it, as far as that can be said.
    """

    device: str
    dtype: str
    library: str
    threads: int | None = None
    workers: int = 1
    rounding: float = 0.0
    applied: tuple[Applied, ...] = ()


class Replica(Protocol):
    """One copy of a built model on one device. What a backend makes."""

    @property
    def facts(self) -> Facts: ...
    @property
    def standing(self) -> Standing | None:
        """What puts back what passes change of it; None where they have nothing to change."""
        ...

    def stage(self, inputs: Inputs) -> Any:
        """A batch where it will be computed, in whatever form `compute` takes."""
        ...

    def compute(self, staged: Any, seed: int | None = None) -> Any:
        """The outputs by name, where they were computed; of Arguments what the program returned.

        The generators that it draws from are seeded with `seed` before; None leaves them.
        """
        ...

    def fetch(self, outputs: Any) -> Any:
        """The outputs, or some of them, in CPU memory; waits for the device."""
        ...


def threads_of(backend: str, threads: object) -> int | None:
    """The argument `threads` of a backend. Raises UsageError for what is no number of threads."""
    return count_of(backend, "threads", threads)


def count_of(backend: str, name: str, count: object) -> int | None:
    """An argument that is a number of something. Raises UsageError for what is none."""
    if count is not None and (type(count) is not int or count < 1):
        raise UsageError(f"{backend}({name}={count}): {name} must be a whole number from 1")
    return count


def quantizes(backend: str, quantize: object, layers: object) -> None:
    """Raise UsageError for an argument `quantize` of a backend that it does not know, and for
    layers that are chosen where nothing is quantized."""
    if quantize not in (None, "int8"):
        raise UsageError(f"{backend}(quantize={quantize}): int8 is what {backend} quantizes to")
    if layers is not None and quantize is None:
        raise UsageError(
            f"@ {backend} where …: `where` chooses the layers to quantize, and nothing is "
            f"quantized; write {backend}(quantize=int8) where …"
        )
