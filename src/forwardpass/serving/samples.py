"""Rows like those that will come: of the user's data, of an artefact, else of our own making."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from forwardpass.building import golden
from forwardpass.errors import UsageError, contained
from forwardpass.executing.encoding import Encoder, Encodings, checked, together
from forwardpass.executing.first_rows import read_rows
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.rows import MissingColumn, Rows
from forwardpass.nouns.signatures import Axis, Signature
from forwardpass.running.columns import to_python
from forwardpass.tensors.arrays import rows_first
from forwardpass.tensors.blocks import Block

_ROWS: Final = 512
"""Rows of data that are looked at: enough for common sizes, and for some that are rare."""
_DRAWN: Final = 2
"""Rows drawn of each size."""
_STEPS: Final = 5
"""Sizes of what is drawn, in even steps along a variable axis."""
_LONGEST: Final = 512
_TIMES_LONGER: Final = 8
"""What an axis goes up to where its bound is further away, or there is none."""
_TEXT: Final = "the model reads what people write to it and answers each of them in time"
_WORD_COUNTS: Final = (1, 4, 16, 64, 256)
_MOST_COLUMNS: Final = 16
_MORE: Final = "; --samples DATA learns from rows of yours"
_PICTURE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVR42mNsaGhgIAUwMZAIRjWMahg6GgDJTAGg"
    "54KQ4AAAAABJRU5ErkJggg=="
)
"""A grey square, a PNG in base64."""
_EXAMPLE_LENGTH: Final = 2_000


class Samples(NamedTuple):
    """Rows to learn from.

    Attributes:
        forward: with the signature that the rows have, where it has one.
        rows: the rows, encoded.
        said: where they are from.
        columns: that its encode reads, as far as it says, or asked for them.
        example: a row that may be asked for, as JSON; "" where nobody can say one, or it is long.
        encode_seconds: that encoding one row took, about; 0 where none was encoded.
    """

    forward: Forward
    rows: Encodings
    said: str
    columns: tuple[str, ...]
    example: str
    encode_seconds: float


def samples_of(forward: Forward, data: str | None) -> Samples:
    """Rows of `data`, where it is given; else the golden ones of an artefact; else texts for a
    model that reads text, or numbers drawn by the signature, which is guessed where nobody says it.

    Raises DataError where no row of the data can be read or encoded, UsageError where nothing says
    what goes in.
    """
    model = forward.model
    read = _read(model)
    encode_seconds = read.encode_seconds
    if data is not None:
        first = read_rows(forward, data, _ROWS)
        forward, rows, encode_seconds = first.forward, first.whole, first.encode_seconds
        said = f"{_counted(rows)} of {data}"
    elif model.collate is not None:
        raise UsageError(
            f"{model.name} has a collate, and nothing says what goes into it: give --samples DATA, "
            "some rows such as will be asked for"
        )
    elif isinstance(model.program, ArtefactProgram):
        rows = _golden(model.program, model.signature)
        said = f"its {len(rows)} golden rows{_MORE}"
    elif read.texts is not None and len(read.texts):
        rows = read.texts
        said = f"texts of ours, {_spread(rows)}{_MORE}"
    else:
        guessed = ""
        if model.signature is None:
            forward, guessed = _guessed(forward)
        rows = _drawn(forward)
        said = f"rows that were drawn by the signature{guessed}{_MORE}"
    example = read.example or _example(model, rows)
    return Samples(forward, rows, said, read.columns, example, encode_seconds)


def _golden(program: ArtefactProgram, signature: Signature | None) -> Block:
    """The golden rows, as long as their batches."""
    assert signature is not None  # an artefact has one
    blocks: list[Encodings] = []
    for batch, _ in golden.read(program.folder, program.artefact.lowered):
        values = {
            item.path: rows_first(batch[item.path], item.batch_axis or 0)
            for item in signature.given
            if item.path in batch
        }
        blocks.append(checked(signature, values, len(next(iter(values.values()))))[0])
    whole = together(blocks)
    assert isinstance(whole, Block)
    return whole


class _Read(NamedTuple):
    """What an encode reads.

    Attributes:
        columns: that it says, or asked for. texts: some of ours that it encoded.
        example: a row that it encoded, as JSON, or "".
        encode_seconds: that it took for one of them; 0 where it encoded none.
    """

    columns: tuple[str, ...] = ()
    texts: Block | None = None
    example: str = ""
    encode_seconds: float = 0.0


def _read(model: Model) -> _Read:
    """What the encode of a model reads: it is given texts, then a picture, in the columns that it
    asks for."""
    if model.encode is None or model.signature is None:
        return _Read(model.text_columns)
    words = _TEXT.split()
    texts = [
        " ".join(words[(place + n) % len(words)] for n in range(count))
        for count in _WORD_COUNTS
        for place in range(_DRAWN)
    ]
    encoder, asked = Encoder(model), set[str]()
    for values, shown in ((texts, "A sentence to try."), ([_PICTURE], _PICTURE)):
        for declared in dict.fromkeys(((), model.text_columns[:1], model.text_columns)):
            columns, done = _asked(model.encode, values, declared)
            with Stopwatch() as encoding:
                block = encoder(_rows(columns, values)).block if columns and done else None
            if isinstance(block, Block) and len(block):
                row = shown if len(columns) == 1 else dict.fromkeys(columns, shown)
                example = msgspec.json.encode(row).decode()
                said = model.text_columns or columns
                spent = encoding.seconds / len(values)
                return _Read(said, block if values is texts else None, example, spent)
            asked.update(columns)
    return _Read(model.text_columns or tuple(sorted(asked)))


def _asked(
    encode: Callable[[Rows], Any], values: list[str], columns: tuple[str, ...]
) -> tuple[tuple[str, ...], bool]:
    """The columns that an encode asks for, beside those that it says, until it asks for no more;
    and whether it encoded them."""
    for _ in range(_MOST_COLUMNS):
        try:
            with contained():
                encode(_rows(columns, values))
        except MissingColumn as error:
            if error.name in columns:
                break
            columns = (*columns, error.name)
        except Exception:  # noqa: BLE001 - it takes something else; what it asked for is known
            break
        else:
            return columns, True
    return columns, False


def _rows(columns: tuple[str, ...], values: list[str]) -> Rows:
    # Positions count from 1: the first row of all data is what a whole run is refused for.
    return Rows(dict.fromkeys(columns, values), np.arange(1, len(values) + 1))


def _guessed(forward: Forward) -> tuple[Forward, str]:
    """The Forward with a signature that was found by trying, and what is said of that.

    Raises UsageError with the line to write where none was found, or rows meet with it.
    """
    model = forward.model
    if model.encode is not None:
        raise UsageError(
            f"{model.name} has an encode and no inputs; say what it makes: "
            "Model(module, inputs='ids: i64[batch tokens] pad 0', encode=…)"
        )
    from forwardpass.guessing import guess

    found = guess(forward, ("--samples DATA",))
    lines = "; ".join(map(str, found.signature.inputs))
    if not found.apart:
        raise UsageError(
            f"{model.name} has no signature. Passes go through with `{lines}`, and a row's outputs "
            "depend on the rows beside it, so that requests cannot share a batch. Say which axis "
            "is the batch: Model(module, inputs=[…])"
        )
    signed = Forward(model.with_signature(found.signature), forward.plan)
    return signed, f", which is guessed, since nobody said it: {lines}"


def _drawn(forward: Forward) -> Block:
    from forwardpass.executing.examples import drawn_rows

    signature = forward.model.signature
    assert signature is not None
    axes = signature.variable
    steps = range(_STEPS if axes else 1)
    sizes = [
        {name: _size(axis, step / (_STEPS - 1)) for name, axis in axes.items()} for step in steps
    ]
    unique = list({tuple(each.items()): each for each in sizes}.values())
    return drawn_rows(forward, unique, _DRAWN)


def _size(axis: Axis, share: float) -> int:
    """A size of an axis, a share of the way from the least to the largest that is sensible."""
    from forwardpass.executing.examples import permitted

    least = axis.rounded(1)
    most = permitted(axis, max(_LONGEST if axis.high else 0, _TIMES_LONGER * permitted(axis, 16)))
    return permitted(axis, math.exp((1 - share) * math.log(least) + share * math.log(most)))


def _counted(rows: Encodings) -> str:
    return "the only row" if len(rows) == 1 else f"the first {len(rows):,} rows"


def _spread(block: Block) -> str:
    """What sizes rows have."""
    ends = zip(
        block.signature.variable, block.sizes.min(axis=0), block.sizes.max(axis=0), strict=True
    )
    said = (f"{f'{low} to ' if low < high else ''}{high} {name}" for name, low, high in ends)
    return ", ".join(said) or "of one size"


def _example(model: Model, rows: Encodings) -> str:
    """A row as JSON: an object of arrays, or the array of the only input."""
    if model.encode is not None or not isinstance(rows, Block) or not len(rows):
        return ""
    first = int(np.argmin(rows.sizes.prod(axis=1)))
    values = {path: np.asarray(value[first]) for path, value in rows.values.items()}
    if sum(value.size for value in values.values()) > _EXAMPLE_LENGTH:
        return ""
    plain = {path: to_python([_short(value)])[0] for path, value in values.items()}
    alone = len(plain) == 1 and len(rows.signature.given) == 1
    text = msgspec.json.encode(next(iter(plain.values())) if alone else plain).decode()
    return text if len(text) <= _EXAMPLE_LENGTH else ""


def _short(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers with two digits behind the point."""
    if value.dtype.kind not in "fc":
        return value
    return np.round(value.astype(np.complex128 if value.dtype.kind == "c" else np.float64), 2)
