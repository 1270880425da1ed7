"""What every kind of source keeps: one parametrised test over all of them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from forwardpass.errors import DataError
from forwardpass.reading import blocks, open_source
from forwardpass.reading.sources import by_suffix, kinds

ROWS = 23


def texts(folder: Path) -> str:
    lines = [f"line {i} é" if i % 5 else "" for i in range(ROWS)]
    (folder / "a.txt").write_bytes("\r\n".join(lines[:9]).encode() + b"\n")
    (folder / "b.txt").write_bytes("\n".join(lines[9:]).encode())
    return str(folder / "*.txt")


def texts_with_bad_lines(folder: Path) -> str:
    lines = [b"\xff%d" % i if i in (0, 7, 8, 22) else b"line %d" % i for i in range(ROWS)]
    (folder / "a.txt").write_bytes(b"\n".join(lines))
    return str(folder / "a.txt")


def json_lines(folder: Path) -> str:
    rows = [
        {"id": i, "x": i / 4, "tags": [i] * (i % 3), "vec": [i, 1.5], **({"z": i} if i % 2 else {})}
        for i in range(ROWS)
    ]
    with gzip.open(folder / "a.jsonl.gz", "wt") as handle:
        handle.writelines(json.dumps(row) + "\n\n" for row in rows[:10])
    (folder / "b.jsonl").write_text("\n".join(map(json.dumps, rows[10:])))
    return str(folder)


def json_lines_with_bad_lines(folder: Path) -> str:
    lines = [b"{" if i % 7 == 3 else b'{"id": %d, "s": "x"}' % i for i in range(ROWS)]
    (folder / "a.ndjson").write_bytes(b"\n".join(lines))
    return str(folder / "a.ndjson")


def csv_files(folder: Path) -> str:
    rows = [f'{i},{i / 8},"a ""quoted""\nfield, {i}",{"" if i % 4 else i}\n' for i in range(ROWS)]
    rows[12] = "12,0.5\n"
    with bz2.open(folder / "a.csv.bz2", "wt") as handle:
        handle.write("id,x,text,maybe\n" + "".join(rows[:15]))
    (folder / "b.csv").write_text("id,x,text,maybe\n" + "".join(rows[15:]))
    return str(folder / "*.csv*")


def tsv_files(folder: Path) -> str:
    text = "id\tx\n" + "".join(f"{i}\t{i % 2 == 0}\n" for i in range(ROWS))
    with lzma.open(folder / "a.tsv.xz", "wt") as handle:
        handle.write(text)
    return str(folder / "a.tsv.xz")


def parquet_files(folder: Path) -> str:
    ids = pa.array(range(ROWS), pa.int32())
    flat = pa.array(np.arange(ROWS * 3, dtype=np.float32))
    table = pa.table(
        {
            "id": ids,
            "fixed": pa.FixedSizeListArray.from_arrays(flat, 3),
            "ragged": pa.array([[1] * (i % 4) for i in range(ROWS)]),
            "text": pa.array([None if i == 5 else f"t{i}" for i in range(ROWS)]),
            "kind": pa.array([f"k{i % 3}" for i in range(ROWS)]).dictionary_encode(),
        }
    )
    pq.write_table(table.slice(0, 16), folder / "part-0.parquet", row_group_size=5)
    pq.write_table(table.slice(16), folder / "part-1.parquet", row_group_size=5)
    (folder / "manifest.jsonl").write_text('{"rows": 16}\n')
    (folder / "quarantine.jsonl").write_text("")
    return str(folder)


def image_folders(folder: Path) -> str:
    for i in range(ROWS):
        name = folder / f"{i // 10}" / f"{i:02}.{('png', 'jpg', 'JPEG')[i % 3]}"
        name.parent.mkdir(exist_ok=True)
        if i in (4, 22):
            name.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
        else:
            Image.new("RGB", (4 + i % 2, 3), (i, 2 * i, 3 * i)).save(name)
    return str(folder)


def numpy_files(folder: Path) -> str:
    whole = np.arange(ROWS * 4, dtype=">f4").reshape(ROWS, 2, 2)
    np.save(folder / "a.npy", whole[:20])
    np.save(folder / "b.npy", np.asfortranarray(whole[20:]))
    return str(folder)


def numpy_archives(folder: Path) -> str:
    x = np.arange(ROWS * 4, dtype=np.float64).reshape(ROWS, 4)
    names = np.array([f"n{i}" for i in range(ROWS)])
    np.savez_compressed(folder / "a.npz", x=x[:11], names=names[:11])
    np.savez(folder / "b.npz", x=np.asfortranarray(x[11:]), names=names[11:])
    return str(folder)


def safetensors_files(folder: Path) -> str:
    ids = np.arange(ROWS)
    save_file({"ids": ids, "x": np.ones((ROWS, 3), np.float16)}, folder / "a.safetensors")
    return str(folder / "a.safetensors")


def python_rows(folder: Path) -> str:
    (folder / "data.py").write_text(
        "def rows():\n"
        f"    for i in range({ROWS}):\n"
        "        yield 3.5j if i == 6 else {'id': i, 'text': f't{i}'}\n"
    )
    return f"{folder}/data.py:rows"


def memory_columns(folder: Path) -> Any:
    return {"x": np.arange(ROWS * 2).reshape(ROWS, 2), "text": [f"t{i}" for i in range(ROWS)]}


def memory_rows(folder: Path) -> Any:
    return [{"id": i, "x": np.full(2, i)} for i in range(ROWS)]


def remote_files(folder: Path) -> str:
    name = f"memory://{folder.name}"
    for i, part in enumerate(([0, 1, 2], range(3, ROWS))):
        with fsspec.open(f"{name}/{i}.jsonl.gz", "wb", compression="infer") as handle:
            handle.write(b"".join(b'{"id": %d}\n' % k for k in part))
    return f"{name}/*.jsonl.gz"


MAKERS: list[Callable[[Path], Any]] = [
    texts,
    texts_with_bad_lines,
    json_lines,
    json_lines_with_bad_lines,
    csv_files,
    tsv_files,
    parquet_files,
    image_folders,
    numpy_files,
    numpy_archives,
    safetensors_files,
    python_rows,
    memory_columns,
    memory_rows,
    remote_files,
]


def drained(source: Any, start: int = 0) -> dict[int, Any]:
    """All that a source yields from `start`, by position; checks what each block promises."""
    found: dict[int, Any] = {}
    for rows in source.read(start):
        assert rows.positions.dtype == np.int64
        assert np.all(np.diff(rows.positions) > 0)
        assert len(rows) or rows.failures
        for index, (position, row) in enumerate(zip(rows.positions.tolist(), rows, strict=True)):
            kept = {
                name: (np.asarray(value).dtype.kind, np.asarray(value).tolist())
                for name, value in row.items()
            }
            assert position not in found
            found[position] = (rows.key(index), kept)
        for failure in rows.failures:
            assert failure.stage == "read"
            assert failure.position not in found
            found[failure.position] = failure
    return dict(sorted(found.items()))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 4)
    monkeypatch.setattr("forwardpass.reading.sources.parquet_files.BLOCK_ROWS", 3)
    monkeypatch.setattr("forwardpass.reading.sources.image_folders._BLOCK_IMAGES", 4)
    monkeypatch.setattr("forwardpass.reading.arrays.SLICE_ROWS", 6)
    monkeypatch.setattr("forwardpass.reading.memory.SLICE_ROWS", 6)


@pytest.mark.parametrize("make", MAKERS)
def test_reading_from_any_row_gives_what_reading_from_the_first_gives(
    make: Callable[[Path], Any], tmp_path: Path
) -> None:
    source = open_source(make(tmp_path))
    everything = drained(source)
    assert list(everything) == list(range(ROWS))
    for start in range(ROWS + 2):
        rest = {position: row for position, row in everything.items() if position >= start}
        assert drained(source, start) == rest, start


@pytest.mark.parametrize("make", MAKERS)
def test_count_identity_and_description(make: Callable[[Path], Any], tmp_path: Path) -> None:
    reference = make(tmp_path)
    source = open_source(reference)
    assert source.count() in (ROWS, None)
    assert source.description
    identity = source.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert open_source(reference).identity() == identity


def test_each_kind_of_file_has_a_test() -> None:
    tested = {make.__name__ for make in MAKERS} | {"text_lines"}
    assert set(kinds()) <= tested
    assert len(by_suffix()) == sum(len(kind.SUFFIXES) for kind in kinds().values())


@pytest.mark.parametrize(
    "name",
    ["x.parquet", "x.npy", "x.npz", "x.safetensors", "x.jsonl.gz", "x.txt.zst", "x.csv.bz2"],
)
@pytest.mark.parametrize(
    "content", [b"garbage, not the format", b"PAR1", b"PK\x03\x04", b"\0" * 99]
)
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        list(open_source(tmp_path / name).read())


@pytest.mark.parametrize(
    "make", [parquet_files, numpy_files, numpy_archives, safetensors_files, json_lines, csv_files]
)
def test_a_file_that_is_cut_short_is_named(make: Callable[[Path], Any], tmp_path: Path) -> None:
    reference = make(tmp_path)
    first = min(p for p in tmp_path.iterdir() if not p.name.startswith(("manifest", "quar")))
    first.write_bytes(first.read_bytes()[:-9])
    with pytest.raises(DataError, match=first.name):
        list(open_source(reference).read())
