"""A real engine at the other end of a Channel, in a thread; here is the HTTP process's end."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from forwardpass.executing.encoding import Encoder, inferred
from forwardpass.executing.executors import executor
from forwardpass.loading import load
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.preparing.identity import digest
from forwardpass.preparing.preparing import ready
from forwardpass.reading import open_source
from forwardpass.serving.channels import Channel
from forwardpass.serving.ends import Ends, pair
from forwardpass.serving.engines import ServedEngine
from forwardpass.serving.messages import (
    About,
    ComputeRows,
    EncodeRows,
    FromEngine,
    RowsComputed,
    RowsEncoded,
)
from forwardpass.tensors.blocks import Numbers


def made(model: Model, samples: list[Any]) -> ServedEngine:
    """Built in the thread that calls, of rows like those that will come."""
    forward: Forward = load(model)
    rows = next(open_source(samples).read())
    if model.signature is None and model.collate is None:
        forward = Forward(model.with_signature(inferred(model, rows, {})), forward.plan)
    encoded = Encoder(forward.model)(rows)
    prepared = ready(forward, iter([encoded]), executor, digest(forward), batch_rows=4)
    assert prepared is not None
    known = prepared.ready
    about = About(
        forward=str(known.plan), digest=known.sha256, inputs=known.inputs, outputs=known.outputs,
        encodes=model.encode is not None or model.collate is not None, tensors=bool(known.inputs),
        columns=model.text_columns, decodes=model.decode is not None, axes=known.axes,
        paddable=known.may_pad, padding=known.padding.said, costs=known.costs, samples="a test",
        tolerance=1e-4, device=known.device,
    )  # fmt: skip
    return ServedEngine(forward.model, prepared.executor, about)


class FarEngine:
    """Serves in a thread, at each Channel that `join` makes; what it raised is in `error`."""

    def __init__(self, model: Model, samples: list[Any], memory_bytes: int = 1 << 24) -> None:
        self._model, self._samples, self._memory_bytes = model, samples, memory_bytes
        self._ids, self._numbers = count(1), count(1)
        self.error: BaseException | None = None
        self.arrived: list[Any] = []

    def __enter__(self) -> Self:
        ends = pair(self._memory_bytes)
        self._thread = threading.Thread(target=self._serve, args=(ends[1],))
        self._thread.start()
        self.channel: Channel[FromEngine] = Channel(ends[0], engine=False)
        self.about = self.next()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.channel.close()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _serve(self, ends: Ends) -> None:
        channel: Any = Channel(ends, engine=True)
        with closing(channel):
            try:
                made(self._model, self._samples).serve(channel)
            except BaseException as error:  # noqa: BLE001 - a test looks at it
                self.error = error

    def next(self) -> Any:
        """The next message, whole: its arrays are copies."""
        while not self.arrived:
            self.arrived += self.channel.receive(30)
        received = self.arrived.pop(0)
        arrays = {
            path: value.copy() if isinstance(value, np.ndarray) else [row.copy() for row in value]
            for path, value in received.arrays.items()
        }
        received.release()
        self.arrays: dict[str, Numbers] = arrays
        return received.message

    def encode(self, values: Sequence[Any]) -> tuple[list[int], RowsEncoded]:
        """Have rows encoded; their ids, and what was said."""
        ids = [next(self._ids) for _ in values]
        self.channel.send(EncodeRows(ids, list(values)))
        said = self.next()
        assert isinstance(said, RowsEncoded)
        return ids, said

    def compute(
        self, ids: Sequence[int], sizes: tuple[int, ...] = (), *, seed: int = 0,
        raw: Sequence[bool] = (), arrays: dict[str, list[Any]] | None = None,
    ) -> RowsComputed:  # fmt: skip
        """Have a batch computed; outputs of its raw rows are in `arrays`."""
        asked = ComputeRows(
            batch=next(self._numbers), ids=list(ids), tensors=arrays is not None, sizes=sizes,
            cells=int(np.prod(sizes)) or 1, seed=seed, raw=list(raw) or [False] * len(ids),
        )  # fmt: skip
        self.channel.send(asked, arrays)
        said = self.next()
        assert isinstance(said, RowsComputed)
        assert said.batch == asked.batch
        assert said.seconds >= 0
        return said

    def asked(self, values: Sequence[Any]) -> list[Any]:
        """Rows encoded and computed together; each as JSON, or why it failed."""
        ids, said = self.encode(values)
        found: dict[int, Any] = dict(said.failures)
        sizes = tuple(np.array(said.sizes).max(axis=0).tolist()) if said.ids else ()
        done = self.compute(said.ids, sizes)
        reasons = dict(done.failures)
        for place, (row, line) in enumerate(zip(said.ids, done.rows, strict=True)):
            found[row] = reasons[place] if line is None else msgspec.json.decode(line)
        return [found[row] for row in ids]
