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
    """

    identity: str
    trial: Trial


class Ledger:
    """The file in the work folder.

    Attributes:
        known: the trials of the same tuning, by plan.
        refused: why trials could not be written, in a sentence; empty if they were.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        """Raises DataError where the folder cannot be made or written."""
        self._path, self._identity = folder / TRIALS, identity
        self.known: dict[str, Trial] = {}
        self.refused: tuple[str, ...] = ()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            length = 0
            for line in self._path.read_bytes().splitlines(keepends=True) if self._there() else ():
                if not line.endswith(b"\n"):
                    break  # it was cut off while it was written
                length += len(line)
                self._learn(line)
            truncated(self._path, length)
            appended(self._path, b"")
        except OSError as error:
            raise DataError(
                f"{folder}: trials cannot be written there: {error.strerror or error}; give -o in "
                "a folder that can be written"
            ) from error

    def write(self, trial: Trial) -> None:
        """Keep a trial. Where the disk refuses, it is known in this call alone: see `refused`."""
        self.known[trial.plan] = trial
        line = msgspec.json.encode(TrialLine(self._identity, trial)) + b"\n"
        try:
            appended(self._path, line)
        except OSError as error:
            self.refused = (
                f"{self._path} could not be written to the end: {error.strerror or error}; another "
                "call tries again what is not there",
            )

    def _there(self) -> bool:
        return self._path.is_file()

    def _learn(self, line: bytes) -> None:
        try:
            found = msgspec.json.decode(line, type=TrialLine)
        except msgspec.DecodeError:
            return  # of another edition
        if found.identity == self._identity:
            self.known[found.trial.plan] = found.trial
