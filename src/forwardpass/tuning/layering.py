"""Layering: quantized plans become splits by what each of their layers makes wrong."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from forwardpass.errors import ForwardpassError
from forwardpass.executing.fitting import FittingBlock
from forwardpass.nouns.artefacts import MANIFEST, Artefact
from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.tunings import Sensitivity
from forwardpass.tensors.blocks import Block
from forwardpass.tuning.deadlines import Deadline
from forwardpass.tuning.sensitivities import sensitivities
from forwardpass.tuning.splitting import Splitting
from forwardpass.tuning.workshops import Candidate


class Layering:
    """Makes splits of one Forward.

    Attributes:
        notes: how far layers could be told apart, a sentence each.
    """

    def __init__(
        self, forward: Forward, block: Block, keeps: Sequence[Keep], deadline: Deadline
    ) -> None:
        """`block`: rows that layers are looked at on, one by one."""
        self._forward, self._block, self._keeps = forward, block, tuple(keeps)
        self._deadline = deadline
        self._splits: list[Splitting] = []
        self.notes: tuple[str, ...] = ()

    def __call__(self, made: Candidate) -> Splitting | None:
        """The split of a quantized plan; None where its layers cannot be told apart."""
        module = self._forward.model.program.module
        if module is None or made.folder is None:
            return None
        artefact = msgspec.json.decode((made.folder / MANIFEST).read_bytes(), type=Artefact)
        done = artefact.lowered.quantized
        if done is None or not done.layers:
            return None
        try:
            looked = sensitivities(
                module, self._block.signature, FittingBlock(self._block), done.layers,
                until=self._deadline.last_trial,
            )  # fmt: skip
        except ForwardpassError as error:
            self.notes = (*self.notes, f"{made.plan}: its layers cannot be told apart: {error}")
            return None
        self.notes = tuple(dict.fromkeys((*self.notes, *looked.notes)))
        if not looked.layers:
            return None
        split = Splitting.of(made.plan, looked.layers, self._keeps, looked.others)
        self._splits.append(split)
        return split

    def told(self, plan: str) -> tuple[Sensitivity, ...]:
        """The layers that were looked at, with those marked that a plan has in full precision: of
        the split that the plan came from, else of the first one."""
        own = Plan.parse(plan).backend.name
        split = next((s for s in self._splits if s.plan.backend.name == own), None)
        split = split or next(iter(self._splits), None)
        return split.told(plan) if split is not None else ()
