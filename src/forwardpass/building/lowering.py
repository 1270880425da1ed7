"""A module as a graph of another library: written in some way, then tried at other sizes.

Exporters take in silence what happened to be so in the pass that they saw: a batch of one, an axis
of 7, a branch. So the graph is made from sizes that all differ, and what was made computes batches
of other sizes beside the module. A way that gives other numbers there is not taken; the next is.
"""

from __future__ import annotations

import errno
import inspect
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import nn

from forwardpass.building.exporting import quiet
from forwardpass.building.lookups import bounds
from forwardpass.building.proving import cause_of, proved, read_in, tried
from forwardpass.building.quantizing import Quantized
from forwardpass.building.replicas import Example, Replica
from forwardpass.building.subjects import (
    Subject,
    arguments_of,
    is_resizable,
    spoken,
)
from forwardpass.building.value_reads import TracedReads
from forwardpass.errors import BuildError, DataError, MissingExtraError, UsageError
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.applied import Applied
from forwardpass.nouns.lowered import Lowered, Port
from forwardpass.nouns.programs import Program
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import recorded
from forwardpass.tensors.arrays import spelled
from forwardpass.tensors.dtypes import tensors
from forwardpass.tensors.modules import dtype_of, put_into_mode
from forwardpass.tensors.trees import flatten, nest

_LOG = logging.getLogger("forwardpass")
_OPERATOR = re.compile(r"\b([a-z_]\w*)(?:::|\.)(\w+)")
_LOOKED_AT = 2000
"""Characters of an error in which it names an operator: behind them some print the whole graph."""
_BROKEN = math.nextafter(1.0, 0.0)
"""Of the largest output: beyond this distance quantization has left nothing of an output; zeros lie
1 away."""
_DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class Plain(nn.Module):
    """A module that takes tensors in the order of its input paths, and gives a tuple of them.

    Args:
        places: where in the arguments of the module's forward each tensor goes.
        outputs: the paths of the outputs that leave.
    """

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


class ByName(Plain):
    """The same, which gives a dict by the paths of the outputs."""

    def forward(self, *inputs: torch.Tensor) -> Any:
        return dict(zip(self.outputs, super().forward(*inputs), strict=True))


def taking(names: Iterable[str], kind: type[Plain]) -> type[Plain]:
    """A kind of Plain, whose forward has arguments of these names: exporters call inputs so."""

    def forward(self: Plain, *inputs: torch.Tensor) -> Any:
        return kind.forward(self, *inputs)

    arguments = ["self"]
    for name in names:
        argument = re.sub(r"\W", "_", name)
        if not argument.isidentifier() or iskeyword(argument):
            argument = f"input_{argument}"
        while argument in arguments:
            argument += "_"
        arguments.append(argument)
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, either) for name in arguments])
    setattr(forward, "__signature__", signature)  # noqa: B010 - a function's type has no such name
    return type(kind.__name__, (kind,), {"forward": forward, "__module__": __name__})


class Draft(NamedTuple):
    """What a way of lowering is given.

    Attributes:
        plain: the module, as a function of tensors. args: a batch of them, sizes all different.
        inputs, outputs: its ports.
        reads: what Python reads of the data while it is traced.
    """

    plain: Plain
    args: tuple[torch.Tensor, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    reads: TracedReads


Write = Callable[[Draft, Path], None]
Quantize = Callable[[Draft, Path], Quantized]


def lower(
    program: Program,
    example: Example,
    folder: Path,
    *,
    backend: str,
    routes: Mapping[str, Write],
    opened: Callable[[Path, Lowered], Sequence[Replica]],
    quantize: Quantize | None = None,
) -> Lowered:
    """Write the program into `folder` in the first of the ways that computes what it does.

    Args:
        program: a module that is ours to change.
        example: needs a signature, and batches of other sizes. A graph that it has is proved as one
            that is written.
        backend: its name, for errors.
        routes: ways of writing, the preferred ones first.
        opened: opens what a way wrote.
        quantize: rewrites what was written, once that computes what the module does, and says what
            it did and what proves it.

    Raises BuildError where no way does, with what each of them said; UsageError for layers to
    quantize that are not there.
    """
    module = program.module
    if module is None:
        raise BuildError(f"{backend} lowers modules, and {program.name} is an artefact without one")
    if not is_resizable(example):
        raise BuildError(
            f"{backend} lowers models with a signature, and {program.name} has a collate of its "
            "own; use eager"
        )
    subject = Subject(module, example)
    draft, truths = _drafted(subject), subject.truths()
    if not truths:
        raise BuildError(
            f"{program.name} takes {spoken(*subject.written)} and no other size that was tried, so "
            "that nothing made from it could be proved"
        )
    dtype = dtype_of(module)
    if quantize is not None and dtype != "f32":
        raise BuildError(
            f"{backend} quantizes models in f32, and {program.name} computes in {dtype} somewhere: "
            "leave that out, or the quantization"
        )
    declined: list[str] = []
    ways = [*routes.items()]
    if quantize is not None and example.graph is not None:
        ways.insert(0, (example.graph.route, _copying(example.graph.folder)))
    proven: set[str] = set()
    for route, write in ways:
        if route in proven:  # as it was there; written anew it would be refused for the same reason
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _LOG.info("writing by %s", route)
        draft.reads.found.clear()
        try:
            with torch.no_grad(), quiet():
                write(draft, folder)
            lowered = Lowered(draft.inputs, draft.outputs, dtype, route, declined=tuple(declined))
            distance = proved(opened(folder, lowered)[0], subject, truths, draft.reads)
            proven.add(route)
            on = tuple(truth.said for truth in truths)
            lowered = msgspec.structs.replace(lowered, tried=on, distance=distance)
            if quantize is None:
                return lowered
            with torch.no_grad(), quiet():
                made = quantize(draft, folder)
            moved = tried(opened(folder, lowered)[0], truths, _BROKEN)
            if moved and moved == distance:
                raise BuildError("its outputs are to the last bit those of before quantizing")
            done = Applied(f"{backend}(quantize=int8)", made.did, moved, on, made.layers)
            return msgspec.structs.replace(lowered, quantized=done)
        except (MissingExtraError, UsageError, KeyboardInterrupt):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise DataError(f"the graph cannot be written: {error.strerror}") from error
            declined.append(f"{route}: {cause_of(error)}{_called(error, subject)}")
    raise BuildError(f"{program.name} cannot be lowered to {backend}. " + "; ".join(declined))


def _copying(known: Path) -> Write:
    """Writes what is there already."""

    def write(draft: Draft, folder: Path) -> None:
        shutil.copytree(known, folder, dirs_exist_ok=True)

    return write


def _drafted(subject: Subject) -> Draft:
    """What is to be written, of sizes that all differ."""
    batch = subject.draft()
    named = tensors(batch, subject.signature)
    axes = {item.path: item.axes for item in subject.signature.inputs}
    known = bounds(subject.module, subject.signature, batch)
    inputs = tuple(
        Port(
            path, path, spelled(value),
            tuple(a.name if a.is_variable or a.is_batch else "" for a in axes[path]),
            known.get(path),
        )
        for path, value in named.items()
    )  # fmt: skip
    outputs = tuple(
        Port(path, f"{path}.out" if path in named else path, spelled(value))
        for path, value in subject.outputs(batch).items()
    )
    placed = ModuleProgram(subject.module).placed(list(axes))
    places = [placed[path] for path in named]
    plain = taking(named, Plain)(subject.module, places, [port.path for port in outputs])
    put_into_mode(plain, False)
    return Draft(plain, tuple(named.values()), inputs, outputs, TracedReads())


def _called(error: BaseException, subject: Subject) -> str:
    """Where the pass calls the operator that an error names, or reads a number that is not known
    while it is exported; empty where it does neither."""
    if isinstance(error, BuildError):
        return ""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode  # with sympy

    if any(isinstance(cause, GuardOnDataDependentSymNode) for cause in _causes(error)):
        truth = subject.truth(*subject.written)
        lines = list(read_in(subject, [truth] if truth else []))
        return f"; Python reads numbers of tensors at {', '.join(lines)}" if lines else ""
    text = " ".join(str(cause)[:_LOOKED_AT] for cause in reversed(_causes(error)))
    named = [f"{space}.{name}" for space, name in _OPERATOR.findall(text)]
    if not named:
        return ""
    args, kwargs = arguments_of(subject.module, subject.signature, subject.batch(*subject.written))
    done = recorded("", Pass.of(subject.module, args, kwargs, grad="off"), ())
    for operator in dict.fromkeys(named):
        call = next((c for c in done.calls if f"{c.operator}.".startswith(f"{operator}.")), None)
        if call is not None:
            return f"; the model calls {operator} at {done.site(call)}"
    return ""


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what led to it, the outermost first."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
