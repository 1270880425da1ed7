"""Folders of transformers: class by architectures, encode, decode, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_folders import TEXTS, rows, save_tiny, tiny_bert_config, tiny_tokenizer

from forwardpass.errors import DataError, LoadError
from forwardpass.loading import load
from forwardpass.nouns.models import Model

LABELS = {
    "id2label": {0: "bad", 1: "fine", 2: "good"},
    "label2id": {"bad": 0, "fine": 1, "good": 2},
}


def alone(model: Model, **columns: list[Any]) -> list[dict[str, torch.Tensor]]:
    """The outputs of each row, computed alone."""
    assert model.encode is not None
    assert model.signature is not None
    encoded = model.encode(rows(**columns))
    found: list[dict[str, torch.Tensor]] = []
    for index in range(len(next(iter(encoded.values())))):
        inputs = {name: torch.as_tensor(arrays[index])[None] for name, arrays in encoded.items()}
        for item in model.signature.inputs:
            if item.derivation == "valid":
                inputs[item.path] = torch.ones_like(inputs["input_ids"])
            elif item.derivation == "positions":
                inputs[item.path] = torch.arange(inputs["input_ids"].shape[1])[None]
        with torch.inference_mode():
            found.append(
                {k: v for k, v in model.module(**inputs).items() if isinstance(v, torch.Tensor)}
            )
    return found


def joined(outputs: list[dict[str, torch.Tensor]], name: str = "logits") -> dict[str, torch.Tensor]:
    return {name: torch.cat([output[name] for output in outputs])}


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    network = BertForSequenceClassification(tiny_bert_config(**LABELS))
    return save_tiny(network, tmp_path_factory.mktemp("classifier"))


def test_a_classifier_of_texts(classifier_folder: Path) -> None:
    from transformers import BertForSequenceClassification

    model = load(classifier_folder).model
    assert type(model.module) is BertForSequenceClassification
    assert not model.module.training
    assert (model.trust, model.origin) == ("data", str(classifier_folder))
    assert str(model.signature) == (
        "input_ids: i64[batch tokens=1..16] pad 0\n"
        "attention_mask: i64[batch tokens] = valid(tokens)\n"
        "token_type_ids?: i64[batch tokens] pad 0"
    )
    reference = BertForSequenceClassification.from_pretrained(classifier_folder).eval()
    tokenizer = tiny_tokenizer()
    outputs = joined(alone(model, text=TEXTS))
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = reference(**batch).logits
    torch.testing.assert_close(outputs["logits"], expected)
    decoded = model.decode(outputs)
    best = expected.softmax(-1).max(-1)
    assert decoded["label"] == [["bad", "fine", "good"][i] for i in best.indices]
    np.testing.assert_allclose(decoded["score"], best.values, rtol=1e-5)


def test_rows_that_are_too_long_are_cut_and_told(classifier_folder: Path) -> None:
    encode = load(classifier_folder).model.encode
    encoded = encode(rows(text=TEXTS))
    assert encoded.truncated == {2}
    assert [len(ids) for ids in encoded["input_ids"]] == [8, 5, 16, 2, 3]
    assert all(ids.dtype == np.int64 for ids in encoded["input_ids"])
    expected = tiny_tokenizer()(TEXTS, truncation=True)["input_ids"]
    assert [ids.tolist() for ids in encoded["input_ids"]] == expected
    # Cutting leaves nothing behind in the tokenizer.
    assert [len(ids) for ids in encode(rows(text=TEXTS))["input_ids"]] == [8, 5, 16, 2, 3]


def test_pairs_and_the_only_column_of_text(classifier_folder: Path) -> None:
    encode = load(classifier_folder).model.encode
    pairs = {"text": ["the cat", "a dog " * 10], "text_pair": ["sat", "ran on " * 10]}
    encoded = encode(rows(**pairs))
    expected = tiny_tokenizer()(pairs["text"], pairs["text_pair"], truncation=True)
    assert [ids.tolist() for ids in encoded["input_ids"]] == expected["input_ids"]
    assert [ids.tolist() for ids in encoded["token_type_ids"]] == expected["token_type_ids"]
    assert encoded.truncated == {1}
    only = encode(rows(number=[1, 2], title=["the cat", "ten"]))
    assert [len(ids) for ids in only["input_ids"]] == [4, 3]
    array = encode(rows(text=np.array(["the cat", "ten"])))
    assert [len(ids) for ids in array["input_ids"]] == [4, 3]
    with pytest.raises(DataError, match=r"one column of text.* title, body"):
        encode(rows(title=["a"], body=["b"]))


def test_what_is_no_text_is_named(classifier_folder: Path) -> None:
    encode = load(classifier_folder).model.encode
    with pytest.raises(TypeError, match="column 'text': None is NoneType, expected text"):
        encode(rows(text=["the", None]))
    with pytest.raises(TypeError, match=r"column 'text': 3\.5 is float, expected text"):
        encode(rows(text=["the", 3.5]))


@pytest.mark.parametrize(
    ("more", "check"),
    [
        ({**LABELS, "problem_type": "multi_label_classification"}, "many"),
        ({"num_labels": 1, "problem_type": "regression"}, "value"),
        ({"num_labels": 2, "problem_type": "regression"}, "values"),
    ],
)
def test_other_heads_of_sequences(tmp_path: Path, more: dict[str, Any], check: str) -> None:
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = load(save_tiny(BertForSequenceClassification(tiny_bert_config(**more)), tmp_path)).model
    outputs = joined(alone(model, text=TEXTS))
    outputs["logits"][0, 0] = 3.0
    decoded = model.decode(outputs)
    if check == "many":
        sure = outputs["logits"].sigmoid() > 0.5
        assert [len(row) for row in decoded["labels"]] == sure.sum(1).tolist()
        assert decoded["labels"][0][0] == "bad"
        assert decoded["scores"][0][0] == pytest.approx(0.952574, abs=1e-5)
    else:
        shape = (5,) if check == "value" else (5, 2)
        assert decoded["value"].shape == shape
        assert decoded["value"].reshape(-1)[0] == 3.0


def test_labels_of_tokens(tmp_path: Path) -> None:
    from transformers import BertForTokenClassification

    model = load(save_tiny(BertForTokenClassification(tiny_bert_config(**LABELS)), tmp_path)).model
    logits = [output["logits"][0] for output in alone(model, text=TEXTS[:2])]
    decoded = model.decode({"logits": logits})
    assert [len(row) for row in decoded["labels"]] == [8, 5]
    assert [len(row) for row in decoded["scores"]] == [8, 5]
    assert set(decoded["labels"][0]) <= {"bad", "fine", "good"}
    same = model.decode({"logits": torch.stack([logits[1], logits[1]])})
    assert same["labels"] == [decoded["labels"][1]] * 2


def test_a_decoder_padded_left_without_a_padding_token(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=12, num_labels=2)
    network = GPT2ForSequenceClassification(config)
    model = load(save_tiny(network, tmp_path, side="left", pad=False, special=False)).model
    assert str(model.signature) == (
        "input_ids: i64[batch tokens=1..12] pad 3 left\n"
        "attention_mask: i64[batch tokens] = valid(tokens)\n"
        "position_ids: i64[batch tokens] = positions(tokens)"
    )
    assert model.module.config.pad_token_id == 3
    assert not model.module.config.use_cache
    texts = ["the cat sat", "ten nine eight seven six"]
    expected = joined(alone(model, text=texts))["logits"]
    ids = [torch.as_tensor(i) for i in model.encode(rows(text=texts))["input_ids"]]
    batch = torch.stack([torch.nn.functional.pad(i, (5 - len(i), 0), value=3) for i in ids])
    mask = (batch != 3).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        found = model.module(input_ids=batch, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(found, expected)


def test_a_language_model_scores(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=12)
    model = load(save_tiny(GPT2LMHeadModel(config), tmp_path, special=False)).model
    (output,) = alone(model, text=["the cat sat"])
    assert set(output) == {"logits"}
    assert output["logits"].shape == (1, 3, 64)
    assert model.decode is None


def test_positions_that_begin_after_the_padding(tmp_path: Path) -> None:
    """RoBERTa has 24 rows of positions for 22 tokens; the tokenizer says nothing."""
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24, pad_token_id=1,
    )  # fmt: skip
    model = load(save_tiny(RobertaModel(config), tmp_path, longest=10**30)).model
    assert str(model.signature.inputs[0]) == "input_ids: i64[batch tokens=1..22] pad 0"
    (output,) = alone(model, text=["the cat " * 40])
    assert output["last_hidden_state"].shape[1] == 22


def test_without_architectures_the_base_model_is_taken(bert_folder: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    changed(bert_folder, tmp_path, lambda config: config.pop("architectures"))
    assert type(load(tmp_path).model.module) is BertModel


def test_a_pooler_without_weights_is_left_out(bert_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    changed(bert_folder, tmp_path, lambda config: None)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (output,) = alone(load(tmp_path).model, text=["the cat"])
    assert set(output) == {"last_hidden_state"}
    del kept["encoder.layer.0.output.dense.weight"]
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"no weights for encoder.layer.0.output.dense.weight"):
        load(tmp_path)


def test_weights_in_the_old_format_are_data_or_refused(bert_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    changed(bert_folder, tmp_path, lambda config: None)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert load(tmp_path).model.trust == "data"

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"weight": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LoadError, match=r"are a pickle that could run code .* as safetensors"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


def changed(source: Path, folder: Path, change: Any) -> Path:
    """A copy of a folder with another config.json."""
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"architectures": ["MyNet"], "auto_map": {"AutoModel": "mine.MyNet"}},
            r"is MyNet of its own code \(mine\.MyNet\).*import the class in a file\.py",
        ),
        ({"architectures": [], "model_type": "mytype"}, "does not know the model_type 'mytype'"),
        (
            {"_attn_implementation": "someone/kernel"},
            "names code of the hub, which is never fetched",
        ),
        ({"text_config": {"attn_implementation": "a/b"}}, "names code of the hub"),
        ({"architectures": ["Trainer"], "model_type": "mytype"}, "does not know the model_type"),
    ],
)
def test_code_of_others_is_never_run(
    bert_folder: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    (tmp_path / "mine.py").write_text("1 / 0")
    with pytest.raises(LoadError, match=said):
        load(changed(bert_folder, tmp_path, lambda config: config.update(change)))


def test_an_encoder_decoder_says_what_it_lacks(tmp_path: Path) -> None:
    from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=64,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    whole = save_tiny(T5ForConditionalGeneration(config), tmp_path / "whole")
    with pytest.raises(LoadError, match="encoder-decoder: one pass needs decoder_input_ids"):
        load(whole)
    model = load(save_tiny(T5EncoderModel(config), tmp_path / "encoder")).model
    (output,) = alone(model, text=["the cat sat"])
    assert output["last_hidden_state"].shape == (1, 5, 16)


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("images")
    config = ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, **LABELS,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_a_classifier_of_pictures(image_folder: Path) -> None:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    model = load(image_folder).model
    assert str(model.signature) == "pixel_values: f32[batch 3 16 16]"
    random = np.random.default_rng(0)
    pictures = [
        random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((20, 30), (3, 3), (16, 16))
    ]
    encoded = model.encode(rows(image=pictures))["pixel_values"]
    assert encoded.shape == (3, 3, 16, 16)
    assert encoded.dtype == np.float32
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    expected = processor(images=[pictures[0]], return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(encoded[:1], expected, atol=1e-6)
    decoded = model.decode(joined(alone(model, image=pictures)))
    assert set(decoded["label"]) <= {"bad", "fine", "good"}
    assert decoded["score"].shape == (3,)
    with pytest.raises(TypeError, match=r"got an array \[4, 4\], expected a picture"):
        model.encode(rows(image=[np.zeros((4, 4), np.uint8)]))


def test_a_folder_without_tokenizer_gives_the_bare_module(
    bert_folder: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert_folder / name).read_bytes())
    model = load(tmp_path).model
    assert (model.encode, model.decode, model.signature) == (None, None, None)


def test_folders_that_are_no_model(tmp_path: Path, bert_folder: Path) -> None:
    with pytest.raises(LoadError, match=r"is empty; expected a model with its config.json"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(LoadError, match=r"neither config.json .* it holds notes.txt"):
        load(tmp_path)
    inside = tmp_path / "model"
    inside.mkdir()
    changed(bert_folder, inside, lambda config: None)
    with pytest.raises(LoadError, match=r"did you mean .*model\?"):
        load(tmp_path)
    (inside / "config.json").write_text("{")
    with pytest.raises(LoadError, match="cannot be read as JSON"):
        load(inside)
