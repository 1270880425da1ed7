"""Parquet, NumPy and safetensors files, and images."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.lib import format as npy
from PIL import Image
from safetensors.numpy import save_file

from forwardpass.errors import DataError
from forwardpass.nouns.rows import Rows
from forwardpass.reading import open_source
from forwardpass.reading.sources import image_folders


def read(source: Any, start: int = 0) -> list[Rows]:
    return list(open_source(source).read(start))


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(3, 2, 2))
    table = pa.table(
        {
            "day": pa.array([datetime.date(2024, 1, day) for day in (1, 2, 3)]),
            "half": pa.array(np.array([1, 2, 3], np.float16)),
            "struct": pa.array([{"a": 1}, {"a": None}, None]),
            "bytes": pa.array([b"\xff", b"", None]),
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int8())),
            "money": pa.array([None, None, None], pa.decimal128(5, 2)),
            "images": tensors,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (rows,) = read(tmp_path / "a.parquet")
    for name in ("day", "half", "struct", "bytes", "map", "money"):
        assert rows.columns[name].type == table.schema.field(name).type
    assert rows["half"].dtype == np.float16
    assert rows["images"].shape == (3, 2, 2)
    assert rows[2]["struct"] is None


def test_large_row_groups_are_read_in_blocks(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": range(10_000)}), tmp_path / "a.parquet")
    assert [len(rows) for rows in read(tmp_path / "a.parquet")] == [4096, 4096, 1808]
    text = pa.table({"x": [f"{i:09}" * 100_000 for i in range(40)]})
    pq.write_table(text, tmp_path / "b.parquet", use_dictionary=False)
    assert max(rows.columns["x"].nbytes for rows in read(tmp_path / "b.parquet")) < 10 * 2**20


def test_parquet_files_that_do_not_match_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int64()), "b": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": ["y"], "a": pa.array([2], pa.int32())}), tmp_path / "2.parquet")
    second = read(tmp_path)[1]
    assert list(second.columns) == ["a", "b"]
    assert second.columns["a"].type == pa.int64()
    pq.write_table(pa.table({"a": ["text"], "b": ["x"]}), tmp_path / "3.parquet")
    with pytest.raises(
        DataError, match=r"3\.parquet: column 'a' holds string.*first file has int6"
    ):
        read(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "3.parquet")
    with pytest.raises(DataError, match=r"3\.parquet has the columns a, but .*1\.parquet has a, b"):
        read(tmp_path)


def test_npy_is_mapped_not_copied(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).standard_normal((100_000, 8))
    np.save(tmp_path / "a.npy", whole)
    blocks = read(tmp_path / "a.npy")
    assert [len(rows) for rows in blocks] == [65_536, 34_464]
    assert isinstance(blocks[0].columns["array"].base, np.memmap)
    assert np.array_equal(np.concatenate([rows["array"] for rows in blocks]), whole)


def test_arrays_of_no_rows_and_of_empty_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.empty((0, 4)))
    np.save(tmp_path / "empty.npy", np.empty((3, 0)))
    assert read(tmp_path / "none.npy") == []
    assert read(tmp_path / "empty.npy")[0]["array"].shape == (3, 0)


def test_arrays_that_are_no_columns_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "zero.npy", np.float32(3))
    with pytest.raises(DataError, match=r"zero\.npy is a single number; an array holds one value"):
        open_source(tmp_path / "zero.npy").count()
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(
        DataError, match=r"objects\.npy holds Python objects, which only unpickling"
    ):
        read(tmp_path / "objects.npy")
    np.save(tmp_path / "fields.npy", np.zeros(3, dtype=[("a", "i4"), ("b", "f4")]))
    with pytest.raises(DataError, match=r"fields\.npy, array 'array' has the dtype .*each field"):
        read(tmp_path / "fields.npy")
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(
        DataError, match=r"arrays of .*a\.npz must have one length.*x has 3, y has 4"
    ):
        open_source(tmp_path / "a.npz").count()
    np.savez(tmp_path / "b.npz", x=np.array([None, 1], dtype=object))
    with pytest.raises(DataError, match=r"b\.npz, array 'x' holds Python objects"):
        read(tmp_path / "b.npz")


def test_a_damaged_member_of_an_npz_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(100_000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[500_000] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is no \.npz file, or damaged: Bad CRC-32"):
        read(tmp_path / "a.npz")


def test_safetensors(tmp_path: Path) -> None:
    arrays = {
        name: np.arange(6).reshape(3, 2).astype(name)
        for name in ("bool", "uint8", "int16", "uint32", "int64", "float16", "float64", "complex64")
    }
    save_file(arrays, tmp_path / "a.safetensors", metadata={"about": "a test"})
    (rows,) = read(tmp_path / "a.safetensors")
    assert {name: rows[name].dtype.name for name in rows.columns} == {n: n for n in arrays}
    assert all(np.array_equal(rows[name], array) for name, array in arrays.items())
    save_file({"x": np.zeros((3, 2)), "y": np.zeros(4)}, tmp_path / "b.safetensors")
    with pytest.raises(DataError, match=r"must have one length, one value a row: .*x has 3"):
        read(tmp_path / "b.safetensors")


def test_safetensors_of_bf16_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    save_tensors({"x": torch.zeros(3, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    with pytest.raises(
        DataError, match=r"a\.safetensors: tensor 'x' is bf16, which NumPy does not have; save it"
    ):
        read(tmp_path / "a.safetensors")


def test_images_are_upright_rgb_keyed_by_path(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    turned = Image.new("RGB", (4, 2), (9, 9, 9))
    exif = Image.Exif()
    exif[274] = 6  # Orientation: turn by 90 degrees
    turned.save(tmp_path / "b" / "turned.JPG", exif=exif)
    Image.new("RGBA", (2, 2), (1, 2, 3, 128)).save(tmp_path / "a.png")
    Image.fromarray(np.full((2, 2), 0x8012, np.uint16)).save(tmp_path / "deep.png")
    Image.new("1", (2, 2), 1).save(tmp_path / "mono.png")
    Image.new("L", (1, 1)).save(tmp_path / ".hidden" / "no.png")
    (tmp_path / "labels.csv").write_text("path,label\n")
    (rows,) = read(tmp_path)
    assert rows.keys == rows["path"] == ["a.png", "b/turned.JPG", "deep.png", "mono.png"]
    assert [image.shape for image in rows["image"]] == [(2, 2, 3), (4, 2, 3), (2, 2, 3), (2, 2, 3)]
    assert all(image.dtype == np.uint8 for image in rows["image"])
    assert [image[0, 0].tolist() for image in rows["image"]] == [
        [1, 2, 3],
        [9, 9, 9],
        [128, 128, 128],
        [255, 255, 255],
    ]
    assert read(tmp_path / "a.png")[0].key(0) == "a.png"
    assert read(f"{tmp_path}/*/*.JPG")[0].key(0) == "b/turned.JPG"


def test_images_that_cannot_be_decoded_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    cut = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "text.png").write_text("no image")
    Image.new("L", (200, 100)).save(tmp_path / "bomb.png")
    Image.new("L", (10, 10)).save(tmp_path / "good.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    with pytest.warns(Image.DecompressionBombWarning):
        (rows,) = read(tmp_path)
    assert rows["path"] == ["good.png"]
    assert rows.positions.tolist() == [2]
    assert [(f.key, f.position) for f in rows.failures] == [
        ("bomb.png", 0),
        ("cut.png", 1),
        ("text.png", 3),
    ]
    assert [failure.error for failure in rows.failures] == [
        "the image has 200 x 100 pixels; at most 15,000",
        "the image cannot be decoded: OSError: image file is truncated",
        "the file is no image that Pillow reads, or damaged",
    ]


@pytest.mark.parametrize("suffix", sorted(image_folders.SUFFIXES))
def test_what_pillow_reads_is_read(suffix: str, tmp_path: Path) -> None:
    Image.init()
    kind = Image.registered_extensions()[suffix]
    assert kind in Image.OPEN
    if kind not in Image.SAVE:
        return  # nothing here writes one
    content = io.BytesIO()
    mode = "1" if suffix == ".pbm" else "RGB"
    try:
        Image.new(mode, (8, 8), 255 if mode == "1" else (255, 255, 255)).save(content, kind)
    except ValueError:
        Image.new("L", (8, 8), 255).save(content, kind)
    (tmp_path / f"a{suffix.upper()}").write_bytes(content.getvalue())
    (rows,) = read(tmp_path)
    assert not rows.failures
    assert rows["image"][0].shape == (8, 8, 3)
    assert rows["image"][0].min() >= 250


def test_several_frames_and_odd_pixels(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in ((200, 0, 0), (0, 200, 0))]
    for name in ("a.gif", "b.webp", "c.tiff"):
        options = {"lossless": True} if name == "b.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    Image.fromarray(np.full((2, 2), 0x8012, np.uint16)).save(tmp_path / "d.tiff")
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "e.tiff")
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "f.tiff")
    Image.new("CMYK", (2, 2), (0, 0, 0, 0)).save(tmp_path / "g.jfif", "JPEG")
    (rows,) = read(tmp_path)
    assert [image[0, 0].tolist() for image in rows["image"]] == [
        *[[200, 0, 0]] * 3,
        [128] * 3,
        [255] * 3,
    ]
    assert [failure.key for failure in rows.failures] == ["e.tiff", "f.tiff"]
    assert all("its pixels are 32-bit numbers" in failure.error for failure in rows.failures)


def test_files_beside_the_images_are_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.webp"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    for name in ("labels.csv", "c.heic", "d.heic", "README"):
        (tmp_path / name).write_text("x")
    source = open_source(tmp_path)
    assert source.count() == 2
    assert source.notes() == (
        f"of {tmp_path} these files are not read: 2 × .heic, 1 × no suffix, 1 × .csv",
    )
    assert open_source(tmp_path / "a.png").notes() == ()


@pytest.mark.parametrize("shape", [(-1,), (3, -4), (-3, -4)])
def test_negative_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with (tmp_path / "a.npy").open("wb") as handle:
        npy.write_array_header_2_0(handle, header)
        handle.write(bytes(64))
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(DataError, match=r"a\.npy is damaged: it would lie at byte"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [([2], [-8, 0]), ([-2], [0, -8]), ([-1, -2], [0, 8]), ([2], [8, 0]), ([2], [0, 1 << 62])],
)
def test_headers_of_safetensors_that_cannot_be_are_refused(
    shape: list[int], offsets: list[int], tmp_path: Path
) -> None:
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"x": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.safetensors.* is (damaged|cut short)"):
        read(tmp_path / "a.safetensors")


def test_skipped_images_are_not_decoded(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("L", (2, 2)).save(tmp_path / f"{i}.png")
    source = open_source(tmp_path)
    for i in range(4):
        (tmp_path / f"{i}.png").unlink()
    (rows,) = source.read(4)
    assert rows.keys == ["4.png"]
    assert rows.failures == ()
