"""Candidates: the plans that are worth a trial for a Forward on this machine, and why others are
not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from forwardpass.building import backends, steps
from forwardpass.building.backends._programs import ROUTES
from forwardpass.building.calls import parameters
from forwardpass.building.copies import copied
from forwardpass.building.stepping import stepped
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError, ForwardpassError, LoadError, UsageError
from forwardpass.executing.fitting import FittingBlock
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.folders import plugin, plugins
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.plans import Argument, Backend, Plan, Step
from forwardpass.nouns.programs import TRUSTED, Trust
from forwardpass.preparing.preparing import example_of
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.modules import parts_of

_COARSER: Final = {"cast(bf16)": "bf16", "quantize(int8)": ""}
"""Steps that lose precision, and what the name of an instruction holds that makes them quick."""
_SMALL: Final = 8
"""Rows that tell whether a step changes something."""
Kind = Literal["full", "int8", "coarser"]


class Idea(NamedTuple):
    """A plan worth a trial.

    Attributes:
        kind: "full" precision, whole models in "int8" by the backend, or a "coarser" module.
        why_not: why it is not tried, in a sentence; empty if it is.
    """

    plan: Plan
    kind: Kind
    why_not: str = ""


def lossless(
    forward: Forward, block: Block, fits: Callable[[float], bool]
) -> tuple[tuple[Step, ...], dict[Step, str]]:
    """The steps that change something of a module, need no word of the user, and may move outputs
    by rounding alone, one after the other; and of the others of that kind, why not.

    They are applied to a copy, those that move outputs least first. What an artefact is made with
    is proved when it is made.

    Args:
        block: rows of which they see the smallest.
        fits: whether what takes about so many seconds may begin.
    """
    module = forward.model.program.module
    if module is None:
        return (), {}
    small = block.take(np.argsort(block.sizes.prod(axis=1), kind="stable")[:_SMALL])
    example = example_of(small)._replace(data=FittingBlock(small))
    try:
        own, _ = stepped(copied(module), forward.plan.steps, example)
    except ForwardpassError as error:
        why = f"the steps that were given do not go with so few rows: {error}"
        return (), dict.fromkeys(_lossless(), why)
    found: list[Step] = []
    refused: dict[Step, str] = {}
    seconds = 0.0
    for step in _lossless():
        if step.name in {one.name for one in forward.plan.steps}:
            continue
        if not fits(seconds):
            refused[step] = "there was no time to see whether it changes something"
            continue
        piece = Workpiece(copied(own), example)
        piece.step, piece.selected = step, {path for path, _ in parts_of(own, every_name=True)}
        began = WALL.now()
        try:
            apply = plugin(steps, step.name).apply
            apply(piece)
        except (BuildError, UsageError, LoadError) as error:
            refused[step] = str(error)
        else:
            found.append(step)
            own = piece.module
        seconds = max(seconds, WALL.now() - began)
    return tuple(found), refused


def _lossless() -> list[Step]:
    known = [
        (file.FAR, name) for name, file in plugins(steps).items()
        if math.isfinite(file.FAR) and not _required(file.apply, 1)
    ]  # fmt: skip
    return [Step(name) for _, name in sorted(known)]


def ideas(
    prefix: tuple[Step, ...], machine: Machine, trust: Trust, threads: str = ""
) -> Iterator[Idea]:
    """Each backend with each of its ways to compute, after the steps of `prefix`. What leaves
    PyTorch behind comes first, since it differs most, and opens soonest; of that what is in full
    precision.

    Args:
        threads: that the user fixed, where a backend takes them.
    """
    able = {name: file for name, file in plugins(backends).items() if hasattr(file, "save")}
    ways = {name: _ways(file) for name, file in able.items()}
    for builds, kind in product((False, True), ("full", "int8")):
        for name, file in able.items():
            for arguments in ways[name] if hasattr(file, "build") == builds else ():
                if bool(arguments) == (kind == "int8"):
                    backend = with_threads(Plan.parse(f"@ {name}{arguments}").backend, threads)
                    yield Idea(Plan(prefix, backend), kind, _mistrusted(name, file, trust))
    for text, instruction in _COARSER.items():
        (step,) = Plan.parse(f"| {text}").steps
        for name, file in able.items():
            if "" not in ways[name]:
                continue
            why = _mistrusted(name, file, trust) or _unable(machine, instruction)
            yield Idea(Plan((*prefix, step), with_threads(Backend(name), threads)), "coarser", why)


def threaded(plan: Plan, machine: Machine, *, apart: bool = True) -> list[Plan]:
    """The same plan with one thread, with one a core, and with streams that share these, where its
    backend takes such numbers and has none.

    Args:
        apart: whether batches may be computed side by side.
    """
    backend = plan.backend
    given = {one.name for one in backend.arguments} & {"threads", "streams"}
    if machine.cores == 1 or given:
        return []
    found = [with_threads(backend, str(count)) for count in (1, machine.cores)]
    if apart and "streams" in parameters(plugin(backends, backend.name).open, 2):
        counts = [machine.cores // each for each in (1, 2, 4)]
        found += [
            _with(with_threads(backend, str(machine.cores // count)), "streams", str(count))
            for count in counts if count > 1
        ]  # fmt: skip
    return [Plan(plan.steps, one) for one in found if one != backend]


def threads_of(plan: Plan) -> str:
    """The number of threads that a plan fixes; empty where it leaves that to the backend."""
    return next((one.text for one in plan.backend.arguments if one.name == "threads"), "")


def with_threads(backend: Backend, threads: str) -> Backend:
    """A backend with so many threads, if it takes a number and one is given."""
    file = plugin(backends, backend.name)
    takes = threads and "threads" in parameters(file.open, 2)
    return _with(backend, "threads", threads) if takes else backend


def _with(backend: Backend, name: str, text: str) -> Backend:
    return Backend(backend.name, (*backend.arguments, Argument(text, name)), backend.where)


def is_quantized(plan: Plan) -> bool:
    """Whether its backend computes layers in int8, of which `where` can leave some out."""
    return any(one.name == "quantize" for one in plan.backend.arguments)


def _ways(file: ModuleType) -> list[str]:
    """The arguments with which a backend computes otherwise: none, quantized, and quantized with
    each switch that its `save` has beside that."""
    takes = parameters(file.save, 3)
    if "quantize" not in takes:
        return [""]
    switches = [name for name, one in takes.items() if one.default is False]
    plain = [] if "quantize" in _required(file.save, 3) else [""]
    return [
        *plain,
        "(quantize=int8)",
        *(f"(quantize=int8, {name}=true)" for name in switches),
    ]


def _mistrusted(name: str, file: Any, trust: Trust) -> str:
    """Why artefacts of a backend are not admitted, whichever way they are written."""
    routes = (Lowered((), (), "f32", route) for route in ROUTES)
    classes: list[Trust] = [file.trust(lowered) for lowered in routes]
    least = min(classes, key=TRUSTED.index)
    if TRUSTED.index(least) <= TRUSTED.index(trust):
        return ""
    return f"opening an artefact of {name} needs --trust {least}, and this is --trust {trust}"


def _unable(machine: Machine, instruction: str) -> str:
    known = machine.instructions
    if not instruction or not known or any(instruction in one for one in known):
        return ""
    return f"this processor has no instructions for {instruction}, and would be slower"


def _required(function: Any, skip: int) -> list[str]:
    return [name for name, one in parameters(function, skip).items() if one.default is one.empty]
