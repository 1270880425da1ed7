"""Records as text and as files: there and back, and nothing else is taken for one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from test_awkward import batch
from torch import nn
from untouched import untouched

from forwardpass.errors import DataError, UsageError
from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import Validation
from forwardpass.probing import record
from forwardpass.recording import Recording


def taken(**how: Any) -> tuple[nn.Module, torch.Tensor, Recording]:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Softmax(-1))
    x = torch.randn(2, 4)
    return model, x, record(model, x, **how)


def test_a_record_comes_back_from_its_file_with_its_values(tmp_path: Path) -> None:
    model, x, done = taken(values="all", statistics=True, grad="on", saved=True)
    done.save(tmp_path / "a.record")
    back = Record.load(tmp_path / "a.record")
    assert back.to_json() == done.to_json()
    assert back.totals == done.totals
    assert back.values == done.values
    assert back.edges == done.edges
    assert back.statistics == done.statistics
    assert back.saved == done.saved
    assert back.reaches == done.reaches
    assert back.tensors.keys() == done.tensors.keys()
    for serial, tensor in done.tensors.items():
        assert torch.equal(back.tensors[serial], tensor)
        assert tuple(back.tensors[serial].shape) == back.values[serial].shape
    assert not isinstance(back, Recording)
    with pytest.raises(UsageError, match=r"record the model again, then validate\(against="):
        back.validate()
    with untouched(model, x):
        again = record(model, x, grad="on")
        assert again.validate("d", against=back).verdict == "valid"


@pytest.mark.parametrize("name", models.MODELS)
def test_records_of_all_shared_models_come_back_from_json(name: str, tmp_path: Path) -> None:
    model = models.MODELS[name]()
    places, names = batch(model)
    done = record(model.module, names or places, mode="eval", grad="off", values="all")
    text = done.to_json()
    assert json.loads(text)["schema"] == "forwardpass/record/1"
    back = Record.from_json(text)
    assert back.to_json() == text
    assert back.edges == done.edges
    done.save(tmp_path / "a.record")
    assert Record.load(tmp_path / "a.record").to_json() == text


@pytest.mark.parametrize("name", ["bert", "cnn", "bilstm", "counter_buffer", "dict_output"])
def test_a_loaded_record_validates_against_the_same_module(name: str, tmp_path: Path) -> None:
    model = models.MODELS[name]()
    places, names = batch(model)
    done = record(model.module, names or places, mode="eval", grad="off")
    done.save(tmp_path / "a.record")
    loaded = Record.load(tmp_path / "a.record")
    again = record(model.module, names or places, mode="eval", grad="off")
    found = again.validate("d", against=loaded)
    assert found.verdict == "valid", repr(found)


def test_arguments_of_every_kind_are_written(tmp_path: Path) -> None:
    class Kinds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.to(torch.float64).masked_fill(x > 0, float("-inf")).clamp(max=float("inf"))
            y = y.nan_to_num() * (2 + 1j)
            z = torch.zeros(2, device="cpu", dtype=torch.bfloat16, layout=torch.strided)
            y = y.real.contiguous(memory_format=torch.contiguous_format) + z
            noise = torch.rand(2, generator=torch.Generator().manual_seed(0))
            return torch.nn.functional.pad(y, (1, 1), value=float("nan")), y[..., None], noise

    done = record(Kinds(), torch.randn(3, 2), grad="off", values="all", statistics=True)
    text = done.to_json()
    assert "NaN" not in text.replace('"NaN', "").replace('"nan"', "")
    assert Record.from_json(text).to_json() == text
    done.save(tmp_path / "a.record")
    back = Record.load(tmp_path / "a.record")
    assert back.to_json() == text
    assert [call.operator for call in back.calls] == [call.operator for call in done.calls]


def test_nested_sparse_complex_and_shared_values_can_be_saved(tmp_path: Path) -> None:
    class Layouts(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            nested = torch.nested.nested_tensor([x[0, :1], x[1]])
            return nested, x.to_sparse(), torch.fft.rfft(x), x.t(), x.expand(2, 2, 3), x.bool()

    done = record(Layouts(), torch.randn(2, 3), grad="off", values="all")
    done.save(tmp_path / "a.record")
    back = Record.load(tmp_path / "a.record")
    assert back.to_json() == done.to_json()
    assert torch.equal(back.tensors[0], done.tensors[0])


def test_values_of_a_loaded_record_have_the_shapes_of_the_record(tmp_path: Path) -> None:
    _, _, done = taken(values="all")
    done.save(tmp_path / "a.record")
    back = Record.load(tmp_path / "a.record")
    for serial, tensor in back.tensors.items():
        assert tuple(tensor.shape) == back.values[serial].shape


def test_saving_twice_replaces_the_file_and_leaves_nothing_aside(tmp_path: Path) -> None:
    _, _, done = taken()
    done.save(tmp_path / "a.record")
    done.save(tmp_path / "a.record")
    assert [path.name for path in tmp_path.iterdir()] == ["a.record"]


def crafted(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Record.load(tmp_path / "nowhere.record")
    with pytest.raises(DataError):
        Record.load(tmp_path)
    foreign = tmp_path / "foreign.record"
    for content in (b"", b"hello", b"PK\x03\x04" + b"\x00" * 50, b"\x80\x04."):
        foreign.write_bytes(content)
        with pytest.raises(DataError, match="is no record"):
            Record.load(foreign)
    torch.save({"a": torch.ones(2)}, foreign)
    with pytest.raises(DataError, match="is no record"):
        Record.load(foreign)


def test_a_broken_record_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    _, _, done = taken(values="all")
    whole, cut = tmp_path / "whole.record", tmp_path / "cut.record"
    done.save(whole)
    content = whole.read_bytes()
    for part in range(0, len(content), max(len(content) // 40, 1)):
        cut.write_bytes(content[:part])
        with pytest.raises(DataError):
            Record.load(cut)


def test_a_record_with_a_flipped_byte_is_refused_or_reads_as_it_was(tmp_path: Path) -> None:
    _, _, done = taken(values="all")
    whole, flipped = tmp_path / "whole.record", tmp_path / "flipped.record"
    done.save(whole)
    content = whole.read_bytes()
    for place in range(0, len(content), max(len(content) // 60, 1)):
        flipped.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            back = Record.load(flipped)
        except DataError:
            continue
        assert back.to_json() == done.to_json()


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schema": "forwardpass/record/2"}',
        b'{"schema": "forwardpass/record/1"}',
        b'{"schema": "forwardpass/validation/1"}',
        b'{"schema": "forwardpass/record/1", "calls": 3}',
        b"[" * 100_000,
    ],
)
def test_crafted_records_are_refused(text: bytes, tmp_path: Path) -> None:
    from safetensors.torch import save

    path = crafted(tmp_path / "a.record", record_json=text, values_safetensors=save({}))
    with pytest.raises(DataError, match="is no record"):
        Record.load(path)


def test_crafted_members_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save

    _, _, done = taken()
    text = done.to_json().encode()
    good = save({"0": torch.ones(2, 4)})
    bad = [
        {"record_json": text},
        {"values_safetensors": good},
        {"record_json": text, "values_safetensors": good, "payload_pkl": b"\x80\x04."},
        {"record_json": text, "values_safetensors": b"\xff" * 8},
        {"record_json": text, "values_safetensors": save({"zero": torch.ones(2)})},
        {"record_json": text, "values_safetensors": save({"999": torch.ones(2)})},
        {"record_json": text, "values_safetensors": save({"0": torch.ones(7)})},
    ]
    for members in bad:
        with pytest.raises(DataError):
            Record.load(crafted(tmp_path / "a.record", **members))
    Record.load(crafted(tmp_path / "a.record", record_json=text, values_safetensors=good))


@pytest.mark.parametrize(
    ("field", "value"),
    [("inputs", [999]), ("outputs", [-7]), ("module", 99), ("site", 99), ("index", 5)],
)
def test_a_record_with_places_that_are_not_there_is_refused(
    field: str, value: Any, tmp_path: Path
) -> None:
    from safetensors.torch import save

    _, _, done = taken()
    document = json.loads(done.to_json())
    document["calls"][0][field] = value
    path = crafted(
        tmp_path / "a.record",
        record_json=json.dumps(document).encode(),
        values_safetensors=save({}),
    )
    with pytest.raises(DataError):
        Record.load(path)


def test_a_validation_comes_back_from_json() -> None:
    _, _, done = taken()
    found = done.validate("f")
    assert json.loads(found.to_json())["schema"] == "forwardpass/validation/1"
    assert Validation.from_json(found.to_json()) == found


def test_records_and_validations_can_be_printed() -> None:
    _, _, done = taken()
    assert "W[3 4]·x + b" in str(done)
    assert "valid" in str(done.validate("d"))
    assert repr(done).startswith("Recording(")
    assert repr(done.record).startswith("Record(")
    assert str(done.record) == str(done)
    assert done.record._repr_html_() == done._repr_html_()
