"""Contender: a Forward that is built, and the rows it is profiled with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch

from forwardpass.building.arrays import ArrayReplica
from forwardpass.building.backends.eager import EagerReplica
from forwardpass.building.engines import Engine
from forwardpass.building.opening import one_at_a_time
from forwardpass.building.replicas import Inputs
from forwardpass.errors import PassError, UsageError
from forwardpass.executing.executors import executor
from forwardpass.measuring.clocks import Clock, Took, waits
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Argument
from forwardpass.preparing.identity import digest
from forwardpass.preparing.preparing import built, learned
from forwardpass.preparing.recipes import Ready
from forwardpass.profiling.arguments import bound
from forwardpass.profiling.loads import Load
from forwardpass.recording.passes import Grad
from forwardpass.tensors.arrays import Array, copied
from forwardpass.tensors.distances import apart
from forwardpass.tensors.modules import parameters_of
from forwardpass.tensors.threads import operator_threads, set_operator_threads
from forwardpass.tensors.trees import flatten


class Preparation(NamedTuple):
    """What a run learns before its first row.

    Attributes:
        ready: all but the costs; None where the outputs cannot be told.
        identity: what costs belong to.
        why: there is none, in a sentence.
    """

    ready: Ready | None
    identity: dict[str, Any]
    why: str = ""


@dataclass(frozen=True)
class Contender:
    """One of the Forwards that are profiled side by side.

    Attributes:
        load: its rows. engine: what computes them.
        sha256: the digest of the Forward, from before a row was encoded.
    """

    load: Load
    engine: Engine
    sha256: str

    @classmethod
    def of(cls, forward: Forward, inputs: Any, limit: int) -> Contender:
        """Build a Forward by its rows; see `Load.of`. Batches are timed one at a time."""
        forward, inputs = bound(forward, inputs)
        forward = Forward(forward.model, one_at_a_time(forward.plan))
        sha256 = digest(forward)
        load = Load.of(forward, inputs, limit)
        return cls(load, built(load.forward, load.rows), sha256)

    @property
    def clock(self) -> Clock:
        """The one that waits for its device."""
        return Clock.on(self.device)

    @property
    def device(self) -> str:
        """Where it computes, as text."""
        return self.engine.replicas[0].facts.device

    def trusted(self, took: Took, threads: int) -> float:
        """Seconds by the CPU's clock where one thread of a CPU computes and waits for nothing: what
        else runs on the machine adds nothing to those. By the wall clock elsewhere, and where the
        CPU's did not move: some systems let it stand for a while."""
        alone = threads == 1 and self.device == "cpu" and not self.waits
        return (took.cpu_seconds if alone else 0.0) or took.seconds

    @cached_property
    def waits(self) -> bool:
        """Whether it gives its core away of itself, as far as one row tells."""
        call = self.call(1)
        try:
            call()
            return waits(call)
        except Exception:  # noqa: BLE001 - a model that refuses one row may wait, for all we know
            return True

    @cached_property
    def prepared(self) -> Preparation:
        """As `run` learns it: the outputs, and whether rows may be padded."""
        model = self.load.forward.model
        with closing(executor(self.engine)) as running:
            try:
                _, ready, identity = learned(
                    self.engine, model, running, self.load.rows, self.sha256
                )
            except (UsageError, PassError) as error:
                return Preparation(None, {}, str(error))
        return Preparation(ready, identity)

    def call(
        self, rows: int, sizes: Mapping[str, int] | None = None, first: int = 0
    ) -> Callable[[], Any]:
        """What computes one batch of so many rows each time; see `Load.batch` and `calling`."""
        return self.calling(self.load.batch(rows, sizes, first))

    def calling(self, inputs: Inputs) -> Callable[[], Any]:
        """What computes a batch each time, and gives its outputs: from host memory, and back there.

        The numbers are the same each time: what the model writes into its inputs is found after the
        first call, and put back before the others.
        """
        replica = self.engine.replicas[0]
        begun: dict[str, Array] | None = None

        def compute() -> Any:
            nonlocal begun
            arrays = _arrays(inputs) if begun is None or begun else {}
            if begun is None:
                before = {path: copied(value) for path, value in arrays.items()}
                outputs = replica.fetch(replica.compute(replica.stage(inputs)))
                begun = {path: v for path, v in before.items() if apart(arrays[path], v)}
                return outputs
            for path, value in begun.items():
                _put(arrays[path], value)
            return replica.fetch(replica.compute(replica.stage(inputs)))

        return compute

    def with_threads(self, count: int) -> Contender:
        """The same where `count` threads can be set around a call; where a library has threads of
        its own, one that was built anew with so many."""
        if not isinstance(self.engine.replicas[0], ArrayReplica):
            return self
        plan = self.load.forward.plan
        others = (one for one in plan.backend.arguments if one.name != "threads")
        backend = msgspec.structs.replace(
            plan.backend, arguments=(*others, Argument(str(count), "threads"))
        )
        plan = msgspec.structs.replace(plan, backend=backend)
        forward = Forward(self.load.forward.model, plan)
        load = Load(forward, self.load.rows, self.load.real)
        return Contender(load, built(forward, load.rows), self.sha256)

    @contextmanager
    def threads(self, count: int | None = None) -> Generator[int]:
        """Compute with `count` threads inside an operator, else with those of the plan; yields how
        many there are, 0 where that is not known. What was set before holds again afterwards."""
        replica = self.engine.replicas[0]
        before = operator_threads()
        set_operator_threads(count or replica.facts.threads)
        try:
            own = isinstance(replica, ArrayReplica)
            yield (replica.facts.threads if own else operator_threads()) or 0
        finally:
            set_operator_threads(before)

    @contextmanager
    def learning(self, grad: Grad) -> Generator[None]:
        """Where `grad` is "on", those parameters of the module that computes need gradients that
        do so in the user's: the copy that an engine holds needs none, and would keep nothing for a
        backward pass."""
        replica, given = self.engine.replicas[0], self.load.forward.model.module
        module = replica.module if grad == "on" and isinstance(replica, EagerReplica) else None
        own = parameters_of(module) if module is not None else ()
        wanted = {path for path, one in parameters_of(given) if one.requires_grad}
        waked = [one for path, one in own if path in wanted and not one.requires_grad]
        try:
            for one in waked:
                one.requires_grad_(True)
            yield
        finally:
            for one in waked:
                one.requires_grad_(False)


def _arrays(inputs: Inputs) -> dict[str, Array]:
    """The arrays and tensors of a batch, by path; memory is shared."""
    found: dict[str, Array] = {}
    if isinstance(inputs, tuple):
        found.update(flatten({"args": inputs.args, "kwargs": inputs.kwargs}))
    else:
        found.update(inputs)
    return found


def _put(there: Array, value: Array) -> None:
    """Write these numbers into that memory."""
    if isinstance(there, np.ndarray):
        np.copyto(there, value)
    else:
        with torch.no_grad():
            there.copy_(torch.as_tensor(value))
