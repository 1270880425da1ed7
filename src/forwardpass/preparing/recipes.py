"""Ready: what is known before the first row, as plain data."""

from __future__ import annotations

from typing import Any

import msgspec

from forwardpass.batching.packing import Cells, cells_of
from forwardpass.building import Engine, Facts
from forwardpass.errors import LoadError
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.measuring.machines import machine
from forwardpass.nouns.artefacts import READY
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.padding import UNTRIED, PaddingProof
from forwardpass.preparing.trials import Trials
from forwardpass.tensors.threads import operator_threads

_EDITION = 3
"""Of what a machine is known by; a new one makes what was measured before stale."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """How a Forward is computed here. A manifest begins with it; a resumed run and another process
    follow it.

    Attributes:
        plan: the text of the Plan. origin: the reference of the model, if it has one.
        sha256: the digest of the Forward.
        inputs, outputs: the signature, a line each; none where the model has a collate.
        padding: which axes may be padded, and what was measured.
        costs: what batches cost; without points where no row could be computed.
        machine: the one that this was measured on.
        device: that computes there, "cpu" or "cuda:0".
    """

    plan: str
    origin: str | None
    sha256: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    padding: PaddingProof
    costs: CostTable
    machine: Machine
    device: str

    @classmethod
    def of(
        cls, forward: Forward, sha256: str, engine: Engine | None,
        padding: PaddingProof = UNTRIED, costs: CostTable | None = None,
    ) -> Ready:  # fmt: skip
        """What is known of a Forward; without an engine where no row could be computed."""
        signature = forward.model.signature if engine is None else engine.signature
        facts = Facts("cpu", "f32", "") if engine is None else engine.replicas[0].facts
        return Ready(
            plan=str(forward.plan),
            origin=forward.model.origin,
            sha256=sha256,
            inputs=tuple(map(str, signature.inputs)) if signature else (),
            outputs=tuple(map(str, signature.outputs)) if signature else (),
            padding=padding,
            costs=costs or CostTable(()),
            machine=machine_of(facts),
            device=facts.device,
        )

    @property
    def signature(self) -> Signature | None:
        """The inputs and outputs; None where the model has a collate."""
        return Signature.parse(self.inputs, self.outputs) if self.inputs else None

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes along which rows vary."""
        return tuple(self.signature.variable) if self.signature else ("size",)

    @property
    def may_pad(self) -> tuple[bool, ...]:
        """For each axis along which rows vary, whether it may be padded."""
        return tuple(name in self.padding.paddable for name in self.axes)

    @property
    def cells(self) -> Cells:
        """Sizes [..., axes] → cells of a row."""
        signature = self.signature
        return (lambda sizes: sizes[..., 0]) if signature is None else cells_of(signature)


class Learned(Ready, frozen=True, kw_only=True):
    """What an artefact says of itself.

    Attributes:
        trials: the sizes of batches that were tried on that machine; none without data.
    """

    trials: Trials = Trials()


def machine_of(facts: Facts) -> Machine:
    """This machine, as it is when a replica of these facts computes."""
    return machine(facts.device, facts.library, threads_inside(facts))


def threads_inside(facts: Facts) -> int:
    """Threads inside an operator while a replica of these facts computes; 0 where its library has
    threads of its own and nobody said how many: PyTorch's are not theirs, loaded or not."""
    computes = facts.library.startswith("torch ")
    return facts.threads or (operator_threads() if computes else None) or 0


def costs_key(sha256: str, machine: Machine) -> dict[str, Any]:
    """What measured costs belong to: the same Forward on the same machine."""
    return {"edition": _EDITION, "forward": sha256, "machine": machine.digest}


def stored(forward: Forward) -> Learned | None:
    """What an artefact holds of this; None for all else. Raises LoadError where it is damaged."""
    program = forward.model.program
    if not isinstance(program, ArtefactProgram) or not program.artefact.outputs:
        return None
    path = program.folder / READY
    try:
        return msgspec.json.decode(path.read_bytes(), type=Learned)
    except (OSError, msgspec.MsgspecError) as error:
        raise LoadError(f"{path} cannot be read: {error}; export the model again") from error
