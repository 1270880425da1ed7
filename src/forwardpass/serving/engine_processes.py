"""An engine process's whole life: it learns, says that it is ready, and serves."""

from __future__ import annotations

from pathlib import Path

from forwardpass.measuring.memory import keep_freed, total_bytes
from forwardpass.nouns.forwards import Forward
from forwardpass.serving.controls import Control, EngineJoined, EngineReady, Learning
from forwardpass.serving.engines import ServedEngine, work
from forwardpass.serving.learning import learned
from forwardpass.serving.options import ServedModel


def engine(
    forward: Forward, model: ServedModel, control: Control[EngineJoined], folder: Path,
    lock: Path, sha256: str | None = None,
) -> None:  # fmt: skip
    """Be the engine of this Forward, until the supervisor is gone: the process ends with it.

    Args:
        folder: where what one engine learned is left for the next.
        lock: that is held while it learns: engines of one server are timed one after the other.
        sha256: the digest of the Forward, where it is known.

    Raises what `learned` raises, and PassError where nothing can be computed here any more.
    """
    keep_freed(total_bytes())
    warm = learned(
        forward, model.samples, folder, lock=lock,
        say=lambda doing: control.send(Learning(doing)), sha256=sha256,
    )  # fmt: skip
    with_signature = warm.engine.forward.model
    served = ServedEngine(with_signature, warm.executor, warm.about)
    costs = warm.about.costs
    row_seconds = min(float(costs.seconds(1, point.cells)) for point in costs.points)
    batch_seconds = max(point.seconds for point in costs.points)
    here = warm.ready.machine
    control.send(
        EngineReady(
            said=warm.said, example=warm.about.example, row_seconds=row_seconds,
            batch_seconds=batch_seconds,
            fits=max(1, here.cores // (here.threads or here.cores)),
        )
    )  # fmt: skip
    work(served, control)
