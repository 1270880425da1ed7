"""Differences planted into copies of models: the guilty layer is named first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from differences import Planted, planted
from torch import nn

import forwardpass as fwd

ENOUGH = 0.95


def named(case: Planted) -> str:
    found = fwd.diff(case.a, case.b, case.inputs, grad="off", expanded=True)
    return found.guilty.path if found.guilty is not None else f"nobody ({found.verdict})"


def test_the_guilty_layer_comes_first() -> None:
    cases = list(planted())
    answers = {case.name: named(case) for case in cases}
    wrong = {
        case.name: f"{answers[case.name]}, not {case.guilty}"
        for case in cases
        if answers[case.name] != case.guilty
    }
    assert len(cases) >= 60
    assert len(wrong) <= (1 - ENOUGH) * len(cases), wrong


def _mixture() -> tuple[nn.Module, Any, str]:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    ids = {"input_ids": torch.randint(0, 50, (2, 7))}
    return MixtralForCausalLM(config), ids, "model.layers.0.mlp.gate"


def _translator() -> tuple[nn.Module, Any, str]:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    ids = {
        "input_ids": torch.randint(0, 50, (2, 7)),
        "decoder_input_ids": torch.randint(0, 50, (2, 5)),
    }
    return T5ForConditionalGeneration(config), ids, "decoder.block.1.layer.1.EncDecAttention.k"


@pytest.mark.parametrize("make", [_mixture, _translator])
def test_families_whose_numbers_pass_through_unwritten_memory_caches_and_routes(make: Any) -> None:
    model, ids, path = make()
    model.eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        weight = other.get_submodule(path).weight
        weight += 0.05 * torch.randn_like(weight)
    found = fwd.diff(model, other, ids, grad="off")
    assert found.guilty is not None
    assert found.guilty.path == path
    assert fwd.diff(model, model, ids, grad="off").verdict == "same"
