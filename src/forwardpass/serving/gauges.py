"""What is seen of a served model, as Prometheus reads it: one registry a process, of our own."""

from __future__ import annotations

from functools import cache
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from forwardpass.serving.exchanges import RefusedError

REGISTRY: Final = CollectorRegistry()
"""Of this process alone; nothing else that it has loaded can put names into it."""

disable_created_metrics()  # a line beside each counter that tells when it was made
_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16,
)  # fmt: skip
_ROWS: Final = tuple(1 << power for power in range(13))

REQUESTS: Final = Histogram(
    "forwardpass_request_seconds", "From the arrival of a request to its answer.", ["model"],
    registry=REGISTRY, buckets=_SECONDS,
)  # fmt: skip
STAGES: Final = Histogram(
    "forwardpass_stage_seconds",
    "Encode: from a message of rows to their sizes. Queue: from a request's arrival until its last "
    "row is dispatched. Compute: of a batch, as the engine has it. Reply: a batch's way there and "
    "back, its decode, and its wait behind the batch before it.",
    ["model", "stage"], registry=REGISTRY, buckets=_SECONDS,
)  # fmt: skip
BATCH_ROWS: Final = Histogram(
    "forwardpass_batch_rows", "Rows of a batch that was dispatched.", ["model"],
    registry=REGISTRY, buckets=_ROWS,
)  # fmt: skip
BATCHES: Final = Counter(
    "forwardpass_batches", "Batches dispatched, by what ended each.", ["model", "why"],
    registry=REGISTRY,
)  # fmt: skip
CELLS: Final = Counter(
    "forwardpass_cells", "Positions dispatched: of rows, and of padding beside them.",
    ["model", "kind"], registry=REGISTRY,
)  # fmt: skip
ROWS: Final = Counter(
    "forwardpass_rows", "Rows by what became of them: executed, answered, cancelled.",
    ["model", "fate"], registry=REGISTRY,
)  # fmt: skip
REFUSED: Final = Counter(
    "forwardpass_refused", "Requests refused, by reason; without a model: before one had them.",
    ["model", "reason"], registry=REGISTRY,
)  # fmt: skip
REPLIES: Final = Counter(
    "forwardpass_replies", "All replies, by status; 499 where the client left before its own.",
    ["status"], registry=REGISTRY,
)  # fmt: skip
MISSES: Final = Counter(
    "forwardpass_deadline_misses", "Requests not answered before their deadline, dropped or late.",
    ["model"], registry=REGISTRY,
)  # fmt: skip
DEATHS: Final = Counter(
    "forwardpass_engine_deaths", "Engine processes that ended, by how: died, or killed as it hung.",
    ["model", "how"], registry=REGISTRY,
)  # fmt: skip
READY: Final = Gauge(
    "forwardpass_ready", "1 while the model has an engine that computes.", ["model"],
    registry=REGISTRY,
)  # fmt: skip
QUEUE_ROWS: Final = Gauge(
    "forwardpass_queue_rows", "Rows that wait, to be encoded or to be computed.", ["model"],
    registry=REGISTRY,
)  # fmt: skip
QUEUE_BYTES: Final = Gauge(
    "forwardpass_queue_bytes", "Bytes of requests that are not answered yet.", ["model"],
    registry=REGISTRY,
)  # fmt: skip


@cache
def replies(status: int) -> Counter:
    """Those with one status: a look-up by label costs more than what it counts."""
    return REPLIES.labels(str(status))


def refused(error: RefusedError, model: str = "") -> None:
    """A request was refused; whatever else it passes on its way out counts it no more."""
    if not error.counted:
        error.counted = True
        REFUSED.labels(model, error.reason).inc()


class Gauges:
    """All of one model, bound once."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.request = REQUESTS.labels(model)
        self.encode, self.queue, self.compute, self.reply = (
            STAGES.labels(model, stage) for stage in ("encode", "queue", "compute", "reply")
        )
        self.batch_rows = BATCH_ROWS.labels(model)
        self.real, self.padding = CELLS.labels(model, "real"), CELLS.labels(model, "padding")
        self.executed, self.answered, self.cancelled = (
            ROWS.labels(model, fate) for fate in ("executed", "answered", "cancelled")
        )
        self.misses = MISSES.labels(model)
        self.died, self.hung = DEATHS.labels(model, "died"), DEATHS.labels(model, "hung")
        self.ready = READY.labels(model)
        self.queue_rows, self.queue_bytes = QUEUE_ROWS.labels(model), QUEUE_BYTES.labels(model)

    def refused(self, error: RefusedError) -> None:
        """A request of this model was refused."""
        refused(error, self.model)

    def dispatched(self, why: str, rows: int, real: int, cells: int) -> None:
        """A batch went to the engine: `real` cells of its rows, in `cells` of the batch."""
        BATCHES.labels(self.model, why).inc()
        self.batch_rows.observe(rows)
        self.executed.inc(rows)
        self.real.inc(real)
        self.padding.inc(cells - real)
