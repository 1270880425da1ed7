"""Rows as JSON become the arrays of the signature, or are refused with their place."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers
from standing_in import about

from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.json_rows import DEEPEST, AskedRows, JsonRows
from forwardpass.tensors.arrays import NUMPY

VECTOR = "features: f32[batch 3]"
MASKED = ("ids: i64[batch tokens=1..8] pad 0", "mask: i64[batch tokens] = valid(tokens)")


def read(body: Any, *inputs: str, most: int = 100, **more: Any) -> AskedRows:
    sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return JsonRows(about(*(inputs or (VECTOR,)), **more)).read(sent, most)


def refused(body: Any, *inputs: str, **more: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read(body, *inputs, **more)
    return caught.value


def array(asked: AskedRows, path: str) -> np.ndarray[Any, Any]:
    assert asked.arrays is not None
    value = asked.arrays[path]
    assert isinstance(value, np.ndarray)
    return value


def test_a_row_is_an_object_or_the_value_of_the_only_input() -> None:
    asked = read({"rows": [[1, 2, 3], {"features": [4.5, 5, 6]}], "timeout_ms": 250, "priority": 2})
    np.testing.assert_array_equal(
        array(asked, "features"), np.array([[1, 2, 3], [4.5, 5, 6]], "f4")
    )
    assert array(asked, "features").dtype == np.float32
    assert (asked.count, asked.timeout_seconds, asked.priority) == (2, 0.25, 2)
    assert asked.bytes == 24


def test_derived_inputs_are_not_given_and_axes_may_vary() -> None:
    asked = read({"rows": [[1, 2], [3, 4, 5]]}, *MASKED)
    assert asked.arrays is not None
    assert [row.tolist() for row in asked.arrays["ids"]] == [[1, 2], [3, 4, 5]]
    assert isinstance(asked.arrays["ids"], list)
    assert array(read({"rows": [[1, 2], [3, 4]]}, *MASKED), "ids").shape == (2, 2)
    assert "no such input: 'mask'" in str(refused({"rows": [{"ids": [1], "mask": [1]}]}, *MASKED))


def test_an_optional_input_is_there_for_all_rows_or_for_none() -> None:
    inputs = ("x: f32[batch 1]", "weight?: f32[batch]")
    both = {"x": [1], "weight": 0.5}
    assert set(read({"rows": [both]}, *inputs).arrays or ()) == {"x", "weight"}
    assert set(read({"rows": [{"x": [1]}]}, *inputs).arrays or ()) == {"x"}
    error = refused({"rows": [{"x": [1]}, both]}, *inputs)
    assert error.row == 1
    assert "row 1 has `weight` and row 0 has not" in str(error)


def test_values_to_encode_pass_as_they_are() -> None:
    rows = ["a text", {"text": "b", "n": [1, None, True, 1.5]}, None, 2**63]
    asked = read({"rows": rows}, "ids: i64[batch tokens]", encodes=True)
    assert asked.values == rows
    assert asked.arrays is None
    assert refused(b'{"rows": ["a", 18446744073709551616]}', encodes=True).row == 1
    assert "not UTF-8" in str(refused(b'{"rows": ["\xff"]}', encodes=True))


@pytest.mark.parametrize(
    ("body", "said", "row"),
    [
        (b"", "the body is empty", None),
        (b'{"rows": [[1, 2, 3]', "not JSON: Input data was truncated", None),
        (b'{"rows": [[1, NaN, 3]]}', "NaN (byte 14) is no number of JSON", None),
        (b'{"rows": [[1, -Infinity, 3]]}', "Infinity (byte 15) is no number", None),
        (b'{"\xff": 1}', "the body is not UTF-8", None),
        (b"[" * 100_000, "the body: expected `object`, got `array`; send", None),
        (b'{"rows": ' + b"[" * 100_000, "rows[0][0]: expected `float`, got `array`", 0),
        (b"[[1, 2, 3]]", 'send {"rows": [one, another, …]}', None),
        ({"row": []}, "no such field: 'row'; did you mean 'rows'?", None),
        ({"rows": {}}, "rows: expected `array`, got `object`", None),
        ({"rows": [[1, 2, 3], [1, 2]]}, "rows[1]: expected `array` of length >= 3, got 2", 1),
        ({"rows": [[1, 2, 3, 4]]}, "of length <= 3, got 4; it is `features: f32[batch 3]`", 0),
        ({"rows": [{"features": [1, 2]}]}, "rows[0].features: expected `array` of length", 0),
        ({"rows": [[1, 2, True]]}, "rows[0][2]: expected `float`, got `bool`", 0),
        ({"rows": [[1, 2, None]]}, "rows[0][2]: expected `float`, got `null`", 0),
        ({"rows": [[1, 2, "3"]]}, "rows[0][2]: expected `float`, got `str`", 0),
        ({"rows": [[1, 2, 1e39]]}, "rows[0][2]: expected `float` <= 3.4028234663852886e+38", 0),
        (b'{"rows": [[1, 2, 1e999]]}', "rows[0][2]: number out of range", 0),
        ({"rows": [None]}, "rows[0]: expected `object | array`, got `null`", 0),
        ({"rows": [{}]}, "rows[0]: object missing required field `features`", 0),
        ({"rows": [{"featurse": [1, 2, 3]}]}, "'featurse'; did you mean 'features'?", 0),
        ({"rows": [[1, 2, 3]], "timeout_ms": 0}, "timeout_ms: expected `float` > 0.0", None),
        ({"rows": [[1, 2, 3]], "timeout_ms": "1"}, "timeout_ms: expected `float | null`", None),
        ({"rows": [[1, 2, 3]], "priority": 1.5}, "priority: expected `int`, got `float`", None),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(body: Any, said: str, row: int | None) -> None:
    error = refused(body)
    assert said in str(error)
    assert (error.status, error.row) == (400, row)


@pytest.mark.parametrize(
    ("inputs", "row", "said"),
    [
        (["n: i8[batch 1]"], [128], "rows[0][0]: expected `int` <= 127"),
        (["n: u8[batch 1]"], [-1], "rows[0][0]: expected `int` >= 0"),
        (["n: i64[batch 1]"], [2**63], "expected `int` <= 9223372036854775807"),
        (["n: i64[batch 1]"], [1.5], "expected `int`, got `float`"),
        (["n: i64[batch 1]"], [True], "expected `int`, got `bool`"),
        (["n: bool[batch 1]"], [1], "expected `bool`, got `int`"),
        (["x: f16[batch 1]"], [1e5], "expected `float` <= 65504"),
        (["x: f32[batch 1]"], [[1]], "expected `float`, got `array`"),
        (["x: f32[batch 2 n=1..9]"], [[1, 2], [3]], "several lengths along one axis"),
        (["x: f32[batch n=4..9]"], [1, 2], "expected `array` of length >= 4, got 2"),
        (["x: f32[batch n=4..9%3] pad 0"], [1] * 10, "expected `array` of length <= 9, got 10"),
        (["x: f32[batch n%3]"], [1] * 4, "fill it up to a multiple of 3"),
        (["x: f32[batch n]", "y: f32[batch n]"], {"x": [1], "y": [1, 2]}, "axis 'n' is 2 in `y`"),
        (["x: f32[batch 1]", "y: f32[batch]"], [1], "a row is an object of `x: f32[batch 1]`"),
        (["a.b: f32[batch 1]", "c: f32[batch]"], {"a.b": [1, 2], "c": 1}, "length <= 1, got 2"),
    ],
)
def test_what_does_not_fit_the_signature(inputs: list[str], row: Any, said: str) -> None:
    error = refused({"rows": [row]}, *inputs)
    assert said in str(error)
    assert (error.status, error.row) == (400, 0)


@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [[1, 2]', b'{"rows": [[1, 2], NaN]}', b'{"rows": [[1, 2], "\xff"]}',
        b'{"rows": [[1, 2], ' + b"[" * 100_000, b'{"rows": [[1, 2]], "rows": []}',
        b'{"rows": [[1, 2]], "rows": 7}',
    ],
)  # fmt: skip
def test_what_comes_behind_a_row_that_does_not_fit_may_be_no_json(body: bytes) -> None:
    error = refused(body)
    assert (error.status, error.row) == (400, 0)
    assert "rows[0]: expected `array` of length >= 3; it is `features" in str(error)


@pytest.mark.parametrize("form", ['{"rows":[],"%s":1}', '{"rows":[{"%s":1}]}'])
@pytest.mark.parametrize("end", ["", " - at `$.rows[" + "9" * 5_000 + "]"])
def test_a_name_of_megabytes_costs_what_reading_it_costs(form: str, end: str) -> None:
    body = (form % ("x" * 2_000_000 + end)).encode()
    tracemalloc.start()
    try:
        error = refused(body)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()
    assert error.status == 400
    assert len(str(error)) < 1_000


def test_limits_of_rows_and_of_depth() -> None:
    error = refused({"rows": [[1, 2, 3]] * 3}, most=2)
    assert (error.status, str(error)) == (413, "3 rows; a request may hold 2: ask twice")
    assert read({"rows": []}).count == 0

    def nested(depth: int) -> bytes:
        return b'{"rows": [' + b"[" * depth + b"1" + b"]" * depth + b"]}"

    assert read(nested(DEEPEST - 1), encodes=True).count == 1
    assert refused(nested(DEEPEST), encodes=True).row == 0
    assert "too deeply" in str(refused(nested(100_000), encodes=True))


@st.composite
def signatures(draw: st.DrawFn) -> tuple[list[str], dict[str, Any]]:
    """Inputs of any dtypes and axes, and a batch of arrays of these."""
    rows, sizes = draw(st.integers(1, 4)), st.integers(1, 3)
    inputs: list[str] = []
    arrays: dict[str, Any] = {}
    for n in range(draw(sizes)):
        dtype = draw(st.sampled_from(sorted(NUMPY)))
        shape = draw(st.lists(sizes, max_size=3))
        inputs.append(f"x.{n}: {dtype}[batch {' '.join(map(str, shape))}]")
        held = NUMPY[dtype]
        finite = numbers.from_dtype(held, allow_nan=False, allow_infinity=False)
        arrays[f"x.{n}"] = draw(numbers.arrays(held, (rows, *shape), elements=finite))
    return inputs, arrays


def listed(value: np.ndarray[Any, Any]) -> Any:
    """As JSON has it: complex numbers are pairs."""
    return (np.stack((value.real, value.imag), -1) if value.dtype.kind == "c" else value).tolist()


@settings(max_examples=150, deadline=None)
@given(signatures())
def test_arrays_come_back_as_they_were(drawn: tuple[list[str], dict[str, Any]]) -> None:
    inputs, arrays = drawn
    count = len(arrays["x.0"])
    rows = [{path: listed(value[row]) for path, value in arrays.items()} for row in range(count)]
    asked = read({"rows": rows}, *inputs)
    for path, value in arrays.items():
        came = array(asked, path)
        assert came.dtype == value.dtype
        np.testing.assert_array_equal(came, value)
