"""Adapters beside the weights: merged by peft, or refused; never ignored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_folders import TEXTS, save_tiny, tiny_bert_config

import forwardpass as fwd
from forwardpass.errors import LoadError, MissingExtraError
from forwardpass.loading import load


@pytest.fixture
def base(tmp_path: Path) -> Path:
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    network = BertForSequenceClassification(tiny_bert_config(num_labels=3))
    return save_tiny(network, tmp_path / "base")


def test_without_peft_it_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (base / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"the adapter in .* needs the library 'peft'"):
        load(base)


def test_merged(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="merging an adapter needs peft")
    from transformers import BertForSequenceClassification

    network = BertForSequenceClassification.from_pretrained(base)
    torch.manual_seed(1)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", target_modules=["query", "dense"], init_lora_weights=False, r=4
    )
    adapted = peft.get_peft_model(network, config).eval()
    folder = tmp_path / "both"
    shutil.copytree(base, folder)
    adapted.save_pretrained(folder)
    found, _ = fwd.run(load(folder), [{"text": text} for text in TEXTS], outputs="logits")
    model = load(folder).model
    assert not any("lora" in name for name, _ in model.module.named_parameters())
    plain, _ = fwd.run(load(base), [{"text": text} for text in TEXTS], outputs="logits")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    with torch.no_grad():
        batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
        expected = adapted(**batch).logits.numpy()
    np.testing.assert_allclose(found["logits"], expected, atol=1e-4)
    assert float((plain["logits"] - expected).abs().max()) > 0.01


def test_one_that_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="merging an adapter needs peft")
    from safetensors.torch import load_file, save_file
    from transformers import BertForSequenceClassification

    network = BertForSequenceClassification.from_pretrained(base)
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=4)
    peft.get_peft_model(network, config).save_pretrained(base)
    path = base / "adapter_model.safetensors"
    weights = load_file(path)
    weights["base_model.model.other.lora_A.weight"] = torch.zeros(4, 16)
    save_file(weights, path)
    with pytest.raises(LoadError, match=r"does not fit the model: base_model\.model\.other"):
        load(base)
    path.unlink()
    with pytest.raises(LoadError, match=r"has adapter_config\.json and no adapter_model"):
        load(base)
