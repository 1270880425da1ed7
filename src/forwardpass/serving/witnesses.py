"""Witness: who is told what a server does."""

from __future__ import annotations

import msgspec


class ReadyModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that answers.

    Attributes:
        said: lines about it: what it was learned from, how it is batched.
        example: a row that it answers, as JSON; "" where none is known.
        row_seconds: that the cheapest row takes alone.
    """

    name: str
    said: tuple[str, ...]
    example: str
    row_seconds: float = 0.0


class Witness:
    """Is told, and does nothing; who wants to show it makes a class of this."""

    def bound(self, url: str) -> None:
        """The socket is this server's; nothing is loaded yet."""

    def loaded(self, model: str, said: str) -> None:
        """A model is; `said` is a line about it."""

    def learning(self, model: str, doing: str) -> None:
        """What its first engine is at."""

    def ready(self, url: str, models: tuple[ReadyModel, ...]) -> None:
        """All models answer, for the first time."""

    def lost(self, what: str, how: str, *, final: bool) -> None:
        """A process ended as nobody meant it to; another one takes its place, unless `final`."""

    def answers_grpc(self, address: str) -> None:
        """Calls of gRPC are taken there."""

    def changed(self, model: str) -> None:
        """The file of a model: it is loaded anew, while the one of before answers."""

    def delayed(self, model: str, seconds: float) -> None:
        """What is there now is not ready after so long; the one of before goes on."""

    def refused(self, model: str, why: str) -> None:
        """What is there now cannot be served; the one of before goes on."""

    def replaced(self, model: str) -> None:
        """What is there now answers."""

    def draining(self, seconds: float) -> None:
        """What was received whole is answered, for so long at most."""
