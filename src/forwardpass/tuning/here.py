"""The Workshop of this process, for a Forward that no other can load."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from forwardpass.errors import contained
from forwardpass.tensors.arrays import Values, to_numpy
from forwardpass.tuning.contests import Turning, contest
from forwardpass.tuning.messages import OpenAnswer, TurnAnswer
from forwardpass.tuning.premises import Premises
from forwardpass.tuning.stations import Station, failure
from forwardpass.tuning.workshops import SIZING_SECONDS, Candidate, Outputs, PartName, Rounds


@dataclass
class Here(Premises):
    """The same in this process, which nothing protects: for a Forward that no other can load."""

    _station: Station = field(init=False)
    _open: dict[str | None, str] = field(default_factory=dict[str | None, str])

    def __post_init__(self) -> None:
        signature = self.parts.forward.model.signature
        assert signature is not None
        self._station = Station(self.parts.forward, signature)

    def make(self, plan: str) -> Candidate:
        """Make the artefact of a plan."""
        out = self.place("fwd")
        with _trying(making=True):
            made = self._station.make(plan, out, str(self.parts.folder))
        return Candidate(plan, out, made.seconds, made.bytes, made.trust, made.did)

    def contest(
        self,
        contenders: Sequence[Candidate],
        part: PartName,
        rows: int,
        *,
        batch: int | None = None,
        seconds: float,
        fresh: bool = False,
        sizing_seconds: float = SIZING_SECONDS,
    ) -> list[Rounds]:
        """Time contenders in turns, all in this process; `fresh`: opened anew."""
        parts = str(self.parts.folder)
        with _trying():
            self._make_room(contenders)
            turning: list[Turning] = []
            for one in contenders:
                name = _folder(one)
                if fresh:
                    self._station.close(name)
                runner = self._station.open(name, parts, sizing_seconds)

                def turn(first: int, repeats: int, name: str | None = name) -> TurnAnswer:
                    return self._station.turn(name, parts, part, rows, batch, first, repeats)

                turning.append(Turning(OpenAnswer(runner.seconds, runner.threads), turn))
            return contest(turning, rows, batch, seconds=seconds)

    def close(self) -> None:
        """Let go of what is open, and remove what was made."""
        self._station.close_all()
        super().close()

    def computed(
        self, made: Candidate, part: PartName, rows: int
    ) -> tuple[Outputs, dict[int, str]]:
        """Compute the first rows of a part."""
        with _trying():
            self._make_room([made])
            found, failed = self._station.outputs(_folder(made), str(self.parts.folder), part, rows)
        return {name: _plain(values) for name, values in found.outputs.items()}, dict(failed)

    def _make_room(self, wanted: Sequence[Candidate]) -> None:
        """Let go of what is open of the same backends and is not wanted: all of it has weights of
        its own."""
        kept, places = {_folder(one) for one in wanted}, {one.place for one in wanted}
        for folder, place in list(self._open.items()):
            if place in places and folder not in kept:
                self._station.close(folder)
                del self._open[folder]
        self._open.update((_folder(one), one.place) for one in wanted)


def _plain(values: Values) -> Values:
    return [to_numpy(row) for row in values] if isinstance(values, list) else to_numpy(values)


def _folder(made: Candidate) -> str | None:
    return None if made.folder is None else str(made.folder)


@contextmanager
def _trying(*, making: bool = False) -> Generator[None]:
    """Within, what is raised is the failure of a trial, but the KeyboardInterrupt of who stops."""
    try:
        with contained():
            yield
    except Exception as error:
        raise failure(error, making=making) from error
