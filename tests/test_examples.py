"""The examples do what they say, and stay short enough to read."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import forwardpass as fwd
from forwardpass.reading.pyfiles import import_file

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_each_is_under_80_lines(path: Path) -> None:
    if path.is_file():
        assert len(path.read_text(encoding="utf-8").splitlines()) < 80


def test_digits_are_learned_the_same_way_each_time_and_nothing_else_changes(
    two_threads: int,
) -> None:
    before = torch.get_rng_state()
    digits = import_file(EXAMPLES / "digits.py")
    again = digits.trained()
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == two_threads
    for one, other in zip(digits.model.module.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_digits_are_read_right() -> None:
    digits = import_file(EXAMPLES / "digits.py")
    rows = list(digits.rows())
    assert len(rows) == 898
    assert rows[0]["pixels"].shape == (1, 8, 8)
    pixels = torch.from_numpy(np.stack([row["pixels"] for row in rows]))
    with torch.inference_mode():
        found = digits.model.decode({"output": digits.model.module(pixels)})
    right = found["digit"].numpy() == [row["label"] for row in rows]
    assert right.mean() >= 0.97
    assert 0 < found["confidence"].min() <= found["confidence"].max() <= 1


@pytest.mark.long
def test_stdlib_yields_thousands_of_docstrings_in_the_same_order() -> None:
    stdlib = import_file(EXAMPLES / "stdlib.py")
    rows = list(stdlib.docs())
    names = [row["name"] for row in rows]
    assert len(rows) >= 2000
    assert len(set(names)) == len(names)
    assert all(row["text"].strip() for row in rows)
    assert list(islice(stdlib.docs(), 300)) == rows[:300]
    texts = {row["name"]: row["text"] for row in rows}
    assert texts["json.dumps"].startswith("Serialize ``obj`` to a JSON formatted ``str``.")
    lengths = sorted(map(len, texts.values()))
    assert lengths[-1] > 50 * lengths[len(lengths) // 4]


def test_search_reads_the_shards_in_order(tmp_path: Path) -> None:
    search = import_file(EXAMPLES / "search.py")
    for shard, names in enumerate([["a", "b"], ["c"]]):
        vectors = pa.array([[1.0, 0.0]] * len(names), pa.list_(pa.float32(), 2))
        columns = {"name": names, "text": names, "sentence_embedding": vectors, "other": names}
        pq.write_table(pa.table(columns), tmp_path / f"part-{shard:05}.parquet")
    table = search.read(tmp_path)
    assert table["name"].to_pylist() == ["a", "b", "c"]
    assert table.column_names == ["name", "text", "sentence_embedding"]


def test_search_says_what_to_do_without_shards(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "search.py"), str(tmp_path), "a question"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "holds no Parquet shards; write them first" in done.stderr


def test_digits_run_from_their_files_to_parquet(tmp_path: Path) -> None:
    path = EXAMPLES / "digits.py"
    report = fwd.run(str(path), f"{path}:rows", tmp_path / "out", key="image", keep=["label"])
    shards = sorted((tmp_path / "out").glob("*.parquet"))
    table = pa.concat_tables(pq.read_table(shard) for shard in shards)
    assert report.rows == table.num_rows == 898
    assert table["image"].to_pylist() == list(range(1, 1797, 2))
    right = np.asarray(table["digit"]) == np.asarray(table["label"])
    assert right.mean() >= 0.97


def test_a_question_is_answered_from_what_a_run_wrote(tmp_path: Path) -> None:
    search = import_file(EXAMPLES / "search.py")
    rows = [
        {"name": "gzip.open", "text": "Open a gzip-compressed file in binary or text mode."},
        {"name": "random.choice", "text": "Choose a random element from a non-empty sequence."},
        {"name": "json.dumps", "text": "Serialize an object to a JSON formatted string."},
    ]
    fwd.run(search.MODEL, rows, tmp_path / "out", key="name", keep=["text"])
    found = search.search(search.read(tmp_path / "out"), "pick any item of a list", top=2)
    assert found[0][1] == "random.choice"
    assert found[0][0] > found[1][0]


def test_a_pruned_network_tells_the_digits_as_well_and_at_last_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import_file(EXAMPLES / "pruned.py").main()
    whole, dead, small, fifth, less = capsys.readouterr().out.splitlines()
    right = [float(line.partition("%")[0].split()[-1]) for line in (whole, small, less)]
    assert right[0] == right[1] > 97
    assert 90 < right[2] < right[1]
    assert int(dead.split(": ")[1].split()[0]) > 100
    assert "which are 0 on all 899 rows of the data" in dead
    assert "of 2 layers removed; 9" in fifth


def test_digits_are_read_where_neither_torch_nor_the_source_is(tmp_path: Path) -> None:
    digits = import_file(EXAMPLES / "digits.py")
    pixels, labels = digits.images()
    np.savez(tmp_path / "digits.npz", pixels=pixels[1::2], label=labels[1::2])
    artefact = fwd.export(f"{EXAMPLES / 'reader.py'} @ onnxruntime", tmp_path / "digits.fwd")
    assert artefact.trust == "data"
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "alone.py"), "digits.fwd", "digits.npz"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert "of 898 digits are right, by digits.fwd alone: 9" in done.stdout
    assert "transformers, digits, examples: nothing" in done.stdout
