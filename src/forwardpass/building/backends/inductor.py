"""inductor(dynamic=, threads=): compiled by torch.compile, when it is built.

An artefact of it is an exported program, compiled when it is opened.

`dynamic` compiles for all sizes at once (the default); false makes code for each shape that comes,
and PyTorch goes back to plain operators after a few. `threads` is the number of threads inside an
operator. Needs a C++ compiler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from forwardpass.building.backends._programs import EXPORT, ROUTES, module_in
from forwardpass.building.backends._programs import trust as trust
from forwardpass.building.backends.eager import EagerReplica
from forwardpass.building.compiling import Compiled
from forwardpass.building.exporting import quiet
from forwardpass.building.lowering import lower
from forwardpass.building.plain import PlainReplica
from forwardpass.building.proving import tried
from forwardpass.building.replicas import Arguments, Example, Inputs, threads_of
from forwardpass.building.subjects import truths_of
from forwardpass.errors import BuildError, said
from forwardpass.nouns.applied import Applied
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.programs import Program
from forwardpass.tensors.modules import device_of

_WAYS = {"frozen": True, "not frozen": False}
"""Whether weights are constants, which are packed; PyTorch may then mistake a layout."""


class CompiledReplica:
    """A compiled copy of the module.

    Attributes:
        facts, standing: see there.
    """

    def __init__(self, replica: EagerReplica) -> None:
        self._replica = replica
        self.facts, self.standing = replica.facts, replica.standing

    def stage(self, inputs: Inputs) -> Any:
        """As eager does."""
        return self._replica.stage(inputs)

    def compute(self, staged: Any, seed: int | None = None) -> Any:
        """What the compiled code gives; sizes that it was not compiled for are compiled."""
        return self._replica.compute(staged, seed)

    def fetch(self, outputs: Any) -> Any:
        """As eager does."""
        return self._replica.fetch(outputs)


def build(
    program: Program, example: Example, dynamic: bool = True,
    threads: int | None = None,
) -> list[CompiledReplica]:  # fmt: skip
    """One replica, which has computed batches of several sizes as the module does.

    Raises BuildError where it does not, or PyTorch cannot compile it.
    """
    module = program.module
    if module is None:
        raise BuildError(
            f"inductor compiles modules, and {program.name} is an artefact without one"
        )
    device = device_of(module)
    threads = threads_of("inductor", threads)
    declined: list[str] = []
    for way, frozen in _WAYS.items():
        compiled = Compiled(module, dynamic, frozen)
        replica = CompiledReplica(EagerReplica(module, device, threads, example, compiled))
        try:
            with quiet():
                if isinstance(example.inputs, Arguments):
                    replica.compute(replica.stage(example.inputs))
                    return [replica]
                truths = truths_of(module, example)
                moved = tried(replica, truths)
        except Exception as error:  # noqa: BLE001 - raised below, unless the other way works
            why = str(error) if isinstance(error, BuildError) else said(error)
            declined += [] if any(why in other for other in declined) else [f"{way}: {why}"]
            continue
        done = Applied("@ inductor", str(compiled), moved, tuple(truth.said for truth in truths))
        replica.facts = replace(replica.facts, applied=(done,))
        return [replica]
    raise BuildError(f"{program.name} cannot be compiled by inductor. {'; '.join(declined)}")


def save(program: Program, example: Example, folder: Path) -> Lowered:
    """Write an exported program. Raises BuildError."""
    # A trace stays as it is, whoever compiles it.
    ways = {f"{EXPORT}, {way}": ROUTES[EXPORT] for way in _WAYS}
    return lower(program, example, folder, backend="inductor", routes=ways, opened=open)


def open(
    folder: Path, lowered: Lowered, dynamic: bool = True, threads: int | None = None
) -> list[PlainReplica]:
    """One replica, compiled when its first batch comes. Raises LoadError for what is damaged."""
    threads = threads_of("inductor", threads)
    frozen = _WAYS.get(lowered.route.partition(", ")[2], True)
    return [PlainReplica(Compiled(module_in(folder, lowered), dynamic, frozen), lowered, threads)]
