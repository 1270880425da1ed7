"""How many threads an operator should have while requests come: no more than pay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from forwardpass.building.engines import Engine
from forwardpass.executing.encoding import Encodings
from forwardpass.measuring.clocks import WALL
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.threads import operator_threads, set_operator_threads

_REQUEST_SECONDS: Final = 1e-4
"""What the HTTP process takes for a request of one row: about 9,000 a second, with all else that
is done for them. A team that has all cores computes in turn with it, a smaller one beside it."""
_WORTH: Final = 1.1
"""By so much a larger team must be faster: twice the noise of the least of a few timings."""
_ROWS: Final = 8
_ROUNDS: Final = 5
_ENOUGH_SECONDS: Final = 1.0


def settle_threads(engine: Engine, rows: Encodings) -> None:
    """Compute with the smallest team that is worth it, of those that are there now at most.

    Where the plan says how many, or another library than PyTorch computes, nothing is changed.
    """
    most, facts = operator_threads() or 1, engine.replicas[0].facts
    if most == 1 or facts.threads or facts.device != "cpu" or not isinstance(rows, Block):
        return
    if not facts.library.startswith("torch "):
        return
    counts = [1 << power for power in range(most.bit_length()) if 1 << power < most] + [most]
    middle = np.argsort(rows.sizes.prod(axis=1), kind="stable")[len(rows) // 2]
    batch = rows.take(np.full(_ROWS, middle)).collate(rows.sizes[middle].tolist())

    def seconds(count: int) -> float:
        set_operator_threads(count)
        engine(batch)  # a team of another size begins cold
        return WALL.seconds(lambda: engine(batch))

    try:
        took = WALL.least(
            *(lambda count=count: seconds(count) for count in counts),
            rounds=_ROUNDS, enough_seconds=_ENOUGH_SECONDS,
        )  # fmt: skip
    except Exception:  # noqa: BLE001 - of a row that cannot be computed; which ones can is found next
        set_operator_threads(most)
        return
    set_operator_threads(worth(dict(zip(counts, took, strict=True)), _ROWS * _REQUEST_SECONDS))


def worth(took: Mapping[int, float], beside_seconds: float) -> int:
    """The smallest team that answers about as fast as the best.

    Args:
        took: seconds of a batch, by the size of the team, up to one that has all cores.
        beside_seconds: what is done for the requests of that batch, on one core.
    """
    most = max(took)
    answers = {
        count: seconds + beside_seconds if count == most else max(seconds, beside_seconds)
        for count, seconds in took.items()
    }
    best = min(answers.values())
    return min(count for count, seconds in answers.items() if seconds <= _WORTH * best)
