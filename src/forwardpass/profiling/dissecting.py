"""Dissecting: a pass timed as a whole, and call by call, in passes that take turns."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from statistics import median
from typing import Any, NamedTuple

import torch

from forwardpass.errors import PassError, contained, said
from forwardpass.measuring.clocks import WALL, Clock
from forwardpass.measuring.stretches import Stretches
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.recording.arguments import copied
from forwardpass.recording.interception import Interception, aside
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import Recording
from forwardpass.recording.schemas import Schema, flattened
from forwardpass.recording.walking import Walk
from forwardpass.tensors.trees import flatten

_MOST_ROUNDS = 100
"""Of one visit."""
_STAGED_SECONDS = 0.1
"""How long passes follow each other that leave nothing behind, before the world is put back: the
first one after that has cold caches."""
_STAGES = 4.0
"""How many times as long as the staging took: of thousands of modules it takes longer than a
pass."""
_MOST_HELD_SECONDS = 0.5
_CALLS = 200
"""Of an operator that does nothing; the first half warms up."""


class Dissection(NamedTuple):
    """Seconds by round.

    Attributes:
        whole: of two plain passes.
        timed: of the pass that was taken apart, with all that taking apart adds to it.
        calls: of each operator of the record, in its order.
        why: passes could not be taken apart; then there are no calls.
    """

    whole: list[tuple[float, float]]
    timed: list[float]
    calls: list[list[float]]
    why: str


class Timed(Walk):
    """Times each call of a record while its pass runs again.

    A dispatch mode hands over every operator that the record has, so that seconds and calls cannot
    be mistaken for each other. What the mode itself costs lies outside of the calls, but for what
    an operator takes longer that is called from Python's side of the dispatcher: that was measured
    on one that does next to nothing, and is taken off each call. A CUDA device is held for as long
    as the calls of the round before took to be made, so that none waits for Python.

    What PyTorch's profiler costs lies inside, with each operator that an operator is made of: on a
    chain of small operators it took 1.4 × what the pass takes, and the calls in this walk 0.9 ×.
    """

    def __init__(self, record: Record, device: str) -> None:
        super().__init__(record)
        self._clock = Clock.on(device)
        self._stretches = Stretches(device)
        self._handing_seconds = _handing_seconds(device)
        self._calling_seconds = 0.0
        self.strayed = ""

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return self._stretches.run(func, args, kwargs)

    def strays(self, call: Call | None, schema: Schema) -> None:
        self.strayed = f"{schema.name} ran in place of {_placed(self.record, call)}"

    def seconds(self, make: Callable[[], object]) -> tuple[float, list[float]]:
        """Of the pass that `make` makes, and of each of its calls."""
        self.again()

        def called() -> None:
            self._stretches.hold(min(self._calling_seconds, _MOST_HELD_SECONDS))
            began = WALL.now()
            make()
            self._calling_seconds = WALL.now() - began

        with self:
            took = self._clock.seconds(called)
        if not self.parted and self.next is not None:
            self.parted = True
            self.strayed = f"it ended before {_placed(self.record, self.next)}"
        handing = self._handing_seconds
        return took, [max(0.0, seconds - handing) for seconds in self._stretches.taken()]


class _Handing(Interception):
    """Times operators as `Timed` does, of no record."""

    def __init__(self, stretches: Stretches) -> None:
        super().__init__()
        self._stretches = stretches

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return self._stretches.run(func, args, kwargs)


def _handing_seconds(device: str) -> float:
    """How much longer an operator takes that a dispatch mode hands over."""
    stretches = Stretches(device)
    with aside(), torch.inference_mode():
        one = torch.zeros(1, device=device)
        for _ in range(_CALLS):
            stretches.run(torch.relu, (one,), {})
        plain = stretches.taken()
        with _Handing(stretches):
            for _ in range(_CALLS):
                torch.relu(one)
        handed = stretches.taken()
    return max(0.0, median(handed[_CALLS // 2 :]) - median(plain[_CALLS // 2 :]))


class _Orphans(Walk):
    """Keeps the tensors that nothing was seen to make, where calls read them."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.read: dict[int, torch.Tensor] = {}
        """By serial; kept, so that nobody else gets their memory."""

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        found: list[torch.Tensor] = []
        flattened((args, kwargs), found)
        for serial, tensor in zip(call.inputs, found, strict=False):
            if self.record.values[serial].origin == "unknown":
                self.read[serial] = tensor
        return func(*args, **kwargs)


class Dissecting:
    """A pass that is timed as a whole, and call by call, in visits.

    Between two visits time passes in which something else is timed: how quick a machine is lasts,
    and passes that follow each other say of one moment what they took. `record` is of this pass,
    or says why there is none: then only whole passes are timed.
    """

    def __init__(self, this: Pass, record: Recording | str, device: str) -> None:
        self._this, self._record, self._device = this, record, device
        self._done = Dissection([], [], [], record if isinstance(record, str) else "")

    @property
    def done(self) -> Dissection:
        """What was found."""
        done = self._done
        return Dissection(done.whole, [], [], done.why) if done.why else done

    def visit(self, seconds: float, warm: bool = True) -> None:
        """Rounds of a plain pass, one taken apart, and a plain one, for about so long; at least
        one. With `warm` there is a pass before them, which still has to find its memory. Raises
        PassError where the module raises."""
        done, clock, record = self._done, Clock.on(self._device), self._record
        timed = None if done.why or isinstance(record, str) else Timed(record, self._device)
        with closing(_passes(self._this, record)) as passes:
            if warm:
                next(passes)()
            began, rounds = WALL.now(), 0
            while not rounds or (rounds < _MOST_ROUNDS and WALL.now() - began < seconds):
                first = clock.seconds(next(passes))
                if timed is not None:
                    took, calls = timed.seconds(next(passes))
                    done.timed.append(took)
                    done.calls.append(calls)
                    if timed.parted:
                        why = f"a later pass went another way: {timed.strayed}"
                        self._done = done = done._replace(why=why)
                        timed = None
                done.whole.append((first, clock.seconds(next(passes))))
                rounds += 1


def unseen_work(this: Pass, record: Recording) -> str:
    """Whether something that was not seen computes in this pass, in a sentence; "" if not.

    A tensor that no call was seen to make stood there before, or it was made in another thread, or
    past PyTorch's dispatcher: then two passes do not find it in the same memory.
    """
    found = [each for each in record.unseen if each.what == "origin"]
    if not found:
        return ""
    one, other = _Orphans(record), _Orphans(record)
    with closing(_passes(this, record)) as passes:
        for walk in (one, other):
            make = next(passes)
            with walk:
                came = flatten(make())
            walk.read |= {
                record.outputs[path]: came[path] for path in came if path in record.outputs
            }
    for each in found:
        among = record.outputs.values() if each.call < 0 else record.calls[each.call].inputs
        orphans = [serial for serial in among if record.values[serial].origin == "unknown"]
        if not all(_same(one.read.get(serial), other.read.get(serial)) for serial in orphans):
            return (
                f"{each.said}, and each pass makes it anew, in another thread or by code that is "
                "not PyTorch's"
            )
    return ""


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and (one is other or _place(one) == _place(other))


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _passes(this: Pass, record: Recording | str) -> Generator[Callable[[], object]]:
    """What makes one pass each, in turn, staged while the one who asked holds it.

    Passes that leave nothing behind follow each other within one stage, each with inputs of its
    own. All others are staged one by one.
    """
    if isinstance(record, str):
        contents = alone = True
    else:
        contents = _writes(record)
        draws = any(call.kind == "random" for call in record.calls)
        alone = contents or draws or bool(record.changes)

    def makes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], object]:
        def make() -> object:
            try:
                with contained():
                    return this.module(*args, **kwargs)
            except Exception as error:
                raise PassError(f"the pass raised {said(error)}") from error

        return make

    while True:
        asked = WALL.now()
        with this.staged(contents=contents) as (_, args, kwargs):
            began = WALL.now()
            enough = max(_STAGED_SECONDS, _STAGES * (began - asked))
            yield makes(args, kwargs)
            while not alone and WALL.now() - began < enough:
                yield makes(*copied((this.arguments, this.keywords)))


def _writes(record: Record) -> bool:
    """Whether the pass writes what was there before it, its inputs aside."""
    outside = {
        v.storage for v in record.values
        if v.producer < 0 and v.storage >= 0 and v.origin not in ("input", "constant")
    }  # fmt: skip
    return any(outside.intersection(call.writes) for call in record.calls)


def _placed(record: Record, call: Call | None) -> str:
    if call is None:
        return "the end"
    return f"{call.name or call.short} at {record.site(call)}"
