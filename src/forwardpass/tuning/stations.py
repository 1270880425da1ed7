"""Station: what makes and computes plans in one process, whichever that is."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from forwardpass.batching.policies import Policy
from forwardpass.building.engines import Engine
from forwardpass.building.opening import sharing_graph
from forwardpass.building.replicas import FullGraph, Replica
from forwardpass.errors import BuildError, LoadError, UsageError, said
from forwardpass.executing.assembling import Assembled, assembled, planned
from forwardpass.executing.batches import Planned, Result
from forwardpass.executing.executors import Executor, executor, out_of_memory
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL, Clock, Took
from forwardpass.measuring.memory import Growth
from forwardpass.nouns.artefacts import GRAPH
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Plan, Step
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.identity import digest
from forwardpass.preparing.preparing import ready
from forwardpass.preparing.recipes import threads_inside
from forwardpass.preparing.sizing import alone, recurring
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.threads import operator_threads, set_operator_threads
from forwardpass.tuning.messages import MakeAnswer, TurnAnswer
from forwardpass.tuning.stored import read_block
from forwardpass.tuning.workshops import (
    SIZING_SECONDS,
    PartName,
    PassingTrialError,
    RefusedTrialError,
    TrialError,
)

_RUN: Final = 16
"""Rows that are neighbours in order of length, of those of a turn: a batch of a long run has about
as many, or more."""


def nothing() -> None:
    """Nobody waits for a sign of life."""


class Runner:
    """A Forward that computes rows as a run does: in batches of its own planning.

    Args:
        forward: as it was loaded: a Forward with a signature, or that of an artefact.
        block: rows by which it is built, and sized where that is not known yet.
        beat: called after each batch.
        sizing_seconds: that finding the best size of a batch may take.

    Attributes:
        seconds: until it could compute. threads: that compute at once, 0 where that is not known.

    Raises what building raises; PassError where it computes none of the rows.
    """

    def __init__(
        self, forward: Forward, block: Block, beat: Callable[[], None], sizing_seconds: float
    ) -> None:
        began = WALL.now()
        encoded = alone(recurring(block))
        replicas: list[Replica] = []

        def kept(engine: Engine) -> Executor:
            replicas.extend(engine.replicas)
            return executor(engine)

        found = ready(forward, [encoded], kept, digest(forward), sizing_seconds=sizing_seconds)
        assert found is not None
        known = found.ready
        self._executor, self._beat = found.executor, beat
        self._policy = Policy(known.may_pad, known.cells, known.costs, None)
        self._ceiling: int | None = None
        self._threads = operator_threads()  # as what computes it has set them
        self.threads = threads_inside(replicas[0].facts) * len(replicas)
        self.seconds = WALL.now() - began
        self._clock = Clock.on(known.device)
        self._device = known.device
        self._growth: Growth | None = Growth(known.device)

    @property
    def peak_bytes(self) -> int:
        """Resident memory of this process at most since it was opened, or since the first turn
        after it gave outputs; on a device, what was allocated there."""
        return 0 if self._growth is None else self._growth.peak_bytes

    def outputs(self, block: Block) -> Assembled:
        """What comes of the rows of a block, in their order. Raises PassError where what it keeps
        across batches changes them."""
        set_operator_threads(self._threads)
        batches = planned(self._policy, block, self._ceiling)
        results = self._results(batches, block)
        self._growth = None
        self._executor.verify()
        return assembled(len(block), batches, results)

    def turn(self, block: Block, *, together: bool, repeats: int) -> Took:
        """What computing all rows takes, the mean of several times; `together`: in one batch, as
        far as they may share one. Raises what a row raised."""
        set_operator_threads(self._threads)  # others that are open here may have their own
        policy = self._policy
        if together:
            policy = Policy(policy.paddable, policy.cells, policy.costs, len(block))

        def once() -> None:
            batches = planned(policy, block, self._ceiling)
            for result in self._results(batches, block):
                for error in result.failures.values():
                    raise error

        def compute() -> None:
            for _ in range(repeats):
                once()

        if self._growth is None:  # what outputs of other rows took does not count
            self._growth = Growth(self._device)
        if repeats > 1:  # threads slept while others had their turns
            once()
        seconds, cpu_seconds = self._clock.took(compute)
        return Took(seconds / repeats, cpu_seconds / repeats)

    def close(self) -> None:
        """Let go of it."""
        self._executor.close()

    def _results(self, batches: list[Planned], block: Block) -> list[Result]:
        positions = np.arange(len(block))
        under_way: deque[Future[Result]] = deque()
        results: list[Result] = []
        for one in batches:
            under_way.append(self._executor.submit(one.batch(block, positions)))
            if len(under_way) > self._executor.workers:
                results.append(under_way.popleft().result())
                self._beat()
        results += [future.result() for future in under_way]
        for result in results:
            self._ceiling = result.lowered(self._ceiling)
        return results


class Station:
    """Makes plans of a Forward, and computes them on parts that lie on disk. What differs in how a
    graph is opened is not lowered and fitted again; what is quantized begins with the graph as
    it was written in full precision.

    Args:
        forward: None where artefacts alone are opened.
        signature: of the parts.
    """

    def __init__(
        self, forward: Forward | None, signature: Signature, beat: Callable[[], None] = nothing
    ) -> None:
        self._forward, self._signature, self._beat = forward, signature, beat
        self._blocks: dict[tuple[str, PartName], Block] = {}
        self._runners: dict[str | None, Runner] = {}
        self._graphs: dict[tuple[str, str], tuple[Path, float]] = {}
        self._full: dict[tuple[str, tuple[Step, ...], str], FullGraph] = {}

    def make(self, plan: str, out: Path, parts: str) -> MakeAnswer:
        """Make the artefact of a plan. Raises what `export` raises."""
        # artefacts open without what these need
        from forwardpass.exporting.writing import exported, reopened

        assert self._forward is not None
        began = WALL.now()
        planned = Forward(self._forward.model, Plan.parse(plan))
        block, shared = self._block(parts, "calibration"), (parts, str(sharing_graph(planned.plan)))
        made, seconds = self._graphs.get(shared, (None, 0.0))
        if made is not None and made.exists():
            artefact = reopened(planned, block, made, out, sizing_seconds=SIZING_SECONDS)
        else:
            key = (parts, planned.plan.steps, planned.plan.backend.name)
            full = self._full.get(key)
            if full is not None and not full.folder.exists():
                full = None
            artefact = exported(planned, block, out, sizing_seconds=SIZING_SECONDS, graph=full)
            seconds = 0.0
            if artefact.lowered.quantized is None:
                self._full[key] = FullGraph(out / GRAPH, artefact.lowered.route)
        seconds += WALL.now() - began  # what the graph took is what this plan takes, too
        self._graphs[shared] = out, seconds
        return MakeAnswer(
            seconds,
            sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
            artefact.trust,
            tuple(f"{done.step}: {done.did}" for done in artefact.steps),
        )

    def open(
        self, folder: str | None, parts: str, sizing_seconds: float = SIZING_SECONDS
    ) -> Runner:
        """What computes an artefact, or the Forward itself; once opened it stays so."""
        if folder not in self._runners:
            forward = self._forward if folder is None else load(Path(folder), trust="native")
            assert forward is not None
            block = self._block(parts, "search")
            self._runners[folder] = Runner(forward, block, self._beat, sizing_seconds)
        return self._runners[folder]

    def outputs(
        self, folder: str | None, parts: str, part: PartName, rows: int
    ) -> tuple[Assembled, Mapping[int, str]]:
        """What comes of the first rows of a part; and of those that failed, why."""
        made = self.open(folder, parts).outputs(self._block(parts, part).take(slice(0, rows)))
        return made, {row: said(error) for row, error in made.failures.items()}

    def turn(
        self, folder: str | None, parts: str, part: PartName, rows: int,
        batch: int | None, first: int, repeats: int,
    ) -> TurnAnswer:  # fmt: skip
        """What computing so many rows of a part takes, or one batch of the first of them."""
        whole = self._block(parts, part)
        if batch is None:
            block = whole.take(neighbours(whole, rows))
        else:
            block = whole.take(np.arange(first, first + batch) % min(rows, len(whole)))
        runner = self.open(folder, parts)
        took = runner.turn(block, together=batch is not None, repeats=repeats)
        return TurnAnswer(took.seconds, took.cpu_seconds, runner.peak_bytes)

    def close(self, folder: str | None) -> None:
        """Let go of what was opened."""
        runner = self._runners.pop(folder, None)
        if runner is not None:
            runner.close()

    def close_all(self) -> None:
        """Let go of all that was opened."""
        for folder in reversed(list(self._runners)):  # each puts back what it found
            self.close(folder)

    def _block(self, parts: str, part: PartName) -> Block:
        known = self._blocks.get((parts, part))
        if known is None:
            known = read_block(Path(parts) / part, self._signature)
            self._blocks[parts, part] = known
        return known


def neighbours(block: Block, rows: int) -> NDArray[np.intp]:
    """So many rows, or all, as a long run batches them: neighbours in order of length, in runs that
    are spread evenly over that order. The first rows of a block are of all lengths, and would be
    cut into small batches, or padded ones, that no run computes."""
    rows = min(rows, len(block))
    order = np.argsort(block.sizes.prod(axis=1), kind="stable")
    runs = max(1, rows // _RUN)
    spans, places = np.array_split(order, runs), np.array_split(np.arange(rows), runs)
    return np.concatenate(
        [
            span[(len(span) - len(own)) // 2 :][: len(own)]
            for span, own in zip(spans, places, strict=True)
        ]
    )


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether that is why, of an error or of what it came of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def failure(error: BaseException, *, making: bool = False) -> TrialError:
    """An exception of a trial as its failure; while it was made, a refusal is one."""
    if isinstance(error, TrialError):
        return error
    own = isinstance(error, Exception) and type(error).__module__ == "forwardpass.errors"
    text = str(error) if own else said(error)
    if out_of_memory(error) or (own and out_of_memory(RuntimeError(text))):
        return TrialError(f"memory ran out: {text}")
    if _disk_is_full(error):
        return PassingTrialError(f"the disk is full: {text}")
    if making and isinstance(error, BuildError | UsageError | LoadError):
        return RefusedTrialError(text)
    return TrialError(text)
