"""Windows become batches: which ceiling a shard is planned under does not depend on timing."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from forwardpass.batching.policies import Policy
from forwardpass.executing.batches import Batch, Result
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.rows import Rows
from forwardpass.nouns.signatures import Signature
from forwardpass.running.computing import Computed, compute
from forwardpass.running.feeding import Window
from forwardpass.tensors.blocks import Block

IDS = Signature.parse("ids: i64[batch tokens=1..512] pad 0")
ROWS = 8
POLICY = Policy((True,), lambda sizes: sizes[..., 0], CostTable(()), ROWS)


class Elsewhere:
    """Computes in threads, each batch as long as it likes. From the third shard on no more than
    `most` cells fit at once."""

    workers = 1 << 20

    def __init__(self, shards: int, most: int, seed: int) -> None:
        self.shards, self._most = shards, most
        self._random = random.Random(seed)
        self._pool = ThreadPoolExecutor(4)
        self.verified = 0

    def submit(self, batch: Batch) -> Future[Result]:
        seconds = self._random.random() / 100
        return self._pool.submit(self._computed, batch, seconds)

    def _computed(self, batch: Batch, seconds: float) -> Result:
        time.sleep(seconds)
        assert batch.positions is not None
        cells = len(batch) * batch.cells
        refused = cells > self._most and batch.positions[0] >= 2 * ROWS
        return Result(((0, len(batch), {}),), refused_cells=cells if refused else None)

    def verify(self) -> None:
        self.verified += 1

    def close(self) -> None:
        self._pool.shutdown()


def window(number: int) -> Window:
    positions = np.arange(number * ROWS, (number + 1) * ROWS)
    sizes = np.full((ROWS, 1), 4, np.int64)
    block = Block(IDS, {"ids": [np.ones(4, np.int64)] * ROWS}, sizes, sizes)
    stop = int(positions[-1]) + 1
    return Window(Rows({}, positions), block, np.zeros(ROWS, bool), (), stop, ends_shard=True)


def computed(
    shards: int, seed: int, first: int = 0, ceilings: tuple[int | None, ...] = ()
) -> list[Computed]:
    there = Elsewhere(shards, most=16, seed=seed)
    done = [*compute(map(window, range(first, 12)), there, POLICY, ceilings)]
    there.close()
    assert there.verified == len(done)
    return done


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_a_ceiling_is_that_of_as_many_shards_before_as_are_under_way(shards: int) -> None:
    runs = [computed(shards, seed) for seed in range(4)]
    rows = [max(count for count, _ in one.batches) for one in runs[0]]
    assert rows == [ROWS] * (2 + shards) + [ROWS // 2] * (10 - shards)
    assert [one.ceiling_cells for one in runs[0]] == [None] * 2 + [16] * 10
    for other in runs[1:]:
        assert [one.batches for one in other] == [one.batches for one in runs[0]]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kept", [1, 3, 6])
def test_a_run_that_goes_on_plans_as_the_one_that_ended(shards: int, kept: int) -> None:
    whole = computed(shards, 0)
    ceilings = tuple(one.ceiling_cells for one in whole[:kept])
    rest = computed(shards, 1, kept, ceilings)
    assert [one.batches for one in rest] == [one.batches for one in whole[kept:]]
    assert [one.ceiling_cells for one in rest] == [one.ceiling_cells for one in whole[kept:]]
