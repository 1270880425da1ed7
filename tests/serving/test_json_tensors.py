"""Data of a tensor in JSON: in parts they are what they are at once, and others have turns."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standing_in import exchange

from forwardpass.measuring.clocks import WALL
from forwardpass.serving import json_tensors
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.inference_tensors import TensorHeader, texts

DTYPES = {"FP32": "f4", "FP64": "f8", "INT64": "i8", "UINT8": "u1", "BOOL": "?"}


def item(shape: Sequence[int], data: Any, datatype: str = "FP32") -> TensorHeader:
    text = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return TensorHeader("x", [*shape], datatype, data=msgspec.Raw(text))


def read(header: TensorHeader) -> np.ndarray[Any, Any]:
    return asyncio.run(json_tensors.numbers(header, exchange("POST", "/")))


def texts_of(header: TensorHeader) -> list[str]:
    return asyncio.run(json_tensors.texts(header, exchange("POST", "/")))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4).flatmap(st.permutations),
    st.sampled_from([1, 300, 5_000, 30_000]), st.sampled_from(sorted(DTYPES)), st.booleans(),
    st.integers(0, 3),
)  # fmt: skip
def test_any_shape_is_read_flat_or_nested(
    shape: list[int], large: int, datatype: str, is_flat: bool, axis: int
) -> None:
    shape[axis % len(shape)] = max(1, large // int(np.prod(shape)))
    whole = (np.arange(np.prod(shape)) % 7 * (1 if datatype != "FP64" else 0.1)).reshape(shape)
    array = whole.astype(DTYPES[datatype])
    found = read(item(shape, (array.reshape(-1) if is_flat else array).tolist(), datatype))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    raw = asyncio.run(json_tensors.written(array, exchange("GET", "/")))
    assert msgspec.json.decode(raw) == array.reshape(-1).tolist()


ROWS = [[0.5] * 1_000 for _ in range(50)]


def changed(row: int, place: int, value: Any) -> list[list[Any]]:
    rows: list[list[Any]] = [list(one) for one in ROWS]
    rows[row][place] = value
    return rows


def flat(rows: list[list[Any]]) -> list[Any]:
    return [value for row in rows for value in row]


@pytest.mark.parametrize(
    ("shape", "data", "said"),
    [
        ([50, 1000], changed(33, 7, "a"), r"got `str` - at `\$\[33\]\[7\]`"),
        ([50_000], flat(changed(33, 7, "," * 200_000)), r"none from `\$\[\d+\]` on"),
        ([50_000], flat(changed(33, 7, None)), r"got `null` - at `\$\[33007\]`"),
        ([1, 50, 1000], [changed(33, 7, True)], r"got `bool` - at `\$\[0\]\[33\]\[7\]`"),
        ([50, 1000], [*ROWS[:-1], [0.5] * 999], r"inhomogeneous|expected \[50, 1000\]"),
        ([50, 1000], [*ROWS, [0.5] * 1000], r"expected \[50, 1000\], got 51"),
        ([50, 1000], [row[:-1] for row in ROWS], r"expected \[50, 1000\]"),
        ([50, 500, 2], ROWS, r"flat or as \[50, 500, 2\]"),
        ([50_001], flat(ROWS), r"expected \[50001\], got \[50000\]"),
        ([50, 1000], changed(49, 999, 1e300), "beyond the largest FP32"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_place_in_the_whole(
    shape: list[int], data: Any, said: str
) -> None:
    with pytest.raises(RefusedError, match=said) as caught:
        read(item(shape, data))
    assert caught.value.status == 400


LARGE = b"[" + b",".join([b"1"] * 100_000) + b"]"


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 100_000], b'[{"a":%b,"b":%b}]' % (LARGE, LARGE)),
        ([2, 100_000], b"[[1],[%b,%b]]" % (LARGE, LARGE)),
        ([2, 100_000], b"[%b,%b]" % (LARGE, LARGE.replace(b",", b"],[", 1))),
        ([2, 100_000], b'[%b,"%b"]' % (LARGE, LARGE)),
        ([2, 100_000], b'[[1],"%b"]' % (b"1" * 200_000)),
        ([1, 2, 100_000], b"[[%b],[%b]]" % (LARGE, LARGE)),
        ([1, 2, 100_000], b"[[%b,[%b]]]" % (LARGE, LARGE)),
        ([1, 2, 100_000], b"[[%b,[]],%b]" % (LARGE, LARGE)),
    ],
    ids=range(8),
)
def test_lists_that_are_not_nested_as_the_shape_is_are_refused(
    shape: list[int], data: bytes
) -> None:
    msgspec.json.decode(data)
    with pytest.raises(RefusedError, match="data"):
        read(item(shape, data))


def test_of_lists_of_several_sizes_each_is_read() -> None:
    """Where they end is looked for in the text, in which numbers may have any length."""
    array = np.ones((40, 20_000), "i8")
    array[7:11] = 2**62
    for blank in (b"", b" \n"):
        data = msgspec.json.encode(array.tolist()).replace(b",", blank + b",")
        data = data.replace(b"]", b"]" + blank)
        np.testing.assert_array_equal(read(item(array.shape, data, "INT64")), array)


@pytest.mark.parametrize("one", ["1", "[]", '""', "[1]"])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_lists_by_the_million_are_refused_before_they_are_made(one: str, datatype: str) -> None:
    data = f"[[1,2],{','.join([one] * 1_000_000)}]".encode()
    header = item([2, 2] if datatype == "FP32" else [2, 1], data, datatype)
    with pytest.raises(RefusedError):
        (read if datatype == "FP32" else texts_of)(header)  # what is made once
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match=r"data|texts"):
            (read if datatype == "FP32" else texts_of)(header)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data)
    finally:
        tracemalloc.stop()


def test_texts_are_read_flat_or_in_rows() -> None:
    given = ["ä, [b" * 100 * (n % 3) for n in range(1_000)]
    assert texts_of(item([1_000], given, "BYTES")) == given
    assert texts_of(item([1_000, 1], [[text] for text in given], "BYTES")) == given
    with pytest.raises(RefusedError, match=r"at `\$\[998\]`"):
        texts_of(item([1_000], [*given[:998], 1, "a"], "BYTES"))
    with pytest.raises(RefusedError, match="takes 1001 texts, got 1000"):
        texts_of(item([1_001], given, "BYTES"))


@pytest.mark.parametrize("data", [b"[%b1]" % (b" " * (1 << 22)), b" " * (1 << 22) + b"[1]"])
def test_blanks_cost_nothing(data: bytes) -> None:
    began = WALL.now()
    assert read(item([1], data)).tolist() == [1]
    assert WALL.now() - began < 1


def test_empty_elements_are_not_counted_for_ever() -> None:
    began = WALL.now()
    with pytest.raises(RefusedError, match="takes 3 elements"):
        texts(TensorHeader("x", [3], "BYTES"), memoryview(bytes(1 << 25)))
    assert WALL.now() - began < 1


def turns(work: Coroutine[Any, Any, Any]) -> int:
    """How often others have a turn while it is done."""

    async def count() -> int:
        done, counted = asyncio.ensure_future(work), 0
        while not done.done():
            await asyncio.sleep(0)
            counted += 1
        await done
        return counted

    return asyncio.run(count())


def test_others_have_their_turns_and_who_leaves_is_read_no_further() -> None:
    asked, array = exchange("POST", "/"), np.full((2, 100_000), 0.5, "f4")
    given, nested = array.reshape(-1).tolist(), array.tolist()
    for data in (given, nested):
        assert turns(json_tensors.numbers(item([2, 100_000], data), asked)) > 10
    assert turns(json_tensors.texts(item([200], ["a" * 9_000] * 200, "BYTES"), asked)) > 10
    assert turns(json_tensors.written(array, asked)) > 10
    asked.left = True
    with pytest.raises(RefusedError, match=re.escape("left")):
        asyncio.run(json_tensors.numbers(item([200_000], given), asked))
