"""What the HTTP process and an engine process say to each other, over a Channel.

Rows are known by an id, which the HTTP process gives. Rows that the model encodes go to the engine
as values (`EncodeRows`), which keeps what it made of them and says how large it is (`RowsEncoded`),
until they are computed (`ComputeRows`) or forgotten (`ForgetRows`). Rows that came as tensors go
with `ComputeRows`. An engine that cannot be made tells the supervisor (`controls.ProcessFailed`),
and ends: whoever reads the end of the Channel knows that.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from forwardpass.nouns.costs import CostTable


class About(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What an engine says of its model, once it can compute.

    Attributes:
        forward: text of the Forward. digest: its SHA-256.
        inputs, outputs: the signature, a line each; none where the model has a collate.
        encodes: whether rows go through the engine's encoding: the model has an encode or a
            collate. Otherwise rows are objects of the inputs, and may come as tensors.
        tensors: whether rows may come as tensors, by the signature.
        columns: that its encode reads, as far as it says so or asks for them by name.
        decodes: whether the model has a decode of its own.
        axes: names of the axes along which rows vary. paddable: for each, whether rows of a batch
            may differ along it, which was proved.
        padding: what was proved, in a sentence.
        costs: what batches cost, as measured.
        steps: for each axis the sizes to which rows are padded, so that shapes come again; none
            where a new shape costs little.
        encode_seconds: that encoding one row took, as measured; 0 where none was.
        samples: what it was learned from, in a sentence.
        tolerance: how far the outputs of a row may move with its batch mates, relative; None where
            a pass draws random numbers.
        apart: each row is computed alone, since others would move it. mates: what is to be said of
            that, and of what is drawn; mostly nothing.
        device: that computes.
        example: a row that it answers, as JSON; "" where there is none, or none that is short.
    """

    forward: str
    digest: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    encodes: bool
    tensors: bool
    columns: tuple[str, ...]
    decodes: bool
    axes: tuple[str, ...]
    paddable: tuple[bool, ...]
    padding: str
    costs: CostTable
    samples: str
    tolerance: float | None
    device: str
    example: str = ""
    apart: bool = False
    mates: str = ""
    encode_seconds: float = 0.0
    steps: tuple[tuple[int, ...], ...] = ()


class EncodeRows(msgspec.Struct, frozen=True, tag=True):
    """Encode these rows: a value each, an object of columns or the value of the only one."""

    ids: list[int]
    values: list[Any]


class ComputeRows(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Compute a batch.

    Attributes:
        batch: its id.
        ids: of its rows. They were encoded here, unless `tensors`.
        tensors: the rows come with this message, as arrays by input path, in the order of `ids`.
        sizes: of the named axes, padded. cells: of a row at these.
        seed: what generators are seeded with.
        raw: for each row, whether its outputs are wanted as arrays, and not decoded as JSON.
    """

    batch: int
    ids: list[int]
    tensors: bool
    sizes: tuple[int, ...]
    cells: int
    seed: int
    raw: list[bool]


class ForgetRows(msgspec.Struct, frozen=True, tag=True):
    """These rows were cancelled or expired: let go of what was made of them."""

    ids: list[int]


class RowsEncoded(msgspec.Struct, frozen=True, tag=True):
    """Sizes of the named axes of rows that were encoded, and why others could not be; `truncated`
    are those that were cut at the upper bound of an axis, `forgotten` those that were let go of
    before: so each row is answered, and nothing waits for one that never comes. Of rows whose sizes
    were rounded up, `lengths` are what they had before that. `bytes` is what the engine keeps of
    all that were encoded, which took `seconds`."""

    ids: list[int]
    sizes: list[tuple[int, ...]]
    failures: list[tuple[int, str]]
    truncated: list[int] = []
    forgotten: list[int] = []
    lengths: dict[int, tuple[int, ...]] = {}
    bytes: int = 0
    seconds: float = 0.0


class RowsComputed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What came of a batch. The outputs of its raw rows come with it, by output path, in order.

    Where that does not fit into the Channel at once, it comes in several messages: of the first
    rows, then of the next ones. Places count from the first row of a message.

    Attributes:
        seconds: of computing. rows: for each row its JSON; None where it is raw or failed.
        failures: what the pass or decode raised, by place in the batch. large: places of those
            among them that do not fit into memory, each alone.
        refused_cells: the fewest cells of several rows that did not fit into memory together.
        more: the next rows of the batch come in another message.
    """

    batch: int
    seconds: float
    rows: list[bytes | None]
    failures: list[tuple[int, str]]
    refused_cells: int | None = None
    large: list[int] = []
    more: bool = False


ToEngine: TypeAlias = EncodeRows | ComputeRows | ForgetRows
FromEngine: TypeAlias = About | RowsEncoded | RowsComputed
