"""Ledger: trials as lines of JSON, so that a tuning that was stopped goes on where it was."""

from __future__ import annotations

from pathlib import Path

import msgspec

from forwardpass.durable import appended, truncated
from forwardpass.errors import DataError
from forwardpass.nouns.tunings import Trial

TRIALS = "trials.jsonl"


class TrialLine(msgspec.Struct, frozen=True):
    """What is known of a plan after a stage of its trial; the last line of a plan counts.

    Attributes:
        identity: of the tuning: its Forward, data, budget, goal and machine.
        premises: what else its verdicts hang on: the rows of each part, functions of the user's.
        trial: None on the first line of a tuning, which says that it began.
    """

    identity: str
    premises: tuple[str, ...] = ()
    trial: Trial | None = None


class Ledger:
    """The file in the work folder.

    Args:
        identity, premises: see `TrialLine`.

    Attributes:
        known: the trials of the same tuning on the same premises, by plan.
        refused: why trials could not be written, in a sentence; empty if they were.
    """

    def __init__(self, folder: Path, identity: str, premises: tuple[str, ...] = ()) -> None:
        """Raises DataError where the folder cannot be made or written."""
        self._path, self._identity, self._premises = folder / TRIALS, identity, premises
        self.known: dict[str, Trial] = {}
        self.refused: tuple[str, ...] = ()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = _whole(self._path)
            truncated(self._path, sum(map(len, there)))
            own = [line for line in map(_read, there) if line and line.identity == identity]
            if not own:
                appended(self._path, _written(TrialLine(identity, premises)))
            for line in own:
                if line.trial is not None and line.premises == premises:
                    self.known[line.trial.plan] = line.trial
        except OSError as error:
            raise DataError(
                f"{folder}: trials cannot be written there: {error.strerror or error}; give -o in "
                "a folder that can be written"
            ) from error

    def write(self, trial: Trial) -> None:
        """Keep a trial. Where the disk refuses, it is known in this call alone: see `refused`."""
        self.known[trial.plan] = trial
        try:
            appended(self._path, _written(TrialLine(self._identity, self._premises, trial)))
        except OSError as error:
            self.refused = (
                f"{self._path} could not be written to the end: {error.strerror or error}; another "
                "call tries again what is not there",
            )


def begun(folder: Path, identity: str) -> bool:
    """Whether a tuning was begun there, however far it came."""
    lines = map(_read, _whole(folder / TRIALS))
    return any(line is not None and line.identity == identity for line in lines)


def _whole(path: Path) -> list[bytes]:
    """The lines of a file, but for a last one that was cut off while it was written."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith(b"\n")]


def _read(line: bytes) -> TrialLine | None:
    try:
        return msgspec.json.decode(line, type=TrialLine)
    except msgspec.DecodeError:
        return None  # of another edition


def _written(line: TrialLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"
