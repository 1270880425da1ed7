"""ClusterWorker: a process of a cluster that encodes and computes, with an engine of its own."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from forwardpass.errors import LoadError
from forwardpass.executing.batches import Batch, Early, Result
from forwardpass.executing.encoding import EncodedRows, Encoder, Encodings
from forwardpass.executing.executors import Executor
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.measuring.machines import machine
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.programs import Trust
from forwardpass.nouns.progress import Progress
from forwardpass.nouns.rows import Rows
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.identity import digest
from forwardpass.preparing.limit_shares import MacTable
from forwardpass.preparing.recipes import Ready
from forwardpass.running.options import Options
from forwardpass.running.venues import Assignment, EngineReport, LocalVenue
from forwardpass.scaling.sent import Encoded, sent_result
from forwardpass.tensors.threads import set_operator_threads


class Recipe(NamedTuple):
    """What a worker loads, and how; it holds no module.

    Attributes:
        origin: the reference of the model. plan: the text of the Plan.
        trust: the most that opening it may execute.
        given: the signature that `sha256` is of, the digest of the Forward.
        signature: the one that rows are encoded for; None where the model has a collate.
        path, folder: where modules are looked for, and references begin.
        threads: inside an operator.
    """

    origin: str
    plan: str
    trust: Trust
    sha256: str
    given: Signature | None
    signature: Signature | None
    options: Options
    path: tuple[str, ...]
    folder: str
    threads: int


class WorkerPlace(NamedTuple):
    """Where a worker is, and, once it can compute, with what; see Ready."""

    node: str
    machine: Machine
    device: str = ""
    build_seconds: float = 0.0


class FirstLook(NamedTuple):
    """What a worker found out before the first row; see `preparing.Prepared`."""

    ready: Ready
    early: tuple[Early, ...]
    seconds: float
    costs: str
    build_seconds: float


class ClusterWorker:
    """Encodes and computes, one call of each after the other."""

    def __init__(self) -> None:
        self._recipe: Recipe | None = None
        self._forward: Forward | None = None
        self._venue: LocalVenue | None = None
        self._encoder: Encoder | None = None
        self._executor: Executor | None = None
        self._place = WorkerPlace(socket.gethostname(), machine())
        self._wants: Queue[bool] = Queue()
        self._fed: Queue[EncodedRows | None] = Queue()

    @property
    def has_begun(self) -> bool:
        """Whether the model is there."""
        return self._forward is not None

    def place(self) -> WorkerPlace:
        """Where this is."""
        return self._place

    def begin(self, recipe: Recipe, block: Encodings | None) -> WorkerPlace:
        """Load the model; with a block, build what computes, by the example of its rows. What
        stands already stays. Raises LoadError where another model is found here."""
        if self._forward is None:
            set_operator_threads(recipe.threads)
            self._forward = _loaded(recipe)
        if recipe.signature is not None and recipe.signature != self._forward.model.signature:
            model = self._forward.model.with_signature(recipe.signature)
            self._forward = Forward(model, self._forward.plan)
        self._recipe = recipe
        if self._encoder is None:
            self._encoder = Encoder(self._forward.model, recipe.options.columns)
            assignment = Assignment(
                self._forward, recipe.sha256, recipe.options, Progress(), marks=None
            )
            self._venue = LocalVenue(assignment)
        if block is not None and self._executor is None:
            assert self._venue is not None
            standing = self._venue.computing(self._forward, block)
            self._executor = standing.executor
            self._place = WorkerPlace(
                self._place.node, standing.machine, standing.device, self._venue.build_seconds
            )
        return self._place

    def encode(self, blocks: Sequence[Rows]) -> list[Encoded]:
        """Each block of rows, encoded."""
        assert self._encoder is not None
        assert self._recipe is not None
        done: list[Encoded] = []
        for rows in blocks:
            with Stopwatch() as stopwatch:
                encoded = self._encoder(rows).keeping(self._recipe.options.kept)
            done.append((encoded, stopwatch.seconds))
        return done

    def prepare(self, expected: int | None) -> FirstLook | None:
        """Learn from the first blocks, which it wants one by one, and is fed."""
        try:
            assert self._venue is not None
            assert self._forward is not None
            found = self._venue.prepared(self._forward, self._asked(), expected)
            if found is None:
                return None
            self._executor = found.executor
            built = self._venue.build_seconds
            known = found.ready
            self._place = WorkerPlace(self._place.node, known.machine, known.device, built)
            early = tuple(
                Early(one.positions, None if one.result is None else sent_result(one.result))
                for one in found.early
            )
            return FirstLook(known, early, found.seconds, found.costs, built)
        finally:
            self._wants.put(False)

    def _asked(self) -> Iterator[EncodedRows]:
        while True:
            self._wants.put(True)
            block = self._fed.get()
            if block is None:
                return
            yield block

    def wants(self) -> bool:
        """Waits until `prepare` wants one more block: whether it does, or is over."""
        return self._wants.get()

    def feed(self, block: EncodedRows | None) -> None:
        """The block that is wanted; None: there are no more."""
        self._fed.put(block)

    def compute(self, batches: Sequence[Batch]) -> list[Result]:
        """What comes of each batch. Raises PassError where one may depend on those before it."""
        assert self._executor is not None
        made = [sent_result(self._executor.submit(batch).result()) for batch in batches]
        self._executor.verify()
        return made

    def mac_table(self, block: Encodings, ready: Ready) -> MacTable:
        """The macs of a few rows of `block`."""
        assert self._venue is not None
        return self._venue.mac_table(block, ready)

    def told(self, macs: float, seconds: float) -> EngineReport:
        """What the report says of its engine."""
        assert self._venue is not None
        return self._venue.told(macs, seconds)


def _loaded(recipe: Recipe) -> Forward:
    """The Forward, found as the driver found it."""
    sys.path.extend(entry for entry in recipe.path if entry not in sys.path)
    if Path(recipe.folder).is_dir():
        os.chdir(recipe.folder)
    from forwardpass.loading import load

    model = load(recipe.origin, trust=recipe.trust).model
    if recipe.given is not None and model.signature != recipe.given:
        model = model.with_signature(recipe.given)
    forward = Forward(model, Plan.parse(recipe.plan))
    found = digest(forward)
    if found != recipe.sha256:
        raise LoadError(
            f"{recipe.origin} is another model on {socket.gethostname()}: its digest is "
            f"{found[:16]} there and {recipe.sha256[:16]} here. Weights, code and signature must "
            "be the same on every machine: give an artefact (fwd export), or a path that all share"
        )
    return forward
