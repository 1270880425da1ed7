"""An engine that is played by a thread, at the other end of a real Channel, and who replaces it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.channels import Channel, ChannelClosedError
from forwardpass.serving.dispatching import Dispatcher
from forwardpass.serving.ends import pair
from forwardpass.serving.exchanges import Exchange
from forwardpass.serving.messages import (
    About,
    ComputeRows,
    EncodeRows,
    ForgetRows,
    RowsComputed,
    RowsEncoded,
    ToEngine,
)
from forwardpass.serving.options import RequestLimits, ServedModel, ServeOptions

LONGEST = 64


def costs(
    base: float, each: float, rows: Sequence[int] = (1, 2, 4, 8, 16),
    cells: Sequence[int] = (1, 8, LONGEST),
) -> CostTable:  # fmt: skip
    """base + each * rows * cells seconds."""
    return CostTable(
        tuple(
            CostPoint(count, {"tokens": size}, size, base + each * count * size)
            for count in rows
            for size in cells
        )
    )


def about(table: CostTable, *, tensors: bool = False) -> About:
    """Of a model that says how long a text is; or of one that doubles three numbers."""
    return About(
        forward="texts.py:model", digest="0", encodes=not tensors, tensors=tensors, columns=(),
        inputs=("x: f32[batch 3]",) if tensors else (f"ids: i64[batch tokens=1..{LONGEST}] pad 0",),
        outputs=("y: f32[batch 3]",) if tensors else ("y: i64[batch]",),
        decodes=False, axes=() if tensors else ("tokens",), paddable=() if tensors else (True,),
        padding="", costs=table, samples="", tolerance=0.0, device="cpu",
    )  # fmt: skip


@dataclass
class Script:
    """What an engine does, and what it has done.

    Attributes:
        about: that it says.
        seconds: that it spends on a batch.
        dies_encoding, dies, raises, refuses: of a value, whether it ends the engine while it is
            encoded or computed, whether the pass raises, and whether it cannot be encoded.
        hangs: of a value, whether its pass does not end.
        garbles: of a value, whether its answer is none. bursts: whether memory runs out.
        in_parts: rows of a batch are answered one by one. dies_between: of a value, whether the
            engine ends before it is answered so.
        multiple: sizes are rounded up to one.
        reads_after: seconds from one look at what has come to the next.
        encode_seconds: that it spends on encoding a value. beside: it encodes while it computes.
        bytes_of: of a value, what is kept of it once it is encoded. most_bytes: that were kept.
        executed: how often each value was in a batch that began.
        batches: the values of each batch. held: rows that it keeps. forgotten: ids.
    """

    about: About
    seconds: Callable[[int, int], float] = lambda rows, cells: 0.0
    dies_encoding: Callable[[Any], bool] = lambda value: False
    dies: Callable[[Any], bool] = lambda value: False
    raises: Callable[[Any], bool] = lambda value: False
    refuses: Callable[[Any], bool] = lambda value: False
    hangs: Callable[[Any], bool] = lambda value: False
    garbles: Callable[[Any], bool] = lambda value: False
    bursts: Callable[[Any], bool] = lambda value: False
    in_parts: bool = False
    dies_between: Callable[[Any], bool] = lambda value: False
    multiple: int = 1
    reads_after: float = 0.0
    encode_seconds: Callable[[Any], float] = lambda value: 0.0
    beside: bool = False
    bytes_of: Callable[[Any], int] = lambda value: 0
    most_bytes: int = 0
    executed: Counter[Any] = field(default_factory=Counter[Any])
    encoded: Counter[Any] = field(default_factory=Counter[Any])
    batches: list[list[Any]] = field(default_factory=list[list[Any]])
    alone: list[ComputeRows] = field(default_factory=list[ComputeRows])


class PlayedEngine(threading.Thread):
    """Encodes and computes, one message after the other."""

    def __init__(self, channel: Channel[ToEngine], script: Script) -> None:
        super().__init__(daemon=True)
        self.channel, self.script = channel, script
        self.rows: dict[int, Any] = {}
        self.gone: set[int] = set()
        self.killed = threading.Event()

    def run(self) -> None:
        try:
            self.channel.send(self.script.about)
            while not self.killed.is_set():
                came = self.channel.receive(0.05)
                for received in came:
                    if isinstance(received.message, ForgetRows):
                        self.gone.update(received.message.ids)
                for received in came:
                    self._hear(received.message, received.arrays)
                    received.release()
                self.gone.clear()
                self.killed.wait(self.script.reads_after)
        except ChannelClosedError:
            pass
        self.channel.close()

    def _hear(self, message: ToEngine, arrays: Mapping[str, Any]) -> None:
        script = self.script
        if isinstance(message, ForgetRows):
            for id in message.ids:
                self.rows.pop(id, None)
        elif isinstance(message, EncodeRows):
            whole = list(zip(message.ids, message.values, strict=True))
            given = [(id, value) for id, value in whole if id not in self.gone]
            gone = [id for id, _ in whole if id in self.gone]
            began = WALL.now()
            for _, value in given:
                script.encoded[value] += 1
                if script.dies_encoding(value):
                    raise ChannelClosedError("it dies")
                if self.killed.wait(script.encode_seconds(value)):
                    raise ChannelClosedError("it was killed")
            good = [(id, value) for id, value in given if not script.refuses(value)]
            self.rows |= dict(good)
            lengths = {id: (max(1, min(len(value), LONGEST)),) for id, value in good}
            sizes = [(-(-n // script.multiple) * script.multiple,) for (n,) in lengths.values()]
            failures = [(id, "no text") for id, value in given if script.refuses(value)]
            cut = [id for id, value in good if len(value) > LONGEST]
            made = sum(script.bytes_of(value) for _, value in good)
            kept = sum(map(script.bytes_of, self.rows.values()))
            script.most_bytes = max(script.most_bytes, kept)
            self.channel.send(
                RowsEncoded(
                    [*lengths], sizes, failures, cut, gone, lengths, made, WALL.now() - began
                )
            )
        else:
            self._compute(message, arrays)

    def _compute(self, message: ComputeRows, arrays: Mapping[str, Any]) -> None:
        script = self.script
        values = (
            [tuple(row.tolist()) for row in arrays["x"]]
            if message.tensors
            else [self.rows.pop(id) for id in message.ids]
        )
        script.batches.append(values)
        script.executed.update(values)
        if any(map(script.dies, values)):
            raise ChannelClosedError("it dies")
        if any(map(script.hangs, values)):
            self.killed.wait()
            raise ChannelClosedError("it was killed")
        seconds = script.seconds(len(values), message.cells)
        if script.beside:
            seconds -= self._encode_for(seconds)
        if self.killed.wait(seconds):
            raise ChannelClosedError("it was killed")
        if any(map(script.garbles, values)):
            nothing = RowsComputed(batch=message.batch, seconds=0.0, rows=[], failures=[])
            self.channel.send(nothing)
            return
        large = [place for place, value in enumerate(values) if script.bursts(value)]
        failures = [(place, "it raised") for place, v in enumerate(values) if script.raises(v)]
        failures += [(place, "no memory") for place in large]
        failed = {place for place, _ in failures}
        kept = [place for place in range(len(values)) if place not in failed]
        rows = [
            None if place in failed or message.raw[place] else msgspec.json.encode(self._of(value))
            for place, value in enumerate(values)
        ]
        if script.in_parts and len(values) > 1 and not any(message.raw):
            for place, value in enumerate(values):
                last = place == len(values) - 1
                if script.dies_between(value):
                    raise ChannelClosedError("it dies")
                answer = RowsComputed(
                    batch=message.batch, seconds=seconds, rows=[rows[place]], failures=[],
                    more=not last,
                )  # fmt: skip
                self.channel.send(answer)
            return
        raw = [self._of(values[place]) for place in kept if message.raw[place]]
        dtype = np.float32 if message.tensors else np.int64
        outputs = {"y": [np.array([row], dtype) for row in raw]} if raw else {}
        self.channel.send(
            RowsComputed(
                batch=message.batch, seconds=seconds, rows=rows, failures=failures, large=large
            ),
            outputs,
        )

    def _encode_for(self, seconds: float) -> float:
        """Encode what comes in so many seconds: those that passed."""
        began = WALL.now()
        while not self.killed.is_set() and WALL.now() - began < seconds:
            for received in self.channel.receive(0.001):
                self._hear(received.message, received.arrays)
                received.release()
        return min(seconds, WALL.now() - began)

    @staticmethod
    def _of(value: Any) -> Any:
        return [2 * number for number in value] if isinstance(value, tuple) else len(value)


class Stage:
    """A Dispatcher, and an engine that is played anew whenever it dies."""

    def __init__(
        self, script: Script, *, slo: float | None = None, restart: float = 0.01,
        channel_bytes: int = 1 << 24, limits: RequestLimits | None = None,
    ) -> None:  # fmt: skip
        self.script, self.restart, self.channel_bytes = script, restart, channel_bytes
        options = ServeOptions(
            models=(ServedModel(name="m", forward="texts.py"),),
            slo_seconds=slo,
            limits=limits or RequestLimits(),
        )
        self.dispatcher = Dispatcher("m", options, kill=self._kill)
        self.engine: PlayedEngine | None = None
        self.engines = 0
        self.kills: list[str] = []
        self._over = False

    async def __aenter__(self) -> Stage:
        self._keeper = asyncio.create_task(self._keep())
        while not self.dispatcher.ready:
            await asyncio.sleep(0.001)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        self.dispatcher.close()
        self.kill()
        await self._keeper

    async def _keep(self) -> None:
        """What the supervisor does."""
        while not self._over:
            ours, theirs = pair(self.channel_bytes)
            self.engine = PlayedEngine(Channel(theirs, engine=True), self.script)
            self.engines += 1
            self.engine.start()
            self.dispatcher.joined(self.engines, Channel(ours, engine=False))
            while self.engine.is_alive():
                await asyncio.sleep(0.002)
            await asyncio.sleep(self.restart)

    def kill(self) -> None:
        """What SIGKILL does."""
        if self.engine is not None:
            self.engine.killed.set()

    def _kill(self, engine: int, why: str) -> None:
        assert engine == self.engines
        self.kills.append(why)
        self.kill()

    async def ask(
        self, values: Sequence[Any] | np.ndarray[Any, Any], *, timeout: float | None = None,
        priority: int = 0, exchange: Exchange | None = None, decoded: bool = True,
    ) -> Answered:  # fmt: skip
        """What a protocol does."""
        tensors = isinstance(values, np.ndarray)
        return await self.dispatcher.ask(
            Inquiry(
                count=len(values),
                values=None if tensors else values,
                arrays={"x": values} if tensors else None,
                decoded=decoded,
                bytes=values.nbytes if tensors else sum(map(len, values)),
                exchange=exchange or exchange_now(),
                timeout_seconds=timeout,
                priority=priority,
            )
        )


def exchange_now() -> Exchange:
    """A request that arrives now."""
    return Exchange(
        method="POST", path="/", query=b"", parts={}, headers={}, body=b"", id="1",
        arrived=WALL.now(),
    )  # fmt: skip
