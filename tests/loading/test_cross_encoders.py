"""Cross-encoders: the same scores as the library itself gives for pairs of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_folders import rows, save_tiny, tiny_bert_config
from torch import nn

import forwardpass as fwd
from forwardpass.errors import DataError, LoadError
from forwardpass.loading import load
from forwardpass.nouns.models import Model

FIRST = ["the cat sat", "A dog ran", "ten", "the red bird flew over the green hill"]
SECOND = ["on the mat", "", "nine eight", "under the blue sky slowly one two three four five six"]
PAIRS = list(zip(FIRST, SECOND, strict=True))


def home(folder: Path, labels: int) -> Path:
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    config = tiny_bert_config(num_labels=labels, initializer_range=0.5)
    return save_tiny(BertForSequenceClassification(config), folder)


def scores(model: Model, **columns: list[str]) -> Any:
    columns = columns or {"text": FIRST, "text_pair": SECOND}
    data = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return fwd.run(model, data, batch=2)[0]["score"]  # bits of two runs are compared


def old(folder: Path, **config: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


@pytest.mark.parametrize("activation", [None, nn.Identity(), nn.Tanh(), nn.Sigmoid()])
@pytest.mark.parametrize("labels", [1, 3])
def test_folders_of_version_6(labels: int, activation: Any, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    library = CrossEncoder(
        str(home(tmp_path / "home", labels)), device="cpu", activation_fn=activation
    )
    library.save(str(tmp_path / "cross"))
    library = CrossEncoder(str(tmp_path / "cross"), device="cpu")
    found = scores(load(tmp_path / "cross").model)
    np.testing.assert_allclose(found, library.predict(PAIRS), atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
    ],
)
def test_folders_of_older_versions(config: dict[str, Any], tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = old(home(tmp_path, 1), **config)
    expected = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(scores(load(folder).model), expected, atol=1e-5)


def test_prompt_and_longest_row(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = str(home(tmp_path / "home", 1))
    library = CrossEncoder(
        folder, device="cpu", prompts={"q": "one two "}, default_prompt_name="q", max_length=12
    )
    library.save(str(tmp_path / "cross"))
    library = CrossEncoder(str(tmp_path / "cross"), device="cpu")
    model = load(tmp_path / "cross").model
    np.testing.assert_allclose(scores(model), library.predict(PAIRS), atol=1e-5)


def test_pairs_are_two_columns(tmp_path: Path) -> None:
    folder = old(home(tmp_path, 1), sbert_ce_default_activation_function="torch.nn.Identity")
    model = load(folder).model
    same = scores(model, query=FIRST, passage=SECOND)
    np.testing.assert_array_equal(same, scores(model))
    assert model.encode is not None
    for columns in ({"text": FIRST}, {"a": FIRST, "b": SECOND, "c": SECOND}):
        with pytest.raises(DataError, match="two columns of text, called `text` and `text_pair`"):
            model.encode(rows(**columns))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "config_sentence_transformers.json", {"activation_fn": "os.system"},
            "the activation 'os.system' is none of torch.nn",
        ),
        (
            "sentence_bert_config.json", {"transformer_task": "text-generation"},
            "a cross-encoder on a language model: .* Load it in a file.py",
        ),
        ("config.json", {"architectures": ["BertModel"]}, "ForSequenceClassification"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_named(
    name: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(home(tmp_path / "home", 1)), device="cpu").save(str(tmp_path / "cross"))
    path = tmp_path / "cross" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(LoadError, match=said):
        load(tmp_path / "cross")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression"},
        {"function_to_apply": "none"},
        {"function_to_apply": "sigmoid"},
    ],
    ids=str,
)
@pytest.mark.parametrize("labels", [1, 2, 3])
def test_classifiers_score_as_the_pipeline_does(
    labels: int, config: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import pipeline

    folder = old(home(tmp_path, labels), **config)
    classify = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    expected = [{e["label"]: e["score"] for e in row} for row in classify(FIRST)]
    columns, _ = fwd.run(load(folder), [{"text": text} for text in FIRST])
    for place, row in enumerate(expected):
        if "value" in columns:
            found = np.atleast_1d(columns["value"][place])
            names = [f"LABEL_{n}" for n in range(labels)]
            np.testing.assert_allclose(found, [row[name] for name in names], atol=1e-5)
        elif "labels" in columns:
            above = {name: score for name, score in row.items() if score > 0.5}
            assert set(columns["labels"][place]) == set(above)
            pairs = zip(columns["labels"][place], columns["scores"][place], strict=True)
            assert all(score == pytest.approx(above[name], abs=1e-5) for name, score in pairs)
        else:
            best = max(row, key=lambda name: row[name])
            assert columns["label"][place] == best
            assert columns["score"][place] == pytest.approx(row[best], abs=1e-5)


RERANKER = Path(__file__).parents[2] / "docs" / "models.md"


def test_a_language_model_is_refused_with_the_file_that_scores_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the docs gives the scores of the library."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules.logit_score import LogitScore
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, intermediate_size=48, initializer_range=0.5,
    )  # fmt: skip
    language = str(save_tiny(Qwen3ForCausalLM(config), tmp_path / "language"))
    transformer = Transformer(language, transformer_task="text-generation")
    transformer.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}the"
    )
    yes, no = transformer.tokenizer.convert_tokens_to_ids(["cat", "dog"])
    CrossEncoder(modules=[transformer, LogitScore(yes, no)]).save(str(tmp_path / "cross"))
    with pytest.raises(LoadError, match=r"chat template.*'A reranker on a language model'"):
        load(tmp_path / "cross")

    section = RERANKER.read_text().partition("## A reranker on a language model")[2]
    code = section.partition("```text\n")[2].partition("```")[0]
    file = tmp_path / "reranker.py"
    file.write_text(code.replace("path/of/the/folder", str(tmp_path / "cross")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = [{"text": a, "text_pair": b} for a, b in PAIRS]
    outputs, report = fwd.run(str(file), rows)
    library = CrossEncoder(str(tmp_path / "cross"), device="cpu")
    expected = library.predict(PAIRS, activation_fn=nn.Identity())
    np.testing.assert_allclose(outputs["output"], expected, atol=1e-4)
    assert "padded" in report.padding
