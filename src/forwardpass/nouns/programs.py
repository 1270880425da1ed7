"""Program: what is computed — a module, or an artefact that was opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

Trust = Literal["data", "code", "native"]
TRUSTED: Final = ("data", "code", "native")
"""The classes of trust, each of which needs more of it than the one before."""


@runtime_checkable
class Program(Protocol):
    """What a Model holds, and a backend builds.

    Attributes:
        origin: the reference from which another process can load the same.
        trust: "data", "code" or "native": what reading it could have executed.
        name: what errors call it: the class of a module.
        module: the module; None for an artefact, which has none.
    """

    @property
    def origin(self) -> str | None: ...
    @property
    def trust(self) -> Trust: ...
    @property
    def name(self) -> str: ...
    @property
    def module(self) -> nn.Module | None: ...
    def arguments(self) -> tuple[str, ...]:
        """The names of its inputs; positional ones count by place: `0`, `1`, …."""
        ...

    def digest(self) -> str:
        """SHA-256, in hex, over what decides its results; the same in every process."""
        ...
