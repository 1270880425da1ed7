"""A large body is what it would be at once, and while it is read others are answered."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from front import request, serving
from standing_in import StandIn, about, exchange

from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.json_rows import AskedRows, JsonRows
from forwardpass.serving.large_bodies import read_rows
from forwardpass.serving.protocols import health, rows

VARIED = ("ids: i64[batch tokens=1..40] pad 0", "extra?: f32[batch 2]")


def read(given: JsonRows, body: bytes, most: int = 10_000) -> AskedRows:
    return asyncio.run(read_rows(given, exchange("POST", "/", body), most))


def same(one: AskedRows, other: AskedRows) -> None:
    assert (one.count, one.values) == (other.count, other.values)
    assert (one.timeout_seconds, one.priority) == (other.timeout_seconds, other.priority)
    assert (one.arrays is None) == (other.arrays is None)
    for path, value in (one.arrays or {}).items():
        for left, right in zip(value, (other.arrays or {})[path], strict=True):
            np.testing.assert_array_equal(left, right)


def varied(chance: random.Random, count: int, *, extra: bool) -> list[dict[str, Any]]:
    rows = [{"ids": [chance.randrange(99)] * chance.randint(1, 40)} for _ in range(count)]
    return [{**row, "extra": [0.5, 1]} if extra else row for row in rows]


@pytest.mark.parametrize("extra", [True, False])
def test_in_parts_it_is_the_same(extra: bool) -> None:
    given = JsonRows(about(*VARIED))
    body = {"rows": varied(random.Random(0), 3_000, extra=extra), "timeout_ms": 50, "priority": 2}
    encoded = msgspec.json.encode(body)
    assert len(encoded) > 3 * (1 << 16)
    same(read(given, encoded), given.read(encoded, 10_000))


def test_rows_of_one_shape_and_texts_are_the_same_too() -> None:
    vector = JsonRows(about("features: f32[batch 16]"))
    body = msgspec.json.encode({"rows": [[float(n)] * 16 for n in range(4_000)]})
    found = read(vector, body)
    same(found, vector.read(body, 4_000))
    assert found.arrays is not None
    assert isinstance(found.arrays["features"], np.ndarray)
    texts = JsonRows(about("ids: i64[batch n]", encodes=True))
    body = msgspec.json.encode({"rows": ["ä" * 1_000, {"text": "b"}] * 200})
    same(read(texts, body), texts.read(body, 400))
    body = msgspec.json.encode({"rows": ["ä" * 100_000]})
    same(read(texts, body), texts.read(body, 1))


def at(place: int, odd: Any) -> bytes:
    whole = varied(random.Random(1), 3_000, extra=True)
    whole[place] = odd(whole[place]) if callable(odd) else odd
    return msgspec.json.encode({"rows": whole})


@pytest.mark.parametrize("place", [0, 1_499, 2_999])
@pytest.mark.parametrize(
    "odd",
    [
        {"ids": [1.5], "extra": [0, 1]}, {"ids": [1]}, {"ids": [1, "2"], "extra": [0, 1]}, 7, None,
        {"ids": [1], "extra": [0, 1], "other": 1}, {"ids": [0] * 41, "extra": [0, 1]},
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_is_named_as_ever(place: int, odd: Any) -> None:
    given, body = JsonRows(about(*VARIED)), at(place, odd)
    with pytest.raises(RefusedError) as at_once:
        given.read(body, 3_000)
    with pytest.raises(RefusedError) as in_parts:
        read(given, body)
    told = in_parts.value
    assert told.status == at_once.value.status == 400
    if odd != {"ids": [1]}:  # which of two rows is the odd one, nobody knows
        assert (told.row, str(told)) == (at_once.value.row, str(at_once.value))


def test_what_is_wrong_around_the_rows_is_said_as_ever() -> None:
    given, whole = JsonRows(about(*VARIED)), varied(random.Random(1), 3_000, extra=True)
    for more in ({"timeout_ms": -1}, {"priority": "a"}, {"other": 1}, {"rows": "a" * (1 << 17)}):
        body = msgspec.json.encode({"rows": whole, **more})
        with pytest.raises(RefusedError) as at_once:
            given.read(body, 3_000)
        with pytest.raises(RefusedError) as in_parts:
            read(given, body)
        assert str(in_parts.value) == str(at_once.value)
    body = msgspec.json.encode({"rows": whole})
    for broken in (body[:-1], body[:-2] + b",]}", body.replace(b"[", b"[NaN,", 1), body + b"}"):
        with pytest.raises(RefusedError, match="JSON"):
            read(given, broken)
    with pytest.raises(RefusedError, match="ask twice"):
        read(given, body, most=2_999)


@pytest.mark.parametrize("row", ["1", "[]", "{}", '""'])
def test_rows_by_the_million_are_refused_before_they_are_made(row: str) -> None:
    given = JsonRows(about("ids: i64[batch n]", encodes=True))
    body = f'{{"rows":[{",".join([row] * 1_000_000)}]}}'.encode()
    assert peak(given, body, 413, "more than 4,096 rows") < 1_000_000


@pytest.mark.parametrize("numbers", ["[%s]", '{"features":[%s]}', "[%s],[1,2]"])
def test_a_row_of_more_numbers_than_any_has_is_not_read(numbers: str) -> None:
    given = JsonRows(about("features: f32[batch 2 n=1..50000]"))
    body = b'{"rows":[%b]}' % (numbers % ",".join(["1.5"] * 1_000_000)).encode()
    assert peak(given, body, 400, "row 0 has more numbers than `features") < 3 * len(body)
    row = [[1.5] * 50_000] * 2
    assert read(given, msgspec.json.encode({"rows": [row]})).count == 1


def peak(given: JsonRows, body: bytes, status: int, said: str) -> int:
    """Bytes that were held while a body was refused."""
    read(given, b'{"rows":[]}' + b" " * (1 << 16), 4_096)  # what is made once
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match=said) as refused:
            read(given, body, 4_096)
        assert refused.value.status == status
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_who_leaves_is_read_no_further() -> None:
    given = JsonRows(about("features: f32[batch 400]"))
    body = msgspec.json.encode({"rows": [[0.0] * 400] * 2_000})
    asked = exchange("POST", "/", body)

    async def leave() -> None:
        reading = asyncio.ensure_future(read_rows(given, asked, 4_096))
        await asyncio.sleep(0)
        asked.left = True
        await reading

    with pytest.raises(RefusedError, match="left"):
        asyncio.run(leave())


def test_while_it_is_read_others_have_their_turns() -> None:
    given = JsonRows(about("features: f32[batch 400]"))
    body = msgspec.json.encode({"rows": [[0.1234567890123] * 400] * 4_000})

    async def turns() -> int:
        reading = asyncio.ensure_future(read_rows(given, exchange("POST", "/", body), 4_096))
        count = 0
        while not reading.done():
            await asyncio.sleep(0)
            count += 1
        await reading
        return count

    assert asyncio.run(turns()) > 20


def test_while_it_is_read_others_are_answered() -> None:
    service = StandIn(about("features: f32[batch 400]"))
    body = msgspec.json.encode({"rows": [[0.1234567890123] * 400] * 4_000})
    with (
        serving(rows, health, services={"mlp": service}) as front,
        front.client() as large,
        front.client() as other,
    ):
        large.send(request("/models/mlp", body))
        while not service.asked:
            other.send(request("/healthz", method="GET"))
            assert other.answer().status == 200
        assert large.answer().status == 200
