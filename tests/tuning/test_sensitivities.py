"""What layers make wrong by themselves: simulated, and beside what a backend makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.signatures import Signature
from forwardpass.nouns.tunings import Evidence
from forwardpass.tuning.sensitivities import Looked, sensitivities
from forwardpass.tuning.splitting import Splitting

FEATURES = "features: f32[batch 32]"
ROWS = np.random.default_rng(0).normal(size=(96, 32)).astype(np.float32)


def looked(
    module: nn.Module,
    layers: list[str],
    rows: np.ndarray[Any, Any] = ROWS,
    inputs: str = FEATURES,
    **options: Any,
) -> Looked:
    signature = Signature.parse(inputs)
    data = [{signature.inputs[0].path: part} for part in np.array_split(rows, 3)]
    return sensitivities(module.eval(), signature, data, layers, **options)


def errors(found: Looked) -> dict[str, float]:
    return {one.layer: one.error for one in found.layers}


class Blocks(nn.Module):
    """Four residual blocks; a channel of `blocks.1` is a thousand times as large as the others, and
    what reads it has weights for it that make up for that."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(32, 64), "down": nn.Linear(64, 32)}) for _ in range(4)
        )
        self.head = nn.Linear(32, 16)
        with torch.no_grad():
            one: Any = self.blocks[1]
            one["up"].weight[5] *= 3000
            one["down"].weight[:, 5] /= 3000

    def forward(self, features: Tensor) -> Tensor:
        for block in self.blocks:
            parts: Any = block
            features = features + parts["down"](F.relu(parts["up"](features)))
        return self.head(features)


LAYERS = [f"blocks.{n}.{part}" for n in range(4) for part in ("up", "down")] + ["head"]


def cosine(came: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    norms = np.linalg.norm(came, axis=1) * np.linalg.norm(exact, axis=1)
    return float(((came * exact).sum(axis=1) / norms).mean())


def test_a_fragile_layer_stays_in_full_precision_by_name(tmp_path: Path) -> None:
    """By real plans, from the artefact that quantizes all to the split that keeps the budget."""
    module = Blocks().eval()
    model = fwd.Forward(fwd.Model(module, inputs=FEATURES))
    exact = module(torch.from_numpy(ROWS)).detach().numpy()
    whole = "@ onnxruntime(quantize=int8)"
    done = fwd.export(model @ whole[2:], tmp_path / "whole.fwd").lowered.quantized
    assert done is not None
    assert sorted(done.layers) == sorted(LAYERS)

    found = looked(Blocks(), list(done.layers))
    assert found.layers[0].layer == "blocks.1.down"
    assert found.layers[0].error > 20 * found.layers[1].error
    assert found.others == ()
    assert sum(one.share for one in found.layers) == pytest.approx(1.0)

    keep = Keep("cosine", "mean", ">=", 0.999)
    splitting = Splitting.of(whole, found.layers, [keep])
    tried: list[str] = []
    splitting.learn("@ onnxruntime", [_evidence(exact, exact, keep)])
    splitting.learn(whole, [_evidence(computed(str(tmp_path / "whole.fwd")), exact, keep)])
    while (plan := splitting.next()) is not None:
        tried.append(plan)
        splitting.learn(plan, [_evidence(computed(model @ plan[2:]), exact, keep)])
    assert tried[0] == "@ onnxruntime(quantize=int8) where !blocks.1.down"
    assert len(tried) == 1
    assert [one.layer for one in splitting.told(tried[0]) if one.full] == ["blocks.1.down"]


def computed(forward: Any) -> np.ndarray[Any, Any]:
    came, _ = fwd.run(forward, {"features": ROWS})
    return np.stack(list(came["output"]))


def _evidence(came: np.ndarray[Any, Any], exact: np.ndarray[Any, Any], keep: Keep) -> Evidence:
    value = cosine(came, exact)
    return Evidence(
        keep=str(keep), value=value, bound=value, limit=keep.limit, rows=len(ROWS),
        holds="kept" if value >= keep.limit else "broken", why="",
    )  # fmt: skip


def test_what_is_simulated_is_what_onnx_runtime_computes() -> None:
    module = Blocks().eval()
    model = fwd.Forward(fwd.Model(module, inputs=FEATURES))
    rows = ROWS[:8]  # one batch, whose ranges both take
    exact = module(torch.from_numpy(rows)).detach().numpy()
    found = errors(looked(Blocks(), LAYERS, rows[None].repeat(3, 0).reshape(24, 32)))
    for layer in ("blocks.0.up", "blocks.1.down"):
        plan = f"onnxruntime(quantize=int8) where {layer}"
        came, _ = fwd.run(model @ plan, {"features": rows}, batch=8)
        off = np.stack(list(came["output"])) - exact
        assert found[layer] == pytest.approx((off**2).sum() / (exact**2).sum(), rel=0.1), layer


def test_the_module_is_left_alone() -> None:
    module = Blocks().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.random.get_rng_state()
    sensitivities(module, Signature.parse(FEATURES), [{"features": ROWS}], LAYERS)
    assert module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_time_layers_are_named_that_were_not_looked_at() -> None:
    found = looked(Blocks(), LAYERS, until=WALL.now() - 1)
    assert found.layers == ()
    assert found.others == tuple(LAYERS)
    assert any("there was no time" in note for note in found.notes)


def test_layers_of_equal_weights_are_not_looked_at() -> None:
    found = looked(Blocks(), [*LAYERS[2:], "blocks.0.up or blocks.0.down"])
    assert found.others == ("blocks.0.up", "blocks.0.down")
    assert any("told apart" in note for note in found.notes)


class Kinds(nn.Module):
    """A layer of each kind: by hand, reused, recurrent, of attention, convolutions both ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.there = nn.Conv1d(4, 8, 3, padding=1)
        self.back = nn.ConvTranspose1d(8, 6, 3, padding=1)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.again = nn.Linear(8, 8)
        self.matrix = nn.Parameter(torch.randn(8, 5))
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.back(F.relu(self.there(x)))
        h = self.encoder(h + self.attention(h, h, h)[0])
        h = self.lstm(h)[0]
        return self.again(self.again(h)) @ self.matrix


def test_layers_are_known_by_the_modules_that_hold_their_weights() -> None:
    names = [
        "there", "back", "attention", "attention.out_proj", "lstm", "again", "",
        "encoder.linear1", "encoder.linear2", "encoder.self_attn", "encoder.self_attn.out_proj",
    ]  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(24, 4, 16)).astype(np.float32)
    found = looked(Kinds(), [*names, "gone"], rows, "x: f32[batch 4 16]")
    assert {one.layer for one in found.layers} == {*names} - {""}
    assert all(0 < one.error < 0.01 for one in found.layers), found.layers
    assert found.others == ()
    assert any(note.startswith("2 quantized products") for note in found.notes)
    assert sum(one.share for one in found.layers) < 1
