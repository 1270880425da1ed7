"""Changed: a Change as the page asks for it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from forwardpass.probing.changes import Change
from forwardpass.probing.edits import Edit
from forwardpass.probing.elements import InputElement


class Changed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is other than in the pass as deployed; see probing.changes.Change."""

    mode: Literal["train", "eval"] | None = None
    grad: Literal["on", "off", "inference"] | None = None
    seed: int | None = None
    edits: tuple[Edit, ...] = ()
    inputs: tuple[InputElement, ...] = ()


UNCHANGED: Final = Changed()
"""The pass as deployed."""


def change_of(changed: Changed) -> Change:
    """The Change that was asked for."""
    return Change(
        mode=changed.mode, grad=changed.grad, seed=changed.seed, edits=changed.edits,
        elements=changed.inputs,
    )  # fmt: skip
