"""Where files are found: folders, globs, URLs; what is said where there is nothing to read."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from forwardpass.errors import DataError, MissingExtraError
from forwardpass.reading import open_source


def test_globs_are_sorted_and_reach_below(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/deep/c.txt", "sub/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    source = open_source(f"{tmp_path}/*.txt")
    assert source.description == f"{tmp_path}/*.txt (2 files)"
    assert [rows["text"] for rows in source.read()] == [["a.txt", "b.txt"]]
    deep = [text for rows in open_source(f"{tmp_path}/**/*.txt").read() for text in rows["text"]]
    assert deep == ["a.txt", "b.txt", "sub/deep/c.txt"]
    whole = [text for rows in open_source(tmp_path).read() for text in rows["text"]]
    assert whole == deep


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("x")
    assert next(open_source(tmp_path / "a[1].txt").read())["text"] == ["x"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("x")
    os.symlink(tmp_path / "data", tmp_path / "data" / "again")
    os.symlink(tmp_path / "data", tmp_path / "link")
    os.symlink(tmp_path / "data" / "a.txt", tmp_path / "one.txt")
    assert len(open_source(tmp_path / "link").identity()) == 1
    assert next(open_source(tmp_path / "one.txt").read())["text"] == ["x"]


def test_relative_paths_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for reference in ("a.txt", "./a.txt", "~/a.txt", f"file://{tmp_path}/a.txt", "*.txt"):
        assert next(open_source(reference).read())["text"] == ["x"], reference
    assert open_source("a.txt").description == "a.txt"
    assert open_source("a.txt").identity() == open_source("~/a.txt").identity()


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        (
            "revews.jsonl",
            r"there is no file or folder .*revews\.jsonl; did you mean 'reviews\.jsonl",
        ),
        ("nothing/x.csv", r"there is no file or folder .*nothing/x\.csv$"),
        ("*.csv", r"no file matches .*\*\.csv; quote the glob in a shell"),
        (
            "model.onnx",
            r"model\.onnx: no source reads files that end in '\.onnx'; .*known: .*\.csv,.*",
        ),
        ("data.json", r"files that end in '\.json'; did you mean '\.jsonl'\?"),
        ("README", r"README: no source reads files that end in 'no suffix'"),
        ("empty", r"the folder .*empty holds no rows that can be read: it has no files; known: \."),
        ("models", r"models holds no rows that can be read: it has 2 × \.onnx, 1 × no suffix; kno"),
        (
            "mixed",
            r"mixed leads to several kinds of files: 2 × \.csv, 1 × \.txt; give a glob of on",
        ),
        ("mixed/*", r"mixed/\* leads to several kinds of files.*such as '\*\.csv'"),
        ("x.npy.gz", r"x\.npy\.gz: \.npy files are not read from the front to the back; undo the"),
        ("bucket://a/b.csv", r"bucket:// is no protocol that fsspec knows"),
        ("memory://none/*.csv", r"no file matches memory://none/\*\.csv"),
    ],
)
def test_what_cannot_be_read_is_told(reference: str, error: str, tmp_path: Path) -> None:
    for name in (
        "reviews.jsonl",
        "model.onnx",
        "data.json",
        "README",
        "models/a.onnx",
        "models/b.onnx",
        "models/LICENSE",
        "mixed/a.csv",
        "mixed/b.csv",
        "mixed/c.txt",
        "x.npy.gz",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=error):
        open_source(reference if "://" in reference else f"{tmp_path}/{reference}")


@pytest.mark.parametrize(
    ("reference", "package"), [("gs://a/b.csv", "gcsfs"), ("abfs://a/b.csv", "adlfs")]
)
def test_a_missing_driver_is_told(reference: str, package: str) -> None:
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(MissingExtraError, match=f"Install it with: pip install {package}"):
            open_source(reference)
    else:
        pytest.skip(f"{package} is installed")


def test_all_kinds_are_read_from_afar(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    np.save(tmp_path / "f.npy", np.asfortranarray(np.arange(6).reshape(3, 2)))
    np.savez(tmp_path / "a.npz", x=np.arange(5))
    Image.new("RGB", (2, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("x\n1\n")
    far = fsspec.filesystem("memory")
    for path in tmp_path.iterdir():
        far.pipe(f"/afar/{path.name}", path.read_bytes())
        near = list(open_source(path).read(1))
        there = open_source(f"memory://afar/{path.name}")
        for a, b in zip(near, there.read(1), strict=True):
            assert [r == s if r != r else str(r) == str(s) for r, s in zip(a, b, strict=True)]
        assert there.identity()[0]["path"] == f"memory:///afar/{path.name}"
        assert there.identity()[0]["mtime"] is not None
    assert next(open_source("memory://afar/f.npy").read(1))["array"].tolist() == [[2, 3], [4, 5]]
    assert next(open_source("memory://afar").read()).keys == ["a.png"]


def test_identity_follows_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 300_000)
    os.utime(path, (1, 1))
    (first,) = open_source(path).identity()
    assert first["path"] == str(path)
    assert first["bytes"] == 300_000
    assert first["mtime"] == 1.0
    for place in (0, 299_999):
        content = bytearray(b"x" * 300_000)
        content[place] = ord("y")
        path.write_bytes(content)
        os.utime(path, (1, 1))
        (other,) = open_source(path).identity()
        assert {name for name in first if first[name] != other[name]} == {"sha256_ends"}


def test_many_files_have_one_identity(tmp_path: Path) -> None:
    for i in range(1_001):
        (tmp_path / f"{i}.txt").write_text("x")
    (first,) = open_source(tmp_path).identity()
    assert first["files"] == first["bytes"] == 1_001
    assert first["path"] == str(tmp_path)
    (tmp_path / "500.txt").write_text("xy")
    assert open_source(tmp_path).identity()[0]["sha256"] != first["sha256"]


def test_reading_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, forwardpass.reading as r; r.open_source([1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
