"""The Workshop of processes, which may die of what is tried in them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from forwardpass.measuring.memory import available_bytes
from forwardpass.preparing.identity import digest
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.threads import operator_threads
from forwardpass.tuning.contests import Turning, contest
from forwardpass.tuning.messages import (
    BoundRequest,
    ComputeAnswer,
    ComputeRequest,
    LoadAnswer,
    LoadRequest,
    MakeAnswer,
    MakeRequest,
    OpenAnswer,
    OpenRequest,
    Request,
    TurnAnswer,
    TurnRequest,
)  # fmt: skip
from forwardpass.tuning.premises import Premises
from forwardpass.tuning.processes import Kind, Worker
from forwardpass.tuning.stored import read_values, write_values
from forwardpass.tuning.weights import weights_of
from forwardpass.tuning.workshops import (
    SIZING_SECONDS,
    Candidate,
    Outputs,
    PartName,
    Rounds,
    TrialError,
)  # fmt: skip


@dataclass
class Apart(Premises):
    """A Workshop of processes. One makes the plans, since what it loads is the same for all; each
    backend has one that computes them, the Forward as given has its own, and each contender of a
    contest."""

    silent_seconds: float
    memory_bytes: int | None
    _maker: Worker | None = None
    _hands: dict[str, tuple[Worker, Candidate, OpenAnswer]] = field(
        default_factory=dict[str, "tuple[Worker, Candidate, OpenAnswer]"]
    )
    _first: Worker | None = None
    _weights: Path | None = None
    _all: list[Worker] = field(default_factory=list[Worker])

    def loads_the_same(self) -> bool:
        """Whether another process finds this Forward by its reference; weights that are others
        there, since they are drawn or were changed, are brought to it.

        Raises TrialError where it cannot load it.
        """
        wanted = digest(self.parts.forward)
        self._first, loaded = self._loaded()
        if loaded.digest == wanted:
            return True
        self._end(self._first)
        self._weights = self.folder / "weights"
        module = self.parts.forward.model.module
        write_values(self._weights, {n: to_numpy(value) for n, value in weights_of(module)})
        self._first, loaded = self._loaded()
        return loaded.digest == wanted

    def make(self, plan: str) -> Candidate:
        """Make the artefact of a plan."""
        if self._maker is None or self._maker.dead:
            self._maker, _ = self._loaded()
        out = self.place("fwd")
        request = MakeRequest(plan, str(out), str(self.parts.folder))
        made = self._ask(self._maker, request, MakeAnswer)
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
        """Time contenders in turns, each in a process of its own."""
        taken: set[str] = set()
        own: list[Worker] = []
        turning: list[Turning] = []
        try:
            for one in contenders:
                name = one.place
                if fresh or name in taken:
                    worker = self._bound(one)
                    own.append(worker)
                    known = self._ask(worker, self._open(one, sizing_seconds), OpenAnswer)
                else:
                    taken.add(name)
                    worker, known = self._hand(one)
                turning.append(Turning(known, self._turn(worker, part, rows, batch)))
            return contest(turning, rows, batch, seconds=seconds)
        finally:
            for worker in own:
                self._end(worker)

    def end(self) -> None:
        """End all processes."""
        for worker in self._all:
            worker.close()
        self._all.clear()

    def close(self) -> None:
        """End all processes, and remove what they made."""
        self.end()
        super().close()

    def _turn(
        self, worker: Worker, part: PartName, rows: int, batch: int | None
    ) -> Callable[[int, int], TurnAnswer]:
        def turn(first: int, repeats: int) -> TurnAnswer:
            request = TurnRequest(str(self.parts.folder), part, rows, batch, first, repeats)
            return self._ask(worker, request, TurnAnswer)

        return turn

    def computed(
        self, made: Candidate, part: PartName, rows: int
    ) -> tuple[Outputs, dict[int, str]]:
        """Compute the first rows of a part."""
        worker, _ = self._hand(made)
        out = self.place("outputs")
        try:
            request = ComputeRequest(str(self.parts.folder), part, rows, str(out))
            answer = self._ask(worker, request, ComputeAnswer)
            # They are mapped: what is unlinked lasts as long as they do.
            return cast("Outputs", read_values(out)), answer.failed
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _hand(self, made: Candidate) -> tuple[Worker, OpenAnswer]:
        """The process in which a candidate is open."""
        name = made.place
        worker, held, known = self._hands.get(name, (None, None, None))
        if worker is None or worker.dead:
            worker, held = self._bound(made), None
        if held != made or known is None:
            self._hands.pop(name, None)
            try:
                known = self._ask(worker, self._open(made), OpenAnswer)
            except TrialError:
                self._end(worker)
                raise
            self._hands[name] = worker, made, known
        return worker, known

    def _open(self, made: Candidate, sizing_seconds: float = SIZING_SECONDS) -> OpenRequest:
        folder = None if made.folder is None else str(made.folder)
        return OpenRequest(folder, str(self.parts.folder), sizing_seconds)

    def _bound(self, made: Candidate) -> Worker:
        """A new process that can open a candidate."""
        if made.folder is None:
            worker, self._first = self._first, None
            return worker or self._loaded()[0]
        worker = self._started()
        signature = self._signature()
        self._ask(worker, BoundRequest(*signature, self._allowance()), LoadAnswer)
        return worker

    def _loaded(self) -> tuple[Worker, LoadAnswer]:
        """A new process with the Forward."""
        worker, forward = self._started(), self.parts.forward
        assert forward.model.origin is not None
        load = LoadRequest(
            forward.model.origin,
            str(forward.plan),
            forward.model.trust,
            tuple(sys.path),
            None if self._weights is None else str(self._weights),
            *self._signature(),
            operator_threads(),
            self._allowance(),
        )
        try:
            return worker, self._ask(worker, load, LoadAnswer)
        except TrialError:
            self._end(worker)
            raise

    def _signature(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        signature = self.parts.forward.model.signature
        assert signature is not None
        return tuple(map(str, signature.inputs)), tuple(map(str, signature.outputs))

    def _allowance(self) -> int | None:
        """Bytes that a process may map beyond what it has loaded. None where there are devices,
        which reserve addresses by the terabyte."""
        import torch

        if self.memory_bytes is None and not torch.cuda.is_available():
            return available_bytes("cpu")
        return self.memory_bytes

    def _started(self) -> Worker:
        worker = Worker(self.place("log"))
        self._all.append(worker)
        return worker

    def _end(self, worker: Worker) -> None:
        worker.close()
        with suppress(ValueError):
            self._all.remove(worker)

    def _ask(self, worker: Worker, request: Request, kind: type[Kind]) -> Kind:
        return worker.ask(request, kind, until=self.until, silent_seconds=self.silent_seconds)
