"""Spread: the workers of a cluster as one Executor."""

from __future__ import annotations

from concurrent.futures import Future

from forwardpass.executing.batches import Batch, Result
from forwardpass.scaling.pools import CALL_ROWS, WorkerPool
from forwardpass.scaling.seats import AHEAD
from forwardpass.scaling.sent import COMPUTE


class Spread:
    """The Executor of a cluster: batches go to whichever worker has least to do."""

    def __init__(self, pool: WorkerPool, members: int) -> None:
        self._pool, self._members = pool, members
        self._rows = CALL_ROWS

    @property
    def workers(self) -> int:
        """As many batches as make full calls for all."""
        return AHEAD * self._members * max(1, CALL_ROWS // max(1, self._rows))

    @property
    def shards(self) -> int:
        """A shard is some seconds of one worker's work: enough that all have some."""
        return 1 + AHEAD * self._members

    def submit(self, batch: Batch) -> Future[Result]:
        """Compute a batch somewhere."""
        self._rows = len(batch)
        return self._pool.submit(COMPUTE, batch)

    def verify(self) -> None:
        """Nothing: each worker does, after each call."""

    def close(self) -> None:
        """Nothing: the venue ends the workers."""
