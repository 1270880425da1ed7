"""Inputs of one pass: drawn by a signature, read from a file, encoded from rows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from torch import nn

from forwardpass import Model
from forwardpass.errors import DataError, UsageError
from forwardpass.executing import examples
from forwardpass.loading import load


def forward(*inputs: str, module: nn.Module | None = None) -> Any:
    return load(Model(module or nn.Identity(), list(inputs)))


# -- drawn ---------------------------------------------------------------------------------------


def test_drawn_by_shape_dtype_and_batch() -> None:
    came = examples.drawn(
        forward("x: f32[batch 3 4]", "flag: bool[batch]", "half: bf16[batch 2]", "z: c64[batch]"),
        batch=5,
    )
    assert {name: (list(v.shape), v.dtype) for name, v in came.items()} == {
        "x": ([5, 3, 4], torch.float32),
        "flag": ([5], torch.bool),
        "half": ([5, 2], torch.bfloat16),
        "z": ([5], torch.complex64),
    }
    assert bool(came["flag"].all())


def test_the_seed_fixes_the_numbers_and_the_generators_of_the_process_stay() -> None:
    spoken = forward("x: f32[batch 8]")
    before = torch.get_rng_state()
    first, same, other = (examples.drawn(spoken, seed=seed)["x"] for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("axis", "size"),
    [("n", 16), ("n=1..4", 4), ("n=20..30", 20), ("n%32", 32), ("n=1..64", 16)],
)
def test_the_size_of_an_axis_that_nobody_asked_for(axis: str, size: int) -> None:
    spoken = forward(f"x: f32[batch {axis}]")
    assert list(examples.drawn(spoken)["x"].shape) == [1, size]


def test_multiples_are_kept() -> None:
    spoken = forward("x: f32[batch n%32]")
    assert list(examples.drawn(spoken, axes={"n": 96})["x"].shape) == [1, 96]
    with pytest.raises(UsageError, match=r"--axis n=40: the signature allows `n%32`"):
        examples.drawn(spoken, axes={"n": 40})


def test_axes_are_shared_and_sized() -> None:
    spoken = load(models.masked_mean())
    came = examples.drawn(spoken, batch=2, axes={"tokens": 64})
    assert [list(v.shape) for v in came.values()] == [[2, 64], [2, 64]]
    assert bool((came["mask"] == 1).all()), "all of an example is valid"
    assert int(came["ids"].max()) < 50, "within the vocabulary"


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"tokens": 65}, r"--axis tokens=65: the signature allows `tokens=1\.\.64`"),
        ({"token": 3}, r"--axis token=…: no such axis; did you mean 'tokens'\?"),
        ({"batch": 3}, r"--axis batch=…: no such axis"),
    ],
)
def test_sizes_that_are_not_allowed(axes: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        examples.drawn(load(models.masked_mean()), axes=axes)


def test_without_a_signature_the_remedy_is_said() -> None:
    with pytest.raises(UsageError, match=r"has no signature .* --data SOURCE.* Model\(module, inp"):
        examples.drawn(load(nn.Linear(2, 2)))


def test_optional_inputs_are_left_out() -> None:
    came = examples.drawn(forward("x: f32[batch 2]", "more?: f32[batch 2]"))
    assert list(came) == ["x"]


def test_the_smallest_vocabulary_counts_unless_it_is_none() -> None:
    embeds = nn.ModuleList([nn.Embedding(1000, 2), nn.Embedding(40, 2), nn.Embedding(2, 2)])
    came = examples.drawn(forward("ids: i64[batch n=1..4096]", module=embeds), axes={"n": 4096})
    assert int(came["ids"].max()) == 39
    few = examples.drawn(
        forward("ids: i64[batch n]", module=nn.ModuleList([nn.Embedding(2, 2)])), axes={"n": 99}
    )
    assert int(few["ids"].max()) == 1


# -- read ----------------------------------------------------------------------------------------


def test_read_of_each_kind(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    x, ids = torch.randn(2, 3), torch.arange(4)
    np.savez(tmp_path / "a.npz", x=x.numpy(), ids=ids.numpy())
    save_file({"x": x, "ids": ids}, tmp_path / "a.safetensors")
    np.save(tmp_path / "a.npy", x.numpy())
    for name in ("a.npz", "a.safetensors"):
        came = examples.read(tmp_path / name)
        assert torch.equal(came["x"], x)
        assert torch.equal(came["ids"], ids)
    came = examples.read(str(tmp_path / "a.npy"))
    assert list(came) == ["0"]
    assert torch.equal(came["0"], x)


def broken_npz(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 no zip")


def pickled_npy(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def pickled_npz(path: Path) -> None:
    np.savez(path, x=np.array([{"a": 1}], dtype=object))


def texts_npy(path: Path) -> None:
    np.save(path, np.array(["one", "two"]))


def pickle_as_npy(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": 1}))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("broken.npz", broken_npz), ("broken.safetensors", broken_npz), ("o.npy", pickled_npy),
        ("o.npz", pickled_npz), ("t.npy", texts_npy), ("p.npy", pickle_as_npy),
        ("absent.npz", None), ("absent.npy", None), ("absent.safetensors", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_files_that_cannot_be_read(name: str, write: Any, tmp_path: Path) -> None:
    if write:
        write(tmp_path / name)
    with pytest.raises(DataError, match=f"{name} cannot be read as inputs: "):
        examples.read(tmp_path / name)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "model.pt", "noending"])
def test_other_files_are_told_where_they_go(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a")
    with pytest.raises(
        DataError, match=r"\.npz, \.npy or \.safetensors; for rows of data use --da"
    ):
        examples.read(tmp_path / name)


# -- encoded -------------------------------------------------------------------------------------


def test_rows_are_encoded_and_padded_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"ids": list(range(n))}) + "\n" for n in (3, 5, 1, 2)))
    came = examples.encoded(load(models.masked_mean()), str(path), 3)
    assert came["ids"].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]]
    assert came["mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5, [1, 0, 0, 0, 0]]


def test_fewer_rows_than_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    came = examples.encoded(load(Model(nn.Linear(4, 2), "x: f32[batch 4]")), tmp_path / "x.npy", 9)
    assert list(came["x"].shape) == [2, 4]


def test_a_model_without_signature_takes_what_the_data_has(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    came = examples.encoded(load(nn.Linear(4, 2)), str(tmp_path / "x.npy"), 2)
    assert [list(tensor.shape) for tensor in came.values()] == [[2, 4]]


def test_rows_that_cannot_be_encoded_are_left_out_and_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"ids": [1, 2]}\n{"ids": "no"}\n{"ids": [3]}\n')
    came = examples.encoded(load(models.masked_mean()), str(path), 3)
    assert came["ids"].tolist() == [[1, 2], [3, 0]]
    path.write_text('{"ids": "no"}\n{"ids": "neither"}\n')
    with pytest.raises(DataError, match="none of 2 rows can be encoded: "):
        examples.encoded(load(models.masked_mean()), str(path), 3)


def test_no_rows_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("")
    with pytest.raises(DataError, match="there is no row to look at"):
        examples.encoded(load(models.masked_mean()), str(path), 3)
    path.write_text("{broken\n")
    with pytest.raises(DataError, match="there is no row to look at: "):
        examples.encoded(load(models.masked_mean()), str(path), 3)
