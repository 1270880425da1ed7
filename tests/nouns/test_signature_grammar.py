"""The notation of inputs and outputs: what it says, how it prints, what it refuses."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass import Signature
from forwardpass.errors import GrammarError
from forwardpass.nouns import signatures
from forwardpass.nouns.signatures import DTYPES, Axis, Extent, Input, Output

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
axis_names = names.filter(lambda name: name != "batch")
paths = st.lists(names | st.integers(0, 20).map(str), min_size=1, max_size=3).map(".".join)
spaces = st.sampled_from(["", " ", "  ", "\t"])


@st.composite
def bounded_axes(draw: st.DrawFn, name: str) -> Axis:
    multiple = draw(st.sampled_from([1, 1, 2, 32]))
    if draw(st.booleans()):
        return Axis(name=name, multiple=multiple)
    high = multiple * draw(st.integers(1, 100))
    return Axis(name=name, low=draw(st.integers(1, high)), high=high, multiple=multiple)


@st.composite
def paddings(draw: st.DrawFn, dtype: str) -> float | int | bool:
    if dtype == "bool":
        return draw(st.booleans())
    if dtype[0] == "u":
        return draw(st.integers(0, 255))
    if dtype[0] == "i":
        return draw(st.integers(-128, 127))
    return draw(st.floats(allow_nan=False) | st.integers(-5, 5))


@st.composite
def inputs(draw: st.DrawFn) -> Input:
    variable = draw(st.lists(axis_names, max_size=2, unique=True))
    axes = [draw(bounded_axes(name)) for name in variable]
    axes += draw(st.lists(st.integers(1, 512).map(lambda size: Axis(size=size)), max_size=2))
    if draw(st.booleans()):
        axes.append(Axis(name="batch"))
    dtype = draw(st.sampled_from(DTYPES))
    padded = bool(variable) and draw(st.booleans())
    return Input(
        path=draw(paths),
        dtype=dtype,
        axes=tuple(draw(st.permutations(axes))),
        optional=draw(st.booleans()),
        pad=draw(paddings(dtype)) if padded else None,
        pad_left=padded and draw(st.booleans()),
    )


extents = st.one_of(
    st.integers(0, 512).map(lambda size: Extent(size=size)),
    st.builds(Extent, axis_names, st.just(0), st.integers(-500, 500), st.integers(1, 320)),
)


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    found = [Extent(name="batch"), *draw(st.lists(extents, max_size=3))]
    ordered = tuple(draw(st.permutations(found)))
    return Output(draw(paths), draw(st.sampled_from(DTYPES)), ordered)


@given(inputs())
def test_an_input_prints_and_parses_back(item: Input) -> None:
    assert Input.parse(str(item)) == item
    assert str(Input.parse(str(item))) == str(item)


@given(outputs())
def test_an_output_prints_and_parses_back(item: Output) -> None:
    assert Output.parse(str(item)) == item


@given(st.lists(inputs(), min_size=1, max_size=3))
def test_a_signature_is_its_lines(items: list[Input]) -> None:
    try:
        signature = Signature(tuple(items))
    except GrammarError:
        return  # two equal paths, one inside another, or two bounds of one axis
    assert Signature.parse(str(signature)) == signature
    assert Signature.parse([str(item) for item in items]) == signature


@given(spaces, spaces, spaces, spaces)
def test_space_means_nothing(a: str, b: str, c: str, d: str) -> None:
    text = f"{a}ids{b}?{c}:{d}i64{a}[{b}batch tokens=1..512{c}]{d}pad 0{a}"
    assert str(Input.parse(text)) == "ids?: i64[batch tokens=1..512] pad 0"


@pytest.mark.parametrize(
    "line",
    [
        "pixels: f32[batch 1 8 8]",
        "ids: i64[batch tokens=1..512] pad 0",
        "mask: i64[batch tokens] = valid(tokens)",
        "lengths: i64[batch] = length(tokens)",
        "wav_lens: f32[batch] = share(frames)",
        "image: f32[batch 3 height=32..1024%32 width=32..1024%32]",
        "h0: f32[2 batch 8]",
        "types?: i64[batch tokens] pad 0",
        "image.pixels: f32[batch 3 8 8]",
        "points.0: f32[batch 3]",
        "0: f32[batch 4]",
        "scale: f32[]",
        "ids: i64[batch tokens] pad 0 left",
        "scores: f32[batch tokens] pad -inf",
        "wide: i64[batch 1 1 tokens] = valid(tokens)",
        "bias: f32[batch tokens tokens] pad 0",
    ],
)
def test_the_lines_of_the_design_print_as_they_are_written(line: str) -> None:
    assert str(Input.parse(line)) == line


def test_what_a_signature_knows() -> None:
    signature = Signature.parse(
        """
        ids: i64[batch tokens=1..512] pad 0
        types?: i64[batch tokens] pad 0
        mask: i64[batch tokens] = valid(tokens)
        signal: f32[batch 2 samples]
        """,
        ["frames: f32[batch (samples-400)//320 768]", "pooled: f32[batch 384]"],
    )
    assert list(signature.variable) == ["tokens", "samples"]
    assert signature.variable["tokens"].high == 512
    assert [item.path for item in signature.given] == ["ids", "types", "signal"]
    assert signature.padded("tokens")
    assert not signature.padded("samples")
    assert signature.cells({"tokens": 7, "samples": 100}) == 107
    assert signature.outputs[0].shape(3, {"samples": 16000}) == (3, 48, 768)
    assert signature.inputs[3].batch_axis == 0
    assert [axis.name or axis.size for axis in signature.inputs[3].row_axes] == [2, "samples"]


def test_cells_of_a_square_input_are_squared() -> None:
    signature = Signature.parse(["ids: i64[batch n] pad 0", "bias: f32[batch n n] pad 0"])
    assert signature.cells({"n": 10}) == 110


def test_cells_are_one_where_nothing_varies() -> None:
    assert Signature.parse("pixels: f32[batch 1 8 8]").cells({}) == 1


@given(st.integers(1, 4096), st.sampled_from([1, 8, 32]), st.integers(1, 100))
def test_rounding_gives_the_smallest_permitted_size(size: int, multiple: int, low: int) -> None:
    rounded = Axis(name="n", low=low, multiple=multiple).rounded(size)
    assert rounded % multiple == 0
    assert rounded >= max(size, low)
    assert rounded - multiple < max(size, low)


REFUSED = {
    "ids": "cannot read the input 'ids': expected path",
    "ids: i64[batch tokens] pads 0": "for example `ids: i64[batch tokens=1..512] pad 0`",
    "ids: int64[batch]": "unknown dtype 'int64'; did you mean 'i64'? known: bf16, bool",
    "ids: i64[batch 3.5]": "'3.5' is not an axis; expected `batch`, a number, or a name",
    "ids: i64[batch n=0..4] pad 0": "axis 'n=0..4' has no permitted size",
    "ids: i64[batch n=5..4] pad 0": "axis 'n=5..4' has no permitted size",
    "ids: i64[batch n%0] pad 0": "axis 'n%0' has no permitted size",
    "ids: i64[batch n=1..70%32] pad 0": "ends at no multiple of 32; did you mean 64?",
    "ids: i64[batch=1..4]": "`batch` takes no bounds",
    "ids: i64[batch batch]": "at most one axis can be `batch`",
    "ids: i64[batch 4] pad 0": "`pad` needs an axis whose size varies",
    "ids: i64[batch n] pad zero": "'zero' is not a number to pad with",
    "ids: i64[batch n] pad 1.5": "i64 cannot be padded with 1.5",
    "ids: u8[batch n] pad -1": "u8 cannot be padded with -1",
    "ids: i8[batch n] pad 300": "i8 cannot be padded with 300",
    "ids: bool[batch n] pad 2": "bool cannot be padded with 2",
    "x: f32[batch n] pad true": "f32 cannot be padded with true",
    "x: f32[batch n] pad nan": "f32 cannot be padded with nan",
    "mask: i64[batch n] = valdi(n)": "unknown derived input 'valdi'; did you mean 'valid'?",
    "mask: i64[batch 3] = valid(n)": "valid(n) needs the axes [batch n]",
    "lengths: i64[3] = length(n)": "length(n) needs the axes [batch]",
    "wav_lens: f32[3] = share(n)": "share(n) needs the axes [batch]",
    "wav_lens: i64[batch] = share(n)": "share(n) is a number from 0 to 1, which i64 cannot hold",
    "wav_lens: bool[batch] = share(n)": "which bool cannot hold; give it f32",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items(), ids=REFUSED)
def test_refused_inputs(line: str, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        Input.parse(line)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


REFUSED_OUTPUTS = {
    "logits f32[batch]": "for example `logits: f32[batch 10]`",
    "logits: f32[10]": "exactly one axis must be `batch`",
    "logits: f32[batch batch]": "exactly one axis must be `batch`",
    "logits: f32[batch (n+1)//0]": "an axis is divided by 0",
    "logits: f32[batch n,m]": "'n,m' is not an axis; expected `batch`, a number, a name, or",
    "logits: float[batch]": "unknown dtype 'float'",
}


@pytest.mark.parametrize(("line", "message"), REFUSED_OUTPUTS.items(), ids=REFUSED_OUTPUTS)
def test_refused_outputs(line: str, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        Output.parse(line)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ("", None, "a signature needs at least one input"),
        ("a: f32[batch]\na: f32[batch]", None, "input 'a' is declared twice"),
        ("a: f32[batch]\na.b: f32[batch]", None, "input 'a.b' lies inside another input"),
        ("a: f32[batch]", ["y: f32[batch]", "y: f32[batch 2]"], "output 'y' is declared twice"),
        (
            "ids: i64[batch tokens] pad 0",
            "y: f32[batch token]",
            "no input has an axis 'token'; did you mean 'tokens'?",
        ),
        (
            "ids: i64[batch tokens] pad 0\nmask: i64[batch words] = valid(words)",
            None,
            "no given input has an axis 'words'",
        ),
        (
            "a: f32[batch n=1..4] pad 0\nb: f32[batch n=1..8] pad 0",
            None,
            "axis 'n' has two bounds: `n=1..4` and `n=1..8`",
        ),
    ],
)
def test_refused_signatures(inputs: str, outputs: str | None, message: str) -> None:
    with pytest.raises(GrammarError) as caught:
        Signature.parse(inputs, outputs)
    assert message in str(caught.value)


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(signatures).failed == 0
