"""Where results go: folders of Parquet, .npy, standard output, memory; and what they look like."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import forwardpass as fwd
from forwardpass.errors import OutputExistsError, UsageError
from forwardpass.running.sinks import Shard
from forwardpass.running.sinks.memory import InMemory

ROWS = 10


def features(rows: int = ROWS) -> dict[str, np.ndarray[Any, Any]]:
    return {"features": np.random.default_rng(4).normal(size=(rows, 16)).astype(np.float32)}


def function(then: Callable[[torch.Tensor, torch.Tensor], Any], **more: Any) -> fwd.Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fwd.Model(models.Function(then), models.FEATURES, **more)


def shards(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return [line for line in lines if line["schema"] == "forwardpass/shard/1"]


def table(out: Path) -> Any:
    return pa.concat_tables([pq.read_table(out / shard["file"]) for shard in shards(out)])


# -- types of columns ----------------------------------------------------------------------------

F32 = pa.float32()


@pytest.mark.parametrize(
    ("then", "kind"),
    [
        (lambda x, y: y[:, 0], F32),
        (lambda x, y: y.double()[:, 0], pa.float64()),
        (lambda x, y: y.argmax(1), pa.int64()),
        (lambda x, y: y.argmax(1).to(torch.int8), pa.int8()),
        (lambda x, y: y.argmax(1).to(torch.uint8), pa.uint8()),
        (lambda x, y: y[:, 0] > 0, pa.bool_()),
        (lambda x, y: y > 0, pa.list_(pa.bool_(), 4)),
        (lambda x, y: y, pa.list_(F32, 4)),
        (lambda x, y: y[:, :1], pa.list_(F32, 1)),
        (lambda x, y: x.reshape(-1, 2, 8), pa.list_(pa.list_(F32, 8), 2)),
        (
            lambda x, y: x.reshape(-1, 2, 2, 4),
            pa.list_(pa.list_(pa.list_(F32, 4), 2), 2),
        ),
        (lambda x, y: y.bfloat16(), pa.list_(F32, 4)),
        (lambda x, y: y.half(), pa.list_(pa.float16(), 4)),
        (lambda x, y: y.T.contiguous().T, pa.list_(F32, 4)),
    ],
    ids=[
        "f32", "f64", "i64", "i8", "u8", "bool", "bool[4]", "f32[4]", "f32[1]", "f32[2 8]",
        "f32[2 2 4]", "bf16[4]", "f16[4]", "strided",
    ],
)  # fmt: skip
def test_outputs_become_typed_columns(
    then: Callable[[torch.Tensor, torch.Tensor], Any], kind: pa.DataType, tmp_path: Path
) -> None:
    fwd.run(function(then), features(), tmp_path / "out", shard_rows=4, batch=4)
    came = table(tmp_path / "out")
    assert came.column_names == ["key", "output"]
    assert came.schema.field("key").type == pa.int64()
    assert _without_names(came.schema.field("output").type) == _without_names(kind)
    module = function(then).module.eval()
    with torch.inference_mode():
        expected = module(torch.from_numpy(features()["features"]))
    values = torch.tensor(came["output"].to_pylist(), dtype=torch.float64)
    torch.testing.assert_close(values, expected.double(), rtol=1e-2, atol=1e-3)
    memory, _ = fwd.run(function(then), features(), batch=4)
    assert memory["output"].dtype == expected.dtype
    assert torch.equal(memory["output"].double(), values), "memory and Parquet: the same bits"


def _without_names(kind: pa.DataType) -> str:
    return str(kind).replace("item: ", "").replace("element: ", "")


def decoded(outputs: Mapping[str, Any]) -> dict[str, Any]:
    first = outputs["output"][:, 0].tolist()
    return {
        "whole": [int(abs(v) * 10) for v in first],
        "number": np.asarray(first),
        "yes": [v > 0 for v in first],
        "word": [f"w{v:.1f} ü" for v in first],
        "vector": outputs["output"].bfloat16(),
        "matrix": outputs["output"].reshape(-1, 2, 2),
        "ragged": [np.arange(int(abs(v) * 10) % 3) for v in first],
        "boxes": [torch.ones(int(abs(v) * 10) % 3, 4) for v in first],
        "lists": [[1.5] * (int(abs(v) * 10) % 3) for v in first],
        "record": [{"label": "a", "score": v} for v in first],
        "missing": [None if v > 0 else v for v in first],
    }


def test_decoded_columns_are_typed(tmp_path: Path) -> None:
    model = function(lambda x, y: y, decode=decoded)
    fwd.run(model, features(), tmp_path / "out", shard_rows=4, batch=4)
    came = table(tmp_path / "out")
    kinds = {field.name: _without_names(field.type) for field in came.schema}
    assert kinds == {
        "key": "int64",
        "whole": "int64",
        "number": "double",
        "yes": "bool",
        "word": "string",
        "vector": "fixed_size_list<float>[4]",
        "matrix": "fixed_size_list<fixed_size_list<float>[2]>[2]",
        "ragged": "list<int64>",
        "boxes": "list<fixed_size_list<float>[4]>",
        "lists": "list<double>",
        "record": "struct<label: string, score: double>",
        "missing": "double",
    }
    memory, _ = fwd.run(model, features(), batch=4)
    for name in ("whole", "word", "lists", "record", "missing", "yes"):
        assert came[name].to_pylist() == list(memory[name]), name
    for name in ("ragged", "boxes", "vector", "matrix"):
        assert came[name].to_pylist() == [row.tolist() for row in memory[name]], name


def test_ragged_outputs_of_rows_of_different_length(tmp_path: Path) -> None:
    model = models.strided()
    samples = [np.ones((1, n), np.float32) * n for n in (25, 40, 61, 40, 99)]
    fwd.run(model, {"samples": samples}, tmp_path / "out", shard_rows=2)
    came = table(tmp_path / "out")
    kind = _without_names(came.schema.field("output").type)
    assert kind == "list<fixed_size_list<float>[8]>"
    memory, _ = fwd.run(model, {"samples": samples})
    assert [len(row) for row in memory["output"]] == [(n - 15) // 10 for n in (25, 40, 61, 40, 99)]
    for written, row in zip(came["output"].to_pylist(), memory["output"], strict=True):
        # other shards are other batches: the same rows up to rounding
        torch.testing.assert_close(torch.tensor(written), torch.as_tensor(row))


def test_bf16_is_kept_exactly_as_f32(tmp_path: Path) -> None:
    """Every bfloat16 there is, among them those that f16 or rounding would change."""
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    bits = bits.reshape(-1, 16)
    bits = bits[torch.isfinite(bits.float()).all(1)]
    model = function(lambda x, y: x.bfloat16())
    fwd.run(model, {"features": bits.float().numpy()}, tmp_path / "out")
    came = np.array(table(tmp_path / "out")["output"].to_pylist(), np.float32)
    assert np.array_equal(came.view(np.uint32), bits.float().numpy().view(np.uint32))


# -- key and kept columns ------------------------------------------------------------------------


def rich_table() -> pa.Table:
    zone = pa.timestamp("us", tz="Europe/Berlin")
    moment = datetime.datetime(2024, 2, 29, 12, 30, 1, 250)
    return pa.table(
        {
            "id": pa.array([f"row-{i}" for i in range(ROWS)]),
            "when": pa.array([moment + datetime.timedelta(hours=i) for i in range(ROWS)]),
            "zoned": pa.array(
                [moment.replace(tzinfo=datetime.UTC)] * ROWS, pa.timestamp("us", tz="UTC")
            ).cast(zone),
            "nanoseconds": pa.array(range(1, ROWS + 1), pa.timestamp("ns")),
            "day": pa.array([datetime.date(2024, 1, i + 1) for i in range(ROWS)]),
            "money": pa.array([decimal.Decimal(f"{i}.10") for i in range(ROWS)]),
            "category": pa.array(["a", "b"] * (ROWS // 2)).dictionary_encode(),
            "nested": pa.array([{"tags": ["x"] * (i % 3), "n": i} for i in range(ROWS)]),
            "small": pa.array(range(ROWS), pa.uint8()),
            "raw": pa.array([bytes([i, 255]) for i in range(ROWS)]),
            "holes": pa.array([None, 1] * (ROWS // 2), pa.int32()),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(np.arange(ROWS * 2, dtype=np.float32)), 2
            ),
            "features": pa.FixedSizeListArray.from_arrays(
                pa.array(features()["features"].reshape(-1)), 16
            ),
        }
    )


KEPT = [name for name in rich_table().column_names if name not in ("id", "features")]


@pytest.mark.parametrize("shard_rows", [4, 100])
def test_kept_columns_of_parquet_keep_their_types(tmp_path: Path, shard_rows: int) -> None:
    data = rich_table()
    pq.write_table(data, tmp_path / "data.parquet", row_group_size=3)
    fwd.run(
        models.mlp(),
        str(tmp_path / "data.parquet"),
        tmp_path / "out",
        key="id",
        keep=KEPT,
        shard_rows=shard_rows,
    )
    came = table(tmp_path / "out")
    assert came.column_names == ["id", *KEPT, "output"]
    for name in ["id", *KEPT]:
        assert came[name].cast(data[name].type).equals(data[name]), name
        if name != "category":
            assert came.schema.field(name).type == data.schema.field(name).type, name
    assert pa.types.is_dictionary(came.schema.field("category").type)


@pytest.mark.parametrize("name", KEPT)
def test_kept_columns_on_standard_output_and_in_memory(
    name: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    pq.write_table(rich_table(), tmp_path / "data.parquet")
    outputs, _ = fwd.run(models.mlp(), str(tmp_path / "data.parquet"), keep=[name])
    assert len(outputs[name]) == ROWS
    with pytest.MonkeyPatch.context() as patch:
        stream = _Stdout()
        patch.setattr("sys.stdout", stream)
        fwd.run(models.mlp(), str(tmp_path / "data.parquet"), "-", keep=[name])
    lines = [json.loads(line) for line in stream.buffer.getvalue().splitlines()]
    assert len(lines) == ROWS
    assert list(lines[0]) == ["key", name, "output"]


class _Stdout:
    def __init__(self) -> None:
        import io

        self.buffer = io.BytesIO()

    def write(self, text: str) -> int:
        raise AssertionError(f"{text!r} was printed between the rows")

    def flush(self) -> None: ...


@pytest.mark.parametrize("values", [["a", "b"], [1, 2], [1.5, 2.5], [None, "b"], [[1], [2]]])
def test_a_kept_column_that_is_called_key(values: list[Any], tmp_path: Path) -> None:
    """As the data of an earlier run has one. Kept whole, or refused; never a traceback."""
    rows = [{"features": [1.0] * 16, "key": value} for value in values]
    try:
        fwd.run(models.mlp(), rows, tmp_path / "out", keep=["key"])
    except UsageError as error:
        assert "key" in str(error)  # noqa: PT017
    else:
        assert table(tmp_path / "out")["key"].to_pylist() == values


# -- shards, manifest ----------------------------------------------------------------------------


@pytest.mark.parametrize("shard_rows", [1, 3, 5, 7, 10, 11])
@pytest.mark.parametrize("batch", [2, "auto"])
def test_rows_and_shards_in_input_order(shard_rows: int, batch: int | str, tmp_path: Path) -> None:
    ids = [np.arange(1, 2 + (i * 7) % 13) for i in range(ROWS)]
    names = [f"n{i}" for i in range(ROWS)]
    report = fwd.run(
        models.masked_mean(),
        {"ids": ids, "name": names},
        tmp_path / "out",
        key="name",
        shard_rows=shard_rows,
        batch=batch,
    )
    entries = shards(tmp_path / "out")
    starts = list(range(0, ROWS, shard_rows))
    assert [e["file"] for e in entries] == [f"part-{i:05d}.parquet" for i in range(len(starts))]
    assert [(e["start"], e["stop"]) for e in entries] == [
        (start, min(start + shard_rows, ROWS)) for start in starts
    ]
    assert [(e["first_key"], e["last_key"]) for e in entries] == [
        (f"n{e['start']}", f"n{e['stop'] - 1}") for e in entries
    ]
    for entry in entries:
        data = (tmp_path / "out" / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["rows"] == entry["stop"] - entry["start"]
        assert pq.read_metadata(tmp_path / "out" / entry["file"]).num_rows == entry["rows"]
    assert table(tmp_path / "out")["name"].to_pylist() == names
    assert sum(e["real_cells"] for e in entries) == sum(map(len, ids)) == report.real_cells
    last = json.loads((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()[-1])
    assert (last["rows"], last["digest"]) == (ROWS, report.digest)


def test_a_folder_holds_nothing_but_what_is_announced(tmp_path: Path) -> None:
    fwd.run(models.mlp(), features(), tmp_path / "deep" / "er" / "out", shard_rows=6)
    assert sorted(p.name for p in (tmp_path / "deep" / "er" / "out").iterdir()) == [
        "manifest.jsonl",
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_equal_runs_have_equal_digests_and_other_values_have_others(tmp_path: Path) -> None:
    def digest(model: fwd.Model, data: Any, name: str) -> str:
        return fwd.run(model, data, tmp_path / name, batch=4).digest

    same = digest(models.mlp(), features(), "a")
    assert same == digest(models.mlp(), features(), "b")
    other = features()
    other["features"][7, 3] += 1
    assert same != digest(models.mlp(), other, "c")


# -- reading results back ------------------------------------------------------------------------


@pytest.mark.parametrize("give", ["folder", "glob"])
def test_an_output_folder_is_a_source(give: str, tmp_path: Path) -> None:
    first = tmp_path / "first"
    fwd.run(function(lambda x, y: x * 2), features(), first, shard_rows=4)
    source = str(first if give == "folder" else first / "*.parquet")
    report = fwd.run(
        models.mlp(), source, tmp_path / "second", columns={"features": "output"}, key="key"
    )
    assert report.rows == ROWS
    came = table(tmp_path / "second")
    assert came["key"].to_pylist() == list(range(ROWS))
    doubled = {"features": features()["features"] * 2}
    expected = fwd.run(models.mlp(), doubled)[0]["output"]
    torch.testing.assert_close(torch.tensor(came["output"].to_pylist()), expected)


def test_nested_outputs_are_a_source(tmp_path: Path) -> None:
    first = tmp_path / "first"
    model = function(lambda x, y: x.reshape(-1, 1, 2, 8)[:, :, :, :8].repeat(1, 1, 4, 1))
    fwd.run(model, features(), first, shard_rows=4)
    outputs, _ = fwd.run(models.cnn(), str(first / "*.parquet"), columns={"pixels": "output"})
    pixels = fwd.run(model, features())[0]["output"]
    expected, _ = fwd.run(models.cnn(), {"pixels": pixels})
    torch.testing.assert_close(outputs["output"], expected["output"])


# -- .npy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "then",
    [
        lambda x, y: y,
        lambda x, y: y[:, 0],
        lambda x, y: x.reshape(-1, 2, 8),
        lambda x, y: y.argmax(1),
        lambda x, y: y > 0,
        lambda x, y: y.bfloat16(),
        lambda x, y: y.half(),
    ],
    ids=["f32[4]", "f32", "f32[2 8]", "i64", "bool", "bf16", "f16"],
)
def test_npy_holds_what_the_folder_holds(
    then: Callable[[torch.Tensor, torch.Tensor], Any], tmp_path: Path
) -> None:
    report = fwd.run(function(then), features(), tmp_path / "out.npy", shard_rows=4, batch=4)
    fwd.run(function(then), features(), tmp_path / "out", shard_rows=4, batch=4)
    came = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert len(came) == report.rows == ROWS
    assert came.tolist() == table(tmp_path / "out")["output"].to_pylist()
    left = sorted(p.name for p in (tmp_path / "out.npy.run").iterdir())
    assert left == ["manifest.jsonl"], "parts are gone, the manifest stays"


def test_npy_of_one_output_among_several(tmp_path: Path) -> None:
    fwd.run(models.dict_output(), features(), tmp_path / "o.npy", outputs=["embedding"])
    assert np.array_equal(np.load(tmp_path / "o.npy"), features()["features"] * 2)


def test_npy_refuses_several_outputs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"logits, embedding.*--outputs NAME.*folder"):
        fwd.run(models.dict_output(), features(), tmp_path / "o.npy")


def test_npy_refuses_ragged_outputs(tmp_path: Path) -> None:
    samples = [np.ones((1, n), np.float32) for n in (25, 40, 61)]
    with pytest.raises(fwd.ForwardpassError, match=r"one shape.*folder \(Parquet\)"):
        fwd.run(models.strided(), {"samples": samples}, tmp_path / "o.npy")


@pytest.mark.parametrize(
    "first",
    [
        lambda path: fwd.run(models.dict_output(), features(), path),
        lambda path: fwd.run(models.dict_output(), features(), path, outputs=["logit"]),
    ],
    ids=["several outputs", "unknown output"],
)
@pytest.mark.parametrize("name", ["o.npy", "folder"])
def test_a_corrected_call_is_not_refused(
    first: Callable[[Path], Any], name: str, tmp_path: Path
) -> None:
    """A usage error has computed nothing worth keeping: it must not block OUT."""
    try:
        first(tmp_path / name)
    except UsageError:
        report = fwd.run(models.dict_output(), features(), tmp_path / name, outputs=["logits"])
        assert report.rows == ROWS


def test_npy_does_not_lose_kept_columns_in_silence(tmp_path: Path) -> None:
    data = {**features(), "name": [f"n{i}" for i in range(ROWS)]}
    with pytest.raises(UsageError, match="keep"):
        fwd.run(models.mlp(), data, tmp_path / "o.npy", keep=["name"])


def test_an_npy_that_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "o.npy").write_bytes(b"mine")
    for resume in (False, True):
        with pytest.raises(OutputExistsError, match="is there already"):
            fwd.run(models.mlp(), features(), tmp_path / "o.npy", resume=resume)
    assert (tmp_path / "o.npy").read_bytes() == b"mine"


def test_an_npy_that_was_removed_is_not_reported_as_done(tmp_path: Path) -> None:
    fwd.run(models.mlp(), features(), tmp_path / "o.npy")
    (tmp_path / "o.npy").unlink()
    try:
        fwd.run(models.mlp(), features(), tmp_path / "o.npy", resume=True)
    except UsageError as error:
        assert "o.npy" in str(error)  # noqa: PT017
    else:
        assert (tmp_path / "o.npy").exists()


# -- refusals, empty data, limit -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["o.parquet", "o.csv", "o.jsonl", "o.json", "o.npz", "o.txt", "o.safetensors"]
)
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder of Parquet.*NAME\.npy.*standard output"):
        fwd.run(models.mlp(), features(), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        fwd.run(models.mlp(), features(), tmp_path / "file")
    with pytest.raises(UsageError):
        fwd.run(models.mlp(), features(), tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_no_rows_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    report = fwd.run(models.mlp(), str(tmp_path / "empty.jsonl"), tmp_path / "out")
    assert (report.rows, report.batches) == (0, 0)
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["rows"] == 0
    again = fwd.run(models.mlp(), str(tmp_path / "empty.jsonl"), tmp_path / "out", resume=True)
    assert again.digest == report.digest


def test_no_rows_at_all_as_npy(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    try:
        fwd.run(models.mlp(), str(tmp_path / "empty.jsonl"), tmp_path / "o.npy")
    except fwd.ForwardpassError as error:
        assert "row" in str(error)  # noqa: PT017
    else:
        assert len(np.load(tmp_path / "o.npy")) == 0


@pytest.mark.parametrize("limit", [1, 4, 5, 9, 10, 99])
def test_limit(limit: int, tmp_path: Path) -> None:
    report = fwd.run(models.mlp(), features(), tmp_path / "out", limit=limit, shard_rows=4)
    assert report.rows == min(limit, ROWS)
    assert table(tmp_path / "out")["key"].to_pylist() == list(range(min(limit, ROWS)))
    assert shards(tmp_path / "out")[-1]["stop"] == min(limit, ROWS)


def test_limit_counts_rows_of_the_data_bad_ones_too(tmp_path: Path) -> None:
    rows: list[Any] = [{"features": [1.0] * 16} for _ in range(8)]
    rows[1] = {"features": None}
    rows[3] = {"features": None}
    report = fwd.run(models.mlp(), rows, tmp_path / "out", limit=4)
    assert (report.rows, report.quarantined) == (2, 2)


def test_an_output_with_the_name_of_a_column(tmp_path: Path) -> None:
    data = {**features(), "output": list(range(ROWS))}
    with pytest.raises(UsageError, match="'output' and a column of the data have one name"):
        fwd.run(models.mlp(), data, tmp_path / "out", keep=["output"])


def test_keep_takes_one_name_as_it_takes_a_list(tmp_path: Path) -> None:
    """`keep="name"` is a likely slip: it must not be read as n, a, m, e."""
    data = {**features(), "name": [f"n{i}" for i in range(ROWS)]}
    try:
        fwd.run(models.mlp(), data, tmp_path / "out", keep="name")
    except UsageError as error:
        assert "name" in str(error)  # noqa: PT017
    else:
        assert table(tmp_path / "out")["name"].to_pylist() == data["name"]


def test_json_lines_on_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Stdout()
    monkeypatch.setattr("sys.stdout", stream)
    values = np.abs(features()["features"])
    values[3, 0] = -1
    report = fwd.run(models.nan_rows(), {"features": values}, "-", shard_rows=4)
    lines = [json.loads(line) for line in stream.buffer.getvalue().splitlines()]
    assert [line["key"] for line in lines] == list(range(report.rows))
    assert lines[3]["output"] == [None] * 4
    expected = fwd.run(models.nan_rows(), {"features": values})[0]["output"]
    assert lines[4]["output"] == pytest.approx(expected[4].tolist(), abs=1e-6)
    with pytest.raises(UsageError, match="a stream keeps no manifest"):
        fwd.run(models.mlp(), features(), "-", resume=True)


class _Thing:
    pass


def test_decoded_objects_stay_in_memory() -> None:
    """Results that never leave the process may be whatever decode makes of them."""
    model = function(
        lambda x, y: y, decode=lambda o: {"thing": [_Thing() for _ in range(len(o["output"]))]}
    )
    outputs, _ = fwd.run(model, features())
    assert all(isinstance(thing, _Thing) for thing in outputs["thing"])


def test_an_error_while_writing_ends_the_run(tmp_path: Path) -> None:
    """It must not wait for a writer that has died."""
    import subprocess
    import sys

    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import models, numpy as np, torch
import forwardpass as fwd
from forwardpass.errors import UsageError
def decode(outputs):
    time.sleep(0.5)
    raise UsageError("the decoder is misused")
model = fwd.Model(models.mlp().module, models.FEATURES, decode=decode)
fwd.run(model, {{"features": np.ones((12, 16), np.float32)}}, {str(tmp_path / "out")!r},
        shard_rows=4, batch=4)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "the decoder is misused" in done.stderr


def test_complex_numbers_are_pairs_where_a_format_has_none(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    waves = np.array([[1 + 2j, 3], [4j, -5 - 6j]], np.complex64)
    pairs = [[[1, 2], [3, 0]], [[0, 4], [-5, -6]]]
    model = fwd.Model(torch.nn.Identity(), "waves: c64[batch 2]")
    report = fwd.run(model, {"waves": waves}, tmp_path / "out")
    assert (report.rows, report.quarantined) == (2, 0)
    assert table(tmp_path / "out")["output"].to_pylist() == pairs
    capfdbinary.readouterr()
    fwd.run(model, {"waves": waves}, "-")
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line)["output"] for line in lines] == pairs
    fwd.run(model, {"waves": waves}, tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), waves)


def test_the_digest_in_memory_is_that_of_the_numbers() -> None:
    def digest(values: Any) -> str:
        return InMemory().write(0, Shard({"y": values}, ("y",), len(values))).sha256

    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    assert digest(values) == digest(torch.from_numpy(values))
    assert digest(values) == digest(np.asfortranarray(values))
    nudged = values.copy()
    nudged[2, 3] = np.nextafter(nudged[2, 3], np.float32(2))
    assert digest(nudged) != digest(values)
    ragged = np.empty(2, object)
    ragged[:] = [[1], [2, 3]]
    assert digest(ragged) == digest([[1], [2, 3]])
