"""Before it is ready: a Forward, loaded, becomes what computes, warm, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import msgspec

from forwardpass.batching.rounding import steps
from forwardpass.building.engines import Engine
from forwardpass.errors import DataError
from forwardpass.executing import executors
from forwardpass.executing.encoding import Encodings
from forwardpass.executing.executors import Executor
from forwardpass.measuring.spans import duration
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.signatures import Output
from forwardpass.preparing.identity import digest
from forwardpass.preparing.laddering import laddered, warmed
from forwardpass.preparing.mates import MatesProof, mates
from forwardpass.preparing.preparing import built
from forwardpass.preparing.preparing import ready as prepare
from forwardpass.preparing.recipes import Ready, costs_key, machine_of
from forwardpass.preparing.sizing import alone
from forwardpass.serving.messages import About
from forwardpass.serving.samples import Samples, samples_of
from forwardpass.serving.teams import settle_threads
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.distances import tolerance
from forwardpass.tensors.threads import operator_threads, set_operator_threads

_KEPT: Final = "ready.json"
_LEARN_SECONDS: Final = 10.0
_WARM_SECONDS: Final = 0.1
_PER_OCTAVE: Final = 8
"""Sizes between a power of two and the next to which rows are padded where a new shape is dear."""
_DEAR: Final = 16
"""So many of it cost as much as the best batch, or fewer: rows are padded by one part of so many
on average."""
_WAIT_SECONDS: Final = 0.2
"""From one look at whether another model is still timed to the next."""


class Learnt(msgspec.Struct, frozen=True):
    """What is kept for the next engine.

    Attributes:
        encode_seconds: of one row, as the samples were encoded.
    """

    ready: Ready
    mates: MatesProof
    encode_seconds: float


class Warmed(NamedTuple):
    """What answers.

    Attributes:
        engine: that was built. executor: computes on it; the caller closes it.
        ready: what is known of it. about: the same, for the HTTP process.
        said: lines for who started it.
    """

    engine: Engine
    executor: Executor
    ready: Ready
    about: About
    said: tuple[str, ...]


def learned(
    forward: Forward,
    data: str | None,
    folder: Path | None,
    *,
    lock: Path | None = None,
    executor: Callable[[Engine], Executor] = executors.executor,
    say: Callable[[str], None] = lambda doing: None,
    seconds: float = _LEARN_SECONDS,
    sha256: str | None = None,
) -> Warmed:
    """Build a Forward, learn outputs, padding and costs, and compute the sizes that will come.

    Operators compute in as many threads as the plan says; else in as many as pay, of those that
    they have when this is called.

    Args:
        data: a reference to rows such as will come, as `run` reads them; None: see `samples_of`.
        folder: where what was learned is left, for the next engine of this model, and found.
        lock: a file that is locked by whoever learns; who has the same one learns afterwards.
        executor: makes what computes.
        say: is told what is under way, in a few words.
        seconds: for timing batches, about; all else takes what it takes.
        sha256: the digest of the Forward; None: it is found.

    Raises what `samples_of` raises; BuildError, PassError and UsageError as `run` does.
    """
    say("reading samples" if data else "making samples")
    sha256 = sha256 or digest(forward)
    samples = samples_of(forward, data)
    known = None if folder is None else _kept(folder / _KEPT, sha256)
    alone_here = nullcontext() if lock is None else _one_at_a_time(lock, say)
    say("building")
    again = None if known is None else _again(known, samples, executor)
    if again is None:
        with alone_here:
            say("building")
            again = _first(samples, sha256, executor, say, seconds)
        if folder is not None:
            _keep(folder / _KEPT, again[2])
    engine, computes, learnt = again
    about = _about(samples, engine, learnt)
    return Warmed(engine, computes, learnt.ready, about, _said(samples, learnt))


def _first(
    samples: Samples, sha256: str, executor: Callable[[Engine], Executor],
    say: Callable[[str], None], seconds: float,
) -> tuple[Engine, Executor, Learnt]:  # fmt: skip
    """Learned from the beginning."""
    engines: list[Engine] = []

    def computing(engine: Engine) -> Executor:
        engines.append(engine)
        settle_threads(engine, samples.rows)
        say("proving what may be padded")
        return executor(engine)

    found = prepare(samples.forward, [alone(samples.rows)], computing, sha256, batch_rows=1)
    if found is None:
        raise DataError(f"{samples.forward}: there is no row to learn from")
    try:
        say("seeing whether rows move each other")
        rounding = engines[0].replicas[0].facts.rounding
        together = mates(found.ready, found.executor, samples.rows, rounding)
        say("timing batches")
        identity = costs_key(sha256, found.ready.machine)
        costs = laddered(found.ready, found.executor, samples.rows, identity, seconds)
        ready = msgspec.structs.replace(
            found.ready, costs=costs if costs.points else found.ready.costs
        )
        warmed(ready.costs, ready, found.executor, samples.rows, _WARM_SECONDS)
    except BaseException:
        found.executor.close()
        raise
    return engines[0], found.executor, Learnt(ready, together, samples.encode_seconds)


def _again(
    learnt: Learnt, samples: Samples, executor: Callable[[Engine], Executor]
) -> tuple[Engine, Executor, Learnt] | None:
    """Built, of what an earlier engine learned; None where that computed otherwise."""
    known = learnt.ready
    engine, threads = built(samples.forward, samples.rows), operator_threads()
    set_operator_threads(known.machine.threads or None)
    if known.machine.digest != machine_of(engine.replicas[0].facts).digest:
        set_operator_threads(threads)
        return None
    if engine.signature is not None:
        engine.learn([Output.parse(line) for line in known.outputs])
    computes = executor(engine)
    try:
        warmed(known.costs, known, computes, samples.rows, _WARM_SECONDS)
    except BaseException:
        computes.close()
        raise
    return engine, computes, learnt


@contextmanager
def _one_at_a_time(lock: Path, say: Callable[[str], None]) -> Generator[None]:
    """Models that are timed side by side would slow each other. Who waits says so again and again:
    it computes nothing, and is not to be taken for one that never will."""
    with lock.open("w") as held:
        while not _locked(held):
            say("waiting for another model to be timed")
            time.sleep(_WAIT_SECONDS)
        yield


def _locked(held: TextIO) -> bool:
    """Lock a file until it is closed; False where another process has it."""
    try:
        flock(held, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kept(path: Path, sha256: str) -> Learnt | None:
    """What an earlier engine of the same Forward left; None where there is none."""
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Learnt)
    except (OSError, msgspec.MsgspecError):
        return None  # it is learned again
    return known if known.ready.sha256 == sha256 else None


def _keep(path: Path, learnt: Learnt) -> None:
    aside = path.with_suffix(".new")
    aside.write_bytes(msgspec.json.encode(learnt))
    aside.replace(path)


def _about(samples: Samples, engine: Engine, learnt: Learnt) -> About:
    ready = learnt.ready
    model, facts = samples.forward.model, engine.replicas[0].facts
    outputs = engine.signature.outputs if engine.signature else ()
    dtypes = [facts.dtype, *(output.dtype for output in outputs)]
    return About(
        forward=str(samples.forward),
        digest=ready.sha256,
        inputs=ready.inputs,
        outputs=ready.outputs,
        encodes=model.encode is not None or model.collate is not None,
        tensors=model.collate is None,
        columns=samples.columns,
        decodes=model.decode is not None,
        axes=ready.axes,
        paddable=ready.may_pad,
        padding=ready.padding.said,
        costs=ready.costs,
        steps=_steps(samples.rows, ready),
        encode_seconds=learnt.encode_seconds,
        samples=samples.said,
        example=samples.example,
        tolerance=None if learnt.mates.drawn else max(tolerance(dtypes), facts.rounding),
        apart=learnt.mates.apart,
        mates=learnt.mates.said,
        device=", ".join(replica.facts.device for replica in engine.replicas),
    )


def _steps(rows: Encodings, ready: Ready) -> tuple[tuple[int, ...], ...]:
    """The sizes to which rows are padded where a new shape is dear: up to what the model says that
    it takes, or the longest of these, which is known to be computed."""
    if not isinstance(rows, Block) or not any(ready.may_pad):
        return ()
    best = min(ready.costs.points, key=lambda p: p.seconds / (p.rows * p.cells))
    if ready.costs.shape_seconds * _DEAR < best.seconds:
        return ()
    found: list[tuple[int, ...]] = []
    for place, axis in enumerate(rows.signature.variable.values()):
        high = axis.high or int(rows.sizes[:, place].max())
        permitted = [size for size in range(1, high + 1) if axis.rounded(size) == size]
        found.append(steps(permitted, _PER_OCTAVE) if ready.may_pad[place] else ())
    return tuple(found)


def _said(samples: Samples, learnt: Learnt) -> tuple[str, ...]:
    """Where it learned, what may be padded, and what batches cost."""
    lines, ready = [f"learned from {samples.said}"], learnt.ready
    if ready.inputs and ready.axes:
        lines.append(ready.padding.said)
    if learnt.mates.said:
        lines.append(learnt.mates.said)
    if learnt.mates.apart:
        return tuple(lines)
    return (*lines, _costs(ready, samples.rows))


def _costs(ready: Ready, rows: Encodings) -> str:
    """What one row costs, and how many together are best."""
    best = min(ready.costs.points, key=lambda p: p.seconds / (p.rows * p.cells))
    one = min(ready.costs.points, key=lambda p: (p.rows, abs(p.cells - best.cells)))
    sizes = ", ".join(f"{name} {size}" for name, size in best.sizes.items())
    where = f" of {sizes}" if sizes and isinstance(rows, Block) else ""
    alone = f"a row{where} takes {duration(one.seconds)} alone"
    if best.rows == 1:
        return f"{alone}, and no less in a batch"
    return f"{alone}, and {duration(best.seconds / best.rows)} in a batch of {best.rows:,}"
