"""A module as a graph of another library: written in some way, then tried at other sizes.

Exporters take in silence what happened to be so in the pass that they saw: a batch of one, an axis
of 7, a branch. So the graph is made from sizes that all differ, and what was made computes batches
of other sizes beside the module. A way that gives other numbers there is not taken; the next is.
"""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import nn

from forwardpass.building.exporting import quiet
from forwardpass.building.replicas import Arguments, Example, Replica
from forwardpass.errors import BuildError, DataError, MissingExtraError
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.lowered import Lowered, Port
from forwardpass.nouns.programs import Program
from forwardpass.nouns.signatures import Axis, Signature
from forwardpass.tensors.arrays import Array, spelled
from forwardpass.tensors.distances import apart
from forwardpass.tensors.dtypes import coarsest, tensors
from forwardpass.tensors.dtypes import spelled as spelled_dtype
from forwardpass.tensors.modules import held_by, put_into_mode
from forwardpass.tensors.trees import flatten, nest

FAR = 1e-3
"""Of the largest output: beyond this distance a graph computes something else than the module."""
_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
_CANDIDATES = 8
"""Rows of an example that are tried, of which those that the module takes are used."""


class Plain(nn.Module):
    """A module that takes tensors in the order of its input paths, and gives a tuple of them."""

    def __init__(self, module: nn.Module, places: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.places = tuple(places)
        self.outputs = tuple(outputs)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        args, kwargs = nest(dict(zip(self.places, inputs, strict=True)))
        found = flatten(self.module(*args, **kwargs))
        # An exporter may take an output that is an input, or that is there twice, for one of them.
        seen = {id(value) for value in inputs}
        leaving: list[torch.Tensor] = []
        for name in self.outputs:
            value = found[name]
            leaving.append(value.clone() if id(value) in seen else value)
            seen.add(id(value))
        return tuple(leaving)


class Draft(NamedTuple):
    """What a way of lowering is given.

    Attributes:
        plain: the module, as a function of tensors. args: a batch of them, sizes all different.
        inputs, outputs: its ports.
    """

    plain: Plain
    args: tuple[torch.Tensor, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


Write = Callable[[Draft, Path], None]


def lower(
    program: Program,
    example: Example,
    folder: Path,
    *,
    backend: str,
    routes: Mapping[str, Write],
    opened: Callable[[Path, Lowered], Sequence[Replica]],
    far: float = FAR,
) -> Lowered:
    """Write the program into `folder` in the first of the ways that computes what it does.

    Args:
        program: a module that is ours to change.
        example: needs a signature, and batches of other sizes.
        backend: its name, for errors.
        routes: ways of writing, the preferred ones first.
        opened: opens what a way wrote.
        far: the relative distance of outputs that is too far.

    Raises BuildError where no way does, with what each of them said.
    """
    module, signature = program.module, example.signature
    if module is None:
        raise BuildError(f"{backend} lowers modules, and {program.name} is an artefact without one")
    if signature is None or isinstance(example.inputs, Arguments) or example.at is None:
        raise BuildError(
            f"{backend} lowers models with a signature, and {program.name} has a collate of its "
            "own; use eager"
        )
    subject = _Subject(module, signature, example)
    draft, truths = _drafted(subject), subject.truths()
    dtype = spelled_dtype(coarsest({value.dtype for value in held_by(module).values()}))
    declined: list[str] = []
    for route, write in routes.items():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            with torch.no_grad(), quiet():
                write(draft, folder)
            lowered = Lowered(draft.inputs, draft.outputs, dtype, route, declined=tuple(declined))
            distance = tried(opened(folder, lowered)[0], truths, far)
        except (MissingExtraError, KeyboardInterrupt):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise DataError(f"the graph cannot be written: {error.strerror}") from error
            declined.append(f"{route}: {_said(error)}")
            continue
        return msgspec.structs.replace(
            lowered, tried=tuple(truth.said for truth in truths), distance=distance
        )
    raise BuildError(f"{program.name} cannot be lowered to {backend}. " + "; ".join(declined))


class Truth(NamedTuple):
    """A batch, and what the module makes of it."""

    said: str
    inputs: Mapping[str, Array]
    outputs: Mapping[str, torch.Tensor]


class _Subject:
    """A module, computed on the rows of an example at sizes of our choice.

    Attributes:
        placed: where in the arguments of forward each input path goes.
    """

    def __init__(self, module: nn.Module, signature: Signature, example: Example) -> None:
        assert example.at is not None
        self.module, self.signature, self._at = module, signature, example.at
        self.program = ModuleProgram(module)
        self.placed = self.program.placed([i.path for i in signature.inputs])
        own = _own(signature, example.inputs)  # pyright: ignore[reportArgumentType]
        self.written, *self.others = _batches(signature, own)
        self._rows = [n for n in range(_CANDIDATES) if self._takes([n], own)] or [0]

    def batch(self, rows: int, sizes: Mapping[str, int]) -> Mapping[str, Array]:
        """Rows that the module takes, at these sizes."""
        return self._at([self._rows[n % len(self._rows)] for n in range(rows)], sizes)

    def outputs(self, batch: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        """What the module gives, tensors by path."""
        named = tensors(batch, self.signature)
        args, kwargs = nest({self.placed[path]: value for path, value in named.items()})
        with torch.inference_mode():
            return flatten(self.module(*args, **kwargs))

    def truths(self) -> list[Truth]:
        """Batches of other sizes than `written`, those of them that the module takes."""
        found: list[Truth] = []
        for rows, sizes in self.others:
            if self._takes(range(rows), sizes):
                batch = self.batch(rows, sizes)
                found.append(Truth(_spoken(rows, sizes), batch, self.outputs(batch)))
        if not found:
            raise BuildError(
                f"{self.program.name} takes {_spoken(*self.written)} and no other size that was "
                "tried, so that nothing made from it could be proved"
            )
        return found

    def _takes(self, rows: Sequence[int], sizes: Mapping[str, int]) -> bool:
        try:
            self.outputs(self._at(rows, sizes))
        except Exception:  # noqa: BLE001 - a row or a size that the module takes is looked for
            return False
        return True


def truths_of(module: nn.Module, signature: Signature, example: Example) -> list[Truth]:
    """What the module makes of batches of several sizes. Raises BuildError where it takes none."""
    return _Subject(module, signature, example).truths()


def _drafted(subject: _Subject) -> Draft:
    """What is to be written, of sizes that all differ."""
    batch = subject.batch(*subject.written)
    named = tensors(batch, subject.signature)
    axes = {item.path: item.axes for item in subject.signature.inputs}
    inputs = tuple(
        Port(
            path, f"input_{place}", spelled(value),
            tuple(a.name if a.is_variable or a.is_batch else "" for a in axes[path]),
        )
        for place, (path, value) in enumerate(named.items())
    )  # fmt: skip
    outputs = tuple(
        Port(path, f"result_{place}", spelled(value))
        for place, (path, value) in enumerate(subject.outputs(batch).items())
    )
    placed = [subject.placed[path] for path in named]
    plain = Plain(subject.module, placed, [port.path for port in outputs])
    put_into_mode(plain, False)
    return Draft(plain, tuple(named.values()), inputs, outputs)


def _own(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, int]:
    """The sizes of the variable axes in a batch."""
    return {
        axis.name: int(size)
        for item in signature.given
        if item.path in inputs
        for axis, size in zip(item.axes, inputs[item.path].shape, strict=True)
        if axis.is_variable
    }


def _batches(signature: Signature, own: Mapping[str, int]) -> list[tuple[int, dict[str, int]]]:
    """Rows and sizes: first those to write from, of which no two are equal, then those to try."""
    taken = {axis.size for item in signature.inputs for axis in item.axes if axis.size}
    rows = next(n for n in (3, 5, 7, 11, 13) if n not in taken)
    taken.add(rows)

    def near(scale: float) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, axis in signature.variable.items():
            found[name] = _near(axis, max(1, round(own.get(name, 1) * scale)), taken)
            taken.add(found[name])
        return found

    written, longer, shorter = near(1), near(1.6), near(0.7)
    tried = [(1, written), (2, longer), (rows + 3, shorter), (1, longer)]
    return [
        (rows, written),
        *(pair for place, pair in enumerate(tried) if pair not in tried[:place]),
    ]


def _near(axis: Axis, size: int, taken: set[int]) -> int:
    """A size that the axis permits, near this one; none of those taken where that can be."""
    step = axis.multiple
    top = math.inf if axis.high is None else axis.high // step * step
    base = int(min(axis.rounded(size), top))
    near = [base + step * k for distance in range(16) for k in (distance, -distance)]
    permitted = [n for n in near if axis.rounded(1) <= n <= top]
    return next((n for n in permitted if n not in taken), permitted[0])


def tried(replica: Replica, truths: Sequence[Truth], far: float) -> float:
    """The largest distance of what was lowered from the module. Raises BuildError beyond `far`."""
    largest = 0.0
    for said, inputs, outputs in truths:
        try:
            came = replica.fetch(replica.compute(replica.stage(inputs)))
        except Exception as error:
            raise BuildError(f"it does not take {said}: {_said(error)}") from error
        for name, expected in outputs.items():
            value = torch.as_tensor(came[name])
            if value.shape != expected.shape:
                raise BuildError(
                    f"of {said} it makes {name} {list(value.shape)}, and the module "
                    f"{list(expected.shape)}: an axis was taken for a constant"
                )
            distance = apart(value.to(expected.dtype), expected)
            if distance > far:
                raise BuildError(f"of {said} it makes {name} {distance:.1e} away from the module's")
            largest = max(largest, distance)
    return largest


def _spoken(rows: int, sizes: Mapping[str, int]) -> str:
    count = "1 row" if rows == 1 else f"{rows} rows"
    return " × ".join([count, *(f"{name}={size}" for name, size in sizes.items())])


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[0][:300] if lines else ""
    if isinstance(error, BuildError):
        return text
    return f"{type(error).__name__}: {text}"
