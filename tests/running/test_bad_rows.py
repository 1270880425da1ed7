"""Bad rows are left out one by one: their mates are computed, and the run says what happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.errors import DataError, LeftOutError, PassError

ROWS = 13


def features(rows: int = ROWS) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(size=(rows, 16)).astype(np.float32)


def poisoned_at(places: set[int], rows: int = ROWS) -> np.ndarray[Any, Any]:
    values = features(rows)
    values[sorted(places), 3] = 2e6
    return values


def function(then: Callable[[torch.Tensor, torch.Tensor], Any], **more: Any) -> fwd.Model:
    """The linear layer of tests/models.py under another function."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fwd.Model(models.Function(then), models.FEATURES, **more)


def quarantine(out: Path) -> list[dict[str, Any]]:
    path = out / "quarantine.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def manifest(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return [line for line in lines if line["schema"] == "forwardpass/shard/1"]


def delivered(out: Path) -> dict[str, list[Any]]:
    whole: dict[str, list[Any]] = {}
    for entry in manifest(out):
        if entry["file"]:
            for name, values in pq.read_table(out / entry["file"]).to_pydict().items():
                whole.setdefault(name, []).extend(values)
    return whole


# -- poison in forward ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 5, 8, 64, "auto"])
def test_poison_at_each_position(batch: int | str) -> None:
    clean = fwd.run(models.poisoned(), {"features": features()}, batch=batch)[0]["output"]
    for place in range(ROWS):
        outputs, report = fwd.run(
            models.poisoned(), {"features": poisoned_at({place})}, batch=batch
        )
        mates = np.delete(np.arange(ROWS), place)
        torch.testing.assert_close(outputs["output"], clean[mates], rtol=1e-5, atol=1e-6)
        assert (report.rows, report.quarantined) == (ROWS - 1, 1)
        assert [(f.key, f.stage, f.position) for f in report.failures] == [
            (place, "compute", place)
        ]
        assert "poison: a feature is above 1e6" in report.failures[0].error


@pytest.mark.parametrize(
    "places", [{0, 1}, {0, 12}, {3, 4, 5, 9}, set(range(ROWS)) - {6}, set(range(0, ROWS, 2))]
)
@pytest.mark.parametrize("batch", [4, 32, "auto"])
def test_several_poisons(places: set[int], batch: int | str) -> None:
    clean = fwd.run(models.poisoned(), {"features": features()}, batch=batch)[0]["output"]
    outputs, report = fwd.run(models.poisoned(), {"features": poisoned_at(places)}, batch=batch)
    mates = np.setdiff1d(np.arange(ROWS), list(places))
    torch.testing.assert_close(outputs["output"], clean[mates], rtol=1e-5, atol=1e-6)
    assert [f.position for f in report.failures] == sorted(places)


@pytest.mark.parametrize("batch", [4, "auto"])
def test_poison_among_rows_of_different_length(batch: int | str) -> None:
    inner = models.masked_mean()

    class Poisoned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner.module

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            if bool((ids == 49).any()):
                raise ValueError("poison")
            return self.inner(ids, mask)

    assert inner.signature is not None
    model = fwd.Model(Poisoned(), [str(item) for item in inner.signature.inputs])
    ids = [np.arange(1, 1 + (i * 7) % 23 + 1) for i in range(12)]
    clean = fwd.run(model, {"ids": ids}, batch=batch)[0]["output"]
    for place in range(len(ids)):
        bad = [*ids]
        bad[place] = np.full(len(ids[place]), 49)
        outputs, report = fwd.run(model, {"ids": bad}, batch=batch)
        mates = np.delete(np.arange(len(ids)), place)
        torch.testing.assert_close(outputs["output"], clean[mates], rtol=1e-5, atol=1e-6)
        assert [f.position for f in report.failures] == [place]


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_rows_that_are_too_long_for_the_model_are_left_out(share: float) -> None:
    """As a table of positions raises: nothing in the signature says how long rows may be."""

    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(20, 4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.table(torch.arange(ids.shape[1])).sum(0) + ids.sum(1, keepdim=True)

    model = fwd.Model(Positions(), "ids: i64[batch tokens]", "output: f32[batch 4]")
    lengths = [30 if i < 20 * share else 1 + i for i in range(20)]
    long = {i for i, length in enumerate(lengths) if length > 20}
    outputs, report = fwd.run(model, {"ids": [np.ones(n, np.int64) for n in lengths]})
    assert {f.position for f in report.failures} == long
    assert report.rows == len(outputs["output"]) == 20 - len(long)


def test_long_rows_that_do_not_fit_into_memory_even_alone() -> None:
    class Bounded(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            if ids.numel() > 20:
                raise torch.OutOfMemoryError("tried to allocate too much")
            return ids.sum(1)

    model = fwd.Model(Bounded(), "ids: i64[batch tokens]", "output: i64[batch]")
    lengths = [30 if i % 2 else 1 + i for i in range(20)]
    outputs, report = fwd.run(model, {"ids": [np.ones(n, np.int64) for n in lengths]})
    assert [f.position for f in report.failures] == list(range(1, 20, 2))
    assert outputs["output"].tolist() == [n for n in lengths if n <= 20]


# -- rows that cannot be read, encoded, decoded, written -----------------------------------------


def jsonl(folder: Path, rows: list[Any]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return str(path)


def test_each_kind_of_bad_row_stands_in_the_quarantine(tmp_path: Path) -> None:
    good = [{"name": f"r{i}", "features": row.tolist()} for i, row in enumerate(poisoned_at({9}))]
    rows: list[Any] = [*good]
    rows[0] = "{not json"
    rows[2] = {"name": "short", "features": [1.0, 2.0]}
    rows[4] = {"name": "none", "features": None}
    rows[5] = {"name": "text", "features": "many words"}
    rows[6] = {"name": "mixed", "features": [1.0] * 15 + ["x"]}
    rows[7] = {"name": "absent"}
    report = fwd.run(
        models.poisoned(), jsonl(tmp_path, rows), tmp_path / "out", key="name", batch=4
    )
    lines = quarantine(tmp_path / "out")
    assert [set(line) for line in lines] == [{"key", "stage", "error", "position"}] * 7
    assert [(line["key"], line["stage"], line["position"]) for line in lines] == [
        (0, "read", 0),
        ("short", "encode", 2),
        ("none", "encode", 4),
        ("text", "encode", 5),
        ("mixed", "encode", 6),
        ("absent", "encode", 7),
        ("r9", "compute", 9),
    ]
    assert "expected a row of [16], got [2]" in lines[1]["error"]
    assert "features" in lines[3]["error"]
    assert all("\n" not in line["error"] for line in lines)
    assert report.quarantined == 7
    table = delivered(tmp_path / "out")
    assert table["name"] == ["r1", "r3", "r8", "r10", "r11", "r12"]
    expected = fwd.run(models.poisoned(), [good[1]])[0]["output"][0]
    assert table["output"][0] == pytest.approx(expected.tolist(), abs=1e-6)


class Positions(torch.nn.Module):
    """Takes 50 positions at most, and says so nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(50, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places = self.table(torch.arange(ids.shape[1]))
        return (ids * mask)[..., None].mul(places).sum(1)


def test_a_row_that_is_longer_than_the_model_takes_leaves_out_no_other() -> None:
    """Rows of its batch are padded to its size, which is more than they can be computed at."""
    rows = [np.ones(length, np.int64) for length in (45, 46, 47, 48, 49, 50, 51)]
    inputs = ["ids: i64[batch tokens] pad 0", "mask: i64[batch tokens] = valid(tokens)"]
    model = fwd.Model(Positions().eval(), inputs, "sums: f32[batch 4]")
    outputs, report = fwd.run(model, {"ids": rows}, batch=7)
    assert [failure.position for failure in report.failures] == [6]
    assert len(outputs["sums"]) == 6


def test_data_of_which_no_row_can_be_encoded(tmp_path: Path) -> None:
    """Nothing was computed by which a batch could be sized, and none is needed."""
    rows: list[Any] = [{"features": [1.0, 2.0]}, {"features": "many words"}]
    report = fwd.run(models.mlp(), jsonl(tmp_path, rows), tmp_path / "out")
    assert (report.rows, report.quarantined, report.batches) == (0, 2, 0)


def test_a_whole_block_of_the_data_without_the_column(tmp_path: Path) -> None:
    """The rows are read in blocks; a block of bad rows is no worse than its rows one by one."""
    rows: list[Any] = [{"id": i, "features": [1.0] * 16} for i in range(4096)]
    rows += [{"id": i, "other": 1} for i in range(4096)]
    rows += [{"id": 1, "features": [2.0] * 16}]
    report = fwd.run(models.mlp(), jsonl(tmp_path, rows), tmp_path / "out", batch=512)
    assert (report.rows, report.quarantined) == (4097, 4096)


def test_decode_that_raises_on_one_row(tmp_path: Path) -> None:
    def decode(outputs: Mapping[str, Any]) -> dict[str, Any]:
        if bool((outputs["output"][:, 0] > 1e3).any()):
            raise KeyError("no label")
        return {"label": outputs["output"].argmax(-1), "text": ["t"] * len(outputs["output"])}

    model = function(lambda x, y: torch.cat([x[:, :1], y], 1), decode=decode)
    values = features()
    values[[4, 5, 11], 0] = 1e4
    report = fwd.run(model, {"features": values}, tmp_path / "out", batch=8, outputs=["output"])
    assert [(f.position, f.stage) for f in report.failures] == [
        (4, "decode"),
        (5, "decode"),
        (11, "decode"),
    ]
    assert "KeyError: 'no label'" in report.failures[0].error
    table = delivered(tmp_path / "out")
    assert table["key"] == [i for i in range(ROWS) if i not in (4, 5, 11)]
    assert len(table["label"]) == len(table["output"]) == 10
    assert [row[0] for row in table["output"]] == values[table["key"], 0].tolist()


def test_a_kept_value_that_does_not_fit_the_type_of_the_first_shard(tmp_path: Path) -> None:
    rows = [{"features": [float(i)] * 16, "tag": i} for i in range(12)]
    rows[7]["tag"] = "seven"  # type: ignore[assignment]
    report = fwd.run(models.mlp(), rows, tmp_path / "out", keep=["tag"], shard_rows=4, batch=4)
    assert [(f.position, f.stage) for f in report.failures] == [(7, "write")]
    assert "'tag'" in report.failures[0].error
    assert "int64" in report.failures[0].error
    assert "seven" in report.failures[0].error
    table = delivered(tmp_path / "out")
    assert table["tag"] == [i for i in range(12) if i != 7]
    assert [entry["rows"] for entry in manifest(tmp_path / "out")] == [4, 3, 4]
    assert quarantine(tmp_path / "out")[0]["key"] == 7


@pytest.mark.parametrize(
    ("tags", "left_out"),
    [
        ([None, 1, "a", 2], {2}),
        ([1, 2.5, "x", 4], {2}),
        ([None, [1], "a", [2, 3]], {2}),
    ],
)
def test_only_the_value_that_does_not_fit_is_left_out(
    tmp_path: Path, tags: list[Any], left_out: set[int]
) -> None:
    """What fits without the odd value fits beside it."""
    rows = [{"features": [1.0] * 16, "tag": tag} for tag in tags]
    report = fwd.run(models.mlp(), rows, tmp_path / "out", keep=["tag"])
    assert {f.position for f in report.failures} == left_out
    assert delivered(tmp_path / "out")["tag"] == [
        tag for i, tag in enumerate(tags) if i not in left_out
    ]


@pytest.mark.parametrize(
    ("first", "later"),
    [(7, 2.5), (7, "007"), ("a", 7), (1, True), ("a", True), (1.5, "2.50")],
    ids=[
        "a fraction for a whole number",
        "text for a number",
        "a number for text",
        "a bool",
        "a bool for text",
        "text for a float",
    ],
)
def test_a_kept_value_never_turns_into_another(tmp_path: Path, first: Any, later: Any) -> None:
    """Shards whose column has another type: the value is as it was, or the row is left out."""
    block = 4096  # rows of JSON lines that are read together
    rows = [{"features": [1] * 16, "tag": tag} for tag in [first] * block + [later] * 3]
    fwd.run(
        models.mlp(),
        jsonl(tmp_path, rows),
        tmp_path / "out",
        keep=["tag"],
        shard_rows=block,
        batch=block,
    )
    later_tags = delivered(tmp_path / "out")["tag"][block:]
    assert all(tag == later and type(tag) is type(later) for tag in later_tags)


@pytest.mark.parametrize("later", [2.5, "2", True])
def test_a_decoded_value_never_turns_into_another(tmp_path: Path, later: Any) -> None:
    def decode(outputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"tag": [7 if value < 4 else later for value in outputs["output"][:, 0].tolist()]}

    values = np.repeat(np.arange(8, dtype=np.float32)[:, None], 16, axis=1)
    fwd.run(
        function(lambda x, y: x, decode=decode),
        {"features": values},
        tmp_path / "out",
        shard_rows=4,
    )
    tags = delivered(tmp_path / "out")["tag"]
    assert tags[:4] == [7] * 4
    assert all(tag == later and type(tag) is type(later) for tag in tags[4:])


def test_decoded_columns_that_differ_from_piece_to_piece_are_an_error_of_ours(
    tmp_path: Path,
) -> None:
    """A decode that names other columns for some rows than for others: said, not a KeyError."""

    def decode(outputs: Mapping[str, Any]) -> dict[str, Any]:
        values = outputs["output"]
        if len(values.unique()) > 1:
            raise ValueError("mixed")
        names = ["label"] if bool((values == 0).all()) else ["label", "extra"]
        return {name: [1] * len(values) for name in names}

    values = np.ones((8, 16), np.float32)
    values[4:] = 0
    with pytest.raises(fwd.ForwardpassError, match="extra"):
        fwd.run(
            function(lambda x, y: x, decode=decode), {"features": values}, tmp_path / "out", batch=8
        )


# -- out of memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [64, "auto"])
def test_out_of_memory_halves_the_batch_and_remembers_the_ceiling(
    tmp_path: Path, batch: int | str
) -> None:
    values = features(256)
    report = fwd.run(
        models.memory_bound(8), {"features": values}, tmp_path / "out", batch=batch, shard_rows=64
    )
    assert (report.rows, report.quarantined) == (256, 0)
    table = delivered(tmp_path / "out")
    assert table["key"] == list(range(256))
    expected = fwd.run(models.memory_bound(8), {"features": values}, batch=8)[0]["output"]
    torch.testing.assert_close(torch.tensor(table["output"]), expected, rtol=1e-5, atol=1e-6)
    entries = manifest(tmp_path / "out")
    if batch == 64:
        assert [entry["ceiling_cells"] for entry in entries] == [8] * 4
        assert [entry["batches"] for entry in entries[1:]] == [8] * 3, "later batches keep under it"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
        torch.OutOfMemoryError("HIP out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_out_of_memory_in_all_its_words(error: Exception, tmp_path: Path) -> None:
    def bounded(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if len(x) > 4:
            raise error
        return y

    report = fwd.run(
        function(bounded), {"features": features(64)}, tmp_path / "out", batch=32, shard_rows=32
    )
    assert (report.rows, report.quarantined) == (64, 0)
    assert [entry["ceiling_cells"] for entry in manifest(tmp_path / "out")] == [4, 4]


def heavy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if bool((x > 1e6).any()):
        raise torch.OutOfMemoryError("this row is too large")
    return y


def test_a_single_row_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    report = fwd.run(function(heavy), {"features": poisoned_at({5})}, tmp_path / "out", batch=8)
    assert [(f.position, f.stage) for f in report.failures] == [(5, "compute")]
    assert "this row is too large" in report.failures[0].error
    assert report.rows == ROWS - 1


def test_a_single_row_that_does_not_fit_does_not_slow_down_all_others(tmp_path: Path) -> None:
    report = fwd.run(
        function(heavy),
        {"features": poisoned_at({5}, 640)},
        tmp_path / "out",
        batch=64,
        shard_rows=64,
    )
    assert report.rows == 639
    assert manifest(tmp_path / "out")[-1]["batches"] <= 8


def test_mates_of_a_row_that_does_not_fit_are_computed_not_blamed(tmp_path: Path) -> None:
    for place in range(8):
        report = fwd.run(function(heavy), {"features": poisoned_at({place}, 8)}, batch=8)[1]
        assert [f.position for f in report.failures] == [place]


# -- truncated, NaN ------------------------------------------------------------------------------


def test_rows_cut_at_the_upper_bound_of_an_axis_are_counted(tmp_path: Path) -> None:
    ids = [np.ones(n, np.int64) for n in (3, 64, 65, 10, 200)]
    report = fwd.run(models.masked_mean(), {"ids": ids}, tmp_path / "out")
    assert (report.rows, report.truncated, report.quarantined) == (5, 2, 0)
    assert manifest(tmp_path / "out")[0]["truncated"] == 2


def test_texts_cut_by_a_tokenizer_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = tiny_bert(tmp_path)
    texts = ["the cat sat", "the cat " * 30, "a dog", "one two three " * 20]
    report = fwd.run(str(folder), [{"text": text} for text in texts])[1]
    assert (report.rows, report.truncated) == (4, 2)
    with pytest.raises(LeftOutError, match=r"row 1 .*cut at the maximum length"):
        fwd.run(str(folder), [{"text": text} for text in texts], strict=True)


def tiny_bert(folder: Path) -> Path:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "the", "cat", "sat", "a", "dog", "one", "two", "three"]
    tokenizer = Tokenizer(
        kinds.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = BertConfig(
        vocab_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    path = folder / "bert"
    BertModel(config).save_pretrained(path)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
    ).save_pretrained(path)
    return path


def test_rows_that_come_out_as_nan_are_counted_and_delivered(tmp_path: Path) -> None:
    values = np.abs(features())
    values[[2, 7], 0] = -1
    report = fwd.run(models.nan_rows(), {"features": values}, tmp_path / "out", batch=4)
    assert (report.rows, report.nan_rows, report.quarantined) == (ROWS, 2, 0)
    table = delivered(tmp_path / "out")
    assert [i for i, row in enumerate(table["output"]) if np.isnan(row).any()] == [2, 7]


# -- strict --------------------------------------------------------------------------------------


def one_read(folder: Path) -> tuple[Any, Any, int]:
    rows: list[Any] = [{"features": [1.0] * 16} for _ in range(6)]
    rows[3] = "{not json"
    return models.mlp(), jsonl(folder, rows), 3


def one_encode(folder: Path) -> tuple[Any, Any, int]:
    rows: list[Any] = [{"features": [1.0] * 16} for _ in range(6)]
    rows[4] = {"features": [1.0]}
    return models.mlp(), rows, 4


def one_compute(folder: Path) -> tuple[Any, Any, int]:
    return models.poisoned(), {"features": poisoned_at({2})}, 2


def one_memory(folder: Path) -> tuple[Any, Any, int]:
    return function(heavy), {"features": poisoned_at({5})}, 5


def one_decode(folder: Path) -> tuple[Any, Any, int]:
    def decode(outputs: Mapping[str, Any]) -> dict[str, Any]:
        if bool((outputs["output"] > 1e5).any()):
            raise ValueError("no label")
        return {"sum": outputs["output"].sum(1)}

    return function(lambda x, y: x, decode=decode), {"features": poisoned_at({6})}, 6


def one_cut(folder: Path) -> tuple[Any, Any, int]:
    return models.masked_mean(), {"ids": [np.ones(n, np.int64) for n in (3, 9, 90, 4)]}, 2


def one_nan(folder: Path) -> tuple[Any, Any, int]:
    values = np.abs(features())
    values[8, 0] = -1
    return models.nan_rows(), {"features": values}, 8


def one_write(folder: Path) -> tuple[Any, Any, int]:
    rows = [{"features": [1.0] * 16, "tag": "one" if i == 5 else i} for i in range(8)]
    return models.mlp(), rows, 5


@pytest.mark.parametrize(
    "case",
    [one_read, one_encode, one_compute, one_memory, one_decode, one_cut, one_nan, one_write],
    ids=lambda case: case.__name__,
)
def test_strict_stops_at_the_row_and_names_it(case: Callable[..., Any], tmp_path: Path) -> None:
    model, data, row = case(tmp_path)
    options: dict[str, Any] = {"keep": ["tag"]} if case is one_write else {}
    out = tmp_path / "out"
    with pytest.raises(LeftOutError, match=rf"--strict: row {row}\b") as caught:
        fwd.run(model, data, out, strict=True, shard_rows=4, batch=4, **options)
    assert caught.value.exit_code == 5
    assert all(entry["quarantined"] == 0 for entry in manifest(out)), "it stopped before"


def test_strict_is_silent_where_all_rows_are_good(tmp_path: Path) -> None:
    assert fwd.run(models.mlp(), {"features": features()}, tmp_path / "o", strict=True).rows == ROWS


def test_strict_goes_on_without_strict(tmp_path: Path) -> None:
    """strict decides no value: the run may be resumed without it."""
    data = {"features": poisoned_at({9})}
    with pytest.raises(LeftOutError):
        fwd.run(models.poisoned(), data, tmp_path / "o", strict=True, shard_rows=4, batch=4)
    report = fwd.run(models.poisoned(), data, tmp_path / "o", resume=True, shard_rows=4, batch=4)
    whole = fwd.run(models.poisoned(), data, tmp_path / "whole", shard_rows=4, batch=4)
    assert report.digest == whole.digest
    assert report.resumed_rows <= 8, "the shard of the bad row was not committed"
    assert quarantine(tmp_path / "o") == quarantine(tmp_path / "whole")


# -- nothing works -------------------------------------------------------------------------------


def test_a_model_that_raises_on_every_row(tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"Function\.forward raised on .*poison") as caught:
        fwd.run(models.poisoned(), {"features": features() + 1e7}, tmp_path / "out")
    assert caught.value.exit_code == 4
    assert isinstance(caught.value.__cause__, ValueError)


def test_data_that_do_not_fit_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="features") as caught:
        fwd.run(models.mlp(), {"features": np.ones((200, 3), np.float32)}, tmp_path / "out")
    assert caught.value.exit_code == 3
    with pytest.raises(DataError, match="no column for the input `features: f32"):
        fwd.run(models.mlp(), {"a": [1, 2], "b": [2, 3]})


def test_a_decode_that_raises_on_every_row_is_not_a_finished_run(tmp_path: Path) -> None:
    def decode(outputs: Mapping[str, Any]) -> dict[str, Any]:
        raise KeyError("logits")

    with pytest.raises(fwd.ForwardpassError, match="decode"):
        fwd.run(
            function(lambda x, y: y, decode=decode), {"features": features(300)}, tmp_path / "out"
        )


def test_exit_codes_of_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    np.save(tmp_path / "some.npy", poisoned_at({2}))
    np.save(tmp_path / "all.npy", features() + 1e7)
    np.save(tmp_path / "odd.npy", np.ones((200, 3), np.float32))

    def code(data: str, *more: str) -> tuple[int, str]:
        out = tmp_path / f"{data}{len(more)}"
        arguments = [f"{tmp_path / 'model.py'}", str(tmp_path / data), "-o", str(out / "o")]
        done = CliRunner().invoke(main, ["run", *arguments, *more])
        return done.exit_code, done.output

    assert code("some.npy")[0] == 5
    status, said = code("some.npy", "--strict")
    assert status == 5
    assert "row 2" in said
    assert code("all.npy")[0] == 4
    assert code("odd.npy")[0] == 3


MODEL = """
import torch
from torch import nn
from forwardpass import Model

torch.manual_seed(0)


class Poisoned(nn.Linear):
    def forward(self, features):
        if (features > 1e6).any():
            raise ValueError("poison")
        return super().forward(features)


model = Model(Poisoned(16, 4), "features: f32[batch 16]")
"""
