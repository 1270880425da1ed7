"""Two ends, one memory: what is sent arrives as it was, whatever is at the other end."""

from __future__ import annotations

import mmap as mmap_module
import os
import random
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from mmap import mmap
from typing import Any

import numpy as np
import pytest

from forwardpass.serving.channels import (
    Channel,
    ChannelClosedError,
    ChannelFullError,
    carries,
)
from forwardpass.serving.ends import pair
from forwardpass.serving.messages import (
    ComputeRows,
    EncodeRows,
    ForgetRows,
    FromEngine,
    RowsComputed,
    RowsEncoded,
    ToEngine,
)
from forwardpass.tensors.arrays import NUMPY

Two = tuple[Channel[FromEngine], Channel[ToEngine]]


def both(size: int = 1 << 20) -> Two:
    ends = pair(size)
    return Channel(ends[0], engine=False), Channel(ends[1], engine=True)


@pytest.fixture
def two() -> Iterator[Two]:
    http, engine = both()
    yield http, engine
    http.close()
    engine.close()


def compute(count: int = 1) -> ComputeRows:
    return ComputeRows(
        batch=7, ids=list(range(count)), tensors=True, sizes=(), cells=1, seed=3, raw=[True] * count
    )


def same(received: Any, sent: Sequence[np.ndarray[Any, Any]]) -> None:
    rows = [row for piece in sent for row in piece]
    assert len(received) == len(rows)
    for one, other in zip(received, rows, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def test_messages_arrive_in_order_and_both_ways(two: Two) -> None:
    http, engine = two
    values: list[Any] = [{"text": "ä", "n": None, "deep": [1.5, [True]]}, "only", -3]
    http.send(EncodeRows([1, 2, 3], values))
    http.send(ForgetRows([2]))
    first, second = engine.receive()
    assert first.message == EncodeRows([1, 2, 3], values)
    assert second.message == ForgetRows([2])
    reply = RowsEncoded([1, 3], [(4,), (9,)], [(2, "ValueError: no")])
    engine.send(reply)
    assert [one.message for one in http.receive(1)] == [reply]
    assert http.receive() == []


@pytest.mark.parametrize("dtype", sorted(set(NUMPY.values()) | {np.dtype("u4")}, key=str), ids=str)
def test_arrays_of_every_dtype_arrive_bit_for_bit(two: Two, dtype: np.dtype[Any]) -> None:
    http, engine = two
    bits = np.random.default_rng(0).integers(0, 2 if dtype.kind == "b" else 256, 16 * 24, "u1")
    sent = bits.view(dtype).reshape(-1, 2, 1)
    http.send(compute(), {"x": [sent], "t": [sent.T.copy().T, sent[::-1]]})
    (received,) = engine.receive()
    assert isinstance(received.arrays["x"], np.ndarray)
    assert isinstance(received.arrays["t"], np.ndarray), "alike, so one array"
    same(received.arrays["x"], [sent])
    same(received.arrays["t"], [sent, sent[::-1]])
    assert received.arrays["x"].ctypes.data % 64 == 0


def test_ragged_pieces_are_rows_and_empty_ones_are_nothing(two: Two) -> None:
    http, engine = two
    ragged = [np.ones((2, 3), "f4"), np.zeros((1, 0), "f4"), np.full((1, 5), 2, "f4")]
    empty = np.zeros((0, 4), "i8")
    http.send(compute(), {"ragged": ragged, "empty": [empty], "both": [empty, empty], "none": []})
    (received,) = engine.receive()
    assert isinstance(received.arrays["ragged"], list)
    same(received.arrays["ragged"], ragged)
    for path in ("empty", "both"):
        value = received.arrays[path]
        assert isinstance(value, np.ndarray)
        assert value.shape == (0, 4)
    assert len(received.arrays["none"]) == 0


def test_what_is_sent_arrives_whatever_is_released_when(two: Two) -> None:
    """Laws of an allocator: no message writes over one that is not released, all memory comes back,
    and what lies low is used again."""
    http, engine = two
    chance = random.Random(5)
    held: list[tuple[Any, list[np.ndarray[Any, Any]]]] = []
    full = 0
    for turn in range(2_000):
        rows = [
            np.full((chance.randrange(3), chance.randrange(1, 3_000)), turn % 251, "u1")
            for _ in range(chance.randrange(1, 4))
        ]
        try:
            http.send(compute(), {"x": rows})
        except ChannelFullError:
            full += 1
            for _ in range(len(held) // 2 + 1):
                received, sent = held.pop(chance.randrange(len(held)))
                same(received.arrays["x"], sent)
                received.release()
        held += [(received, rows) for received in engine.receive()]
    assert full > 3, "the memory was never full: nothing was tried"
    for received, sent in held:
        same(received.arrays["x"], sent)
        received.release()
        received.release()
    http.send(compute(), {"x": [np.zeros((1, (1 << 19) - 1024), "u1")]})


def test_memory_that_is_used_in_turn_stays_flat() -> None:
    ends = pair(1 << 28)
    memory = os.dup(ends[0].memory)
    http: Channel[FromEngine] = Channel(ends[0], engine=False)
    engine: Channel[ToEngine] = Channel(ends[1], engine=True)
    for _ in range(200):
        http.send(compute(), {"x": [np.ones((1, 1 << 20), "u1")]})
        (received,) = engine.receive()
        received.release()
    assert 1 << 20 < os.fstat(memory).st_blocks * 512 < 3 << 20
    os.close(memory)


@pytest.mark.skipif(not hasattr(mmap_module, "MADV_REMOVE"), reason="this system takes none back")
def test_memory_that_large_messages_needed_goes_back_once_they_are_no_more() -> None:
    ends = pair(1 << 28)
    memory = os.dup(ends[0].memory)
    http: Channel[FromEngine] = Channel(ends[0], engine=False)
    engine: Channel[ToEngine] = Channel(ends[1], engine=True)

    def send(count: int, size: int) -> Any:
        for _ in range(count):
            http.send(compute(), {"x": [np.ones((1, size), "u1")]})
            (received,) = engine.receive()
            assert isinstance(received.arrays["x"], np.ndarray)
            assert received.arrays["x"].all()
            received.release()

    send(3, 1 << 25)
    assert os.fstat(memory).st_blocks * 512 >= 1 << 25
    http.send(compute(), {"x": [np.full((1, 1000), 7, "u1")]})
    (kept,) = engine.receive()
    send(200, 1 << 12)
    assert os.fstat(memory).st_blocks * 512 < 1 << 20
    same(kept.arrays["x"], [np.full((1, 1000), 7, "u1")])
    send(70, 1 << 20)
    os.close(memory)


def test_a_message_that_never_fits_says_so(two: Two) -> None:
    http, engine = two
    with pytest.raises(ChannelFullError, match="does not fit") as raised:
        http.send(compute(), {"x": [np.zeros((1, http.bytes), "u1")]})
    assert raised.value.never
    http.send(ForgetRows([1]))
    assert len(engine.receive()) == 1


def test_an_end_that_does_not_read_fills_up_and_nothing_is_lost(two: Two) -> None:
    http, engine = two
    sent = 0

    def fill() -> None:
        nonlocal sent
        for sent in range(100_000):
            http.send(ForgetRows([sent]))

    with pytest.raises(ChannelFullError):
        fill()
    came: list[Any] = []
    while received := engine.receive():
        came += [one.message for one in received]
        for one in received:
            one.release()
    assert came == [ForgetRows([index]) for index in range(sent)]
    http.send(ForgetRows([-1]))
    assert engine.receive()[0].message == ForgetRows([-1])


def test_what_cannot_be_sent_is_refused_before_anything_is(two: Two) -> None:
    http, engine = two
    with pytest.raises(OverflowError):
        http.send(EncodeRows([1], [1 << 70]))
    with pytest.raises(UnicodeEncodeError):
        http.send(EncodeRows([1], ["\ud800"]))
    for value in (np.array(["text"], dtype=object), np.array(["text"]), np.array(1.0)):
        assert not carries(value)
        with pytest.raises(TypeError, match="rows of numbers"):
            http.send(compute(), {"x": [np.ones((1, 2)), value]})
    assert engine.receive() == []


def test_the_end_is_seen_after_all_that_was_sent(two: Two) -> None:
    http, engine = two
    http.send(ForgetRows([1]))
    http.close()
    assert [one.message for one in engine.receive()] == [ForgetRows([1])]
    for _ in range(2):
        with pytest.raises(ChannelClosedError):
            engine.receive(None)
        with pytest.raises(ChannelClosedError):
            engine.send(RowsEncoded([], [], []))
        with pytest.raises(ChannelClosedError):
            http.receive()


def test_views_outlive_the_channel(two: Two) -> None:
    http, engine = two
    http.send(compute(), {"x": [np.arange(6.0).reshape(1, 6)]})
    (received,) = engine.receive()
    http.close()
    engine.close()
    assert received.arrays["x"][0].sum() == 15
    received.release()


def test_who_waits_wakes_when_the_channel_is_closed_here(two: Two) -> None:
    _, engine = two
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            engine.receive(None)
        except ChannelClosedError as error:
            seen.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    engine.close()
    waiting.join(5)
    assert len(seen) == 1


def test_across_a_fork() -> None:
    ends = pair(1 << 20)
    child = os.fork()
    if not child:
        code = 1
        try:
            ends[0].close()
            engine: Channel[ToEngine] = Channel(ends[1], engine=True)
            for _ in range(20):
                (received,) = engine.receive(10)
                value = received.arrays["x"]
                assert isinstance(value, np.ndarray)
                engine.send(
                    RowsComputed(batch=7, seconds=0.1, rows=[b"[1]", None], failures=[]),
                    {"y": [value * 2]},
                )
                received.release()
            code = 0
        finally:
            os._exit(code)
    ends[1].close()
    http: Channel[FromEngine] = Channel(ends[0], engine=False)
    for turn in range(20):
        sent = np.full((3, 10_000), turn, "f4")
        http.send(compute(), {"x": [sent]})
        (received,) = http.receive(10)
        assert isinstance(received.message, RowsComputed)
        assert received.message.rows == [b"[1]", None]
        same(received.arrays["y"], [sent * 2])
        received.release()
    with pytest.raises(ChannelClosedError):
        http.receive(10)
    assert os.waitpid(child, 0)[1] == 0


def test_many_threads_send_at_once(two: Two) -> None:
    http, engine = two

    def say(start: int) -> None:
        for number in range(start, start + 100):
            sent = False
            while not sent:
                with suppress(ChannelFullError):
                    engine.send(
                        RowsEncoded([number], [(number,)], []),
                        {"x": [np.full((1, 50 + number % 300), number, "i8")]},
                    )
                    sent = True

    threads = [threading.Thread(target=say, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    came: list[int] = []
    while len(came) < 400:
        for received in http.receive(10):
            message, value = received.message, received.arrays["x"]
            assert isinstance(message, RowsEncoded)
            assert isinstance(value, np.ndarray)
            assert (value == message.ids[0]).all()
            came += message.ids
            received.release()
    assert sorted(came) == [n * 1000 + k for n in range(4) for k in range(100)]


def test_lies_close_the_channel_and_nothing_else() -> None:
    chance, said_true = random.Random(1), 0
    for turn in range(400):
        ends = pair(1 << 16)
        memory = mmap(ends[1].memory, 0)
        half = len(memory) // 2
        http: Channel[FromEngine] = Channel(ends[0], engine=False)
        lying = socket.socket(fileno=os.dup(ends[1].socket))
        engine: Channel[ToEngine] = Channel(ends[1], engine=True)
        if turn % 4 == 0:  # noise
            lying.send(chance.randbytes(16))
        elif turn % 4 == 1:  # the half of the other, no beginning, more than there is, nothing
            lies = [(0, 64), (half + 3, 64), (half, 1 << 40), (half, 0), (1 << 63, 64)]
            memory[0] = memory[half] = 1
            lying.send(struct.pack("<QQ", *chance.choice(lies)))
        else:  # a true message, in which bytes are changed
            engine.send(RowsEncoded([1], [(2,)], []), {"x": [np.ones((2, 3), "f4")]})
            for _ in range(turn % 3):
                memory[half + chance.randrange(8, 100)] = chance.randrange(256)
        try:
            for received in http.receive(5):
                assert isinstance(received.message, RowsEncoded)
                for value in received.arrays.values():
                    assert sum(row.nbytes for row in value) <= half
                said_true += 1
        except ChannelClosedError:
            with pytest.raises(ChannelClosedError):
                http.send(ForgetRows([1]))
        http.close()
        engine.close()
        lying.close()
    assert 60 < said_true < 200
