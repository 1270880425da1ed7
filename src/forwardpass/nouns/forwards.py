"""Forward: a Model under a Plan — what is computed, and how. Every verb takes one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from forwardpass.nouns.models import Model
from forwardpass.nouns.plans import Plan

if TYPE_CHECKING:
    from torch import nn

ForwardLike: TypeAlias = "str | os.PathLike[str] | nn.Module | Model | Forward"
"""What every verb takes: a reference with its plan, a module, a Model or a Forward."""


@dataclass(frozen=True, eq=False)
class Forward:
    """A Model under a Plan. Its text is `REFERENCE | step … @ backend`."""

    model: Model
    plan: Plan = field(default_factory=Plan)

    def __or__(self, steps: str) -> Forward:
        """The same model with more steps: `forward | "cast(bf16)"`."""
        # With the backend at its end, the text has no place for a second one: it is refused.
        more = Plan.parse(f"| {steps} @ {self.plan.backend}")
        return Forward(self.model, Plan(self.plan.steps + more.steps, more.backend))

    def __matmul__(self, backend: str) -> Forward:
        """The same model and steps on another backend: `forward @ "eager(threads=2)"`."""
        return Forward(self.model, Plan(self.plan.steps, Plan.parse(f"@ {backend}").backend))

    def __str__(self) -> str:
        return f"{self.model.name} {self.plan}"

    def __repr__(self) -> str:
        return f"Forward({str(self)!r})"
