"""Padding only after proof."""

from __future__ import annotations

import models
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass import Model
from forwardpass.executing.encoding import checked
from forwardpass.nouns.forwards import Forward
from forwardpass.preparing.outputs import infer
from forwardpass.preparing.padding import PaddingProof, prove


def proof(model: Model, name: str) -> PaddingProof:
    generator = np.random.default_rng(0)
    assert model.signature is not None
    item = model.signature.inputs[0]
    rows = []
    for length in (3, 4, 7, 12, 20, 31):
        shape = [length if axis.is_variable else axis.size for axis in item.row_axes]
        rows.append(
            generator.integers(1, 50, shape)
            if item.dtype == "i64"
            else generator.normal(size=shape)
        )
    block, _ = checked(model.signature, {name: rows}, len(rows))
    engine = models.built(Forward(model))
    if not model.signature.outputs:
        engine.learn(infer(engine, block, 0))
    return prove(engine, block, 0)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (models.masked_mean(), "ids"),
        (models.bert(), "input_ids"),
        (models.gpt2_left(True), "input_ids"),
    ],
    ids=["masked mean", "BERT", "GPT-2 left with positions"],
)
def test_padding_that_moves_nothing_is_proved(model: Model, name: str) -> None:
    made = proof(model, name)
    assert made.paddable == ("tokens",)
    assert made.distance < 1e-5
    assert "tokens padded: proved on 6 rows" in made.said


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (models.bilstm(), "ids"),
        (models.pooled_convolution(), "signal"),
        (models.gpt2_left(False), "input_ids"),
    ],
    ids=["biLSTM", "pooled convolution", "GPT-2 left without positions"],
)
def test_padding_that_moves_outputs_is_refused_and_said(model: Model, name: str) -> None:
    made = proof(model, name)
    assert made.paddable == ()
    assert made.distance > 1e-3
    assert "moves real outputs" in made.said
    assert "only equal sizes share a batch" in made.said


class Shares(nn.Module):
    """The mean of the real frames; lengths come as shares of what the batch is filled up to."""

    def forward(self, frames: Tensor, wav_lens: Tensor) -> Tensor:
        lengths = (wav_lens * frames.shape[1]).round()
        real = torch.arange(frames.shape[1]) < lengths[:, None]
        return (frames.tanh() * real[..., None]).sum(1) / lengths[:, None]


@pytest.mark.parametrize("axis", ["frames", "frames=1..64%8"])
def test_shares_of_the_longest_are_those_of_each_batch(axis: str) -> None:
    signature = [f"frames: f32[batch {axis} 3] pad 0", "wav_lens: f32[batch] = share(frames)"]
    model = Model(Shares(), signature)
    assert proof(model, "frames").paddable == ("frames",)
    rows = [
        {"frames": np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)}
        for n in (7, 3, 9, 1, 16, 2)
    ]
    came, report = fwd.run(model, rows, batch=4)
    assert report.rows == 6
    for row, mine in zip(rows, came["output"], strict=True):
        assert mine.numpy() == pytest.approx(np.tanh(row["frames"]).mean(0), abs=1e-6)


def test_without_pad_nothing_is_tried() -> None:
    model = Model(
        models.masked_mean().module,
        ["ids: i64[batch tokens]", "mask: i64[batch tokens] = valid(tokens)"],
    )
    made = proof(model, "ids")
    assert made.paddable == ()
    assert made.rows == 0
    assert "no padding is declared" in made.said


def test_rows_of_one_length_are_padded_for_the_proof_all_the_same() -> None:
    model = models.bilstm()
    block, _ = checked(model.signature, {"ids": np.ones((4, 9), np.int64)}, 4)
    engine = models.built(Forward(model))
    engine.learn(infer(engine, block, 0))
    assert prove(engine, block, 0).paddable == ()


class Counted(nn.Module):
    """The mean of the real tokens, counting what it is given; beyond `bound`, of all of them."""

    def __init__(self, bound: int) -> None:
        super().__init__()
        self.bound, self.cells = bound, list[int]()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.cells.append(ids.numel())
        if ids.shape[1] > self.bound:
            mask = torch.ones_like(mask)
        return (ids * mask).double().sum(1, keepdim=True) / mask.sum(1, keepdim=True)


INPUTS = ["ids: i64[batch tokens] pad 0", "mask: i64[batch tokens] = valid(tokens)"]


@pytest.mark.parametrize("bound", [25, 30])
def test_the_smallest_row_is_padded_to_the_largest(bound: int) -> None:
    """Which alone shows it: the others meet no such size."""
    assert proof(Model(Counted(bound), INPUTS), "ids").paddable == ()
    assert proof(Model(Counted(31), INPUTS), "ids").paddable == ("tokens",)


def test_one_very_long_row_does_not_make_the_proof_dear() -> None:
    lengths = [*range(10, 30), 2_000]
    model = Model(Counted(9_999), INPUTS)
    block, _ = checked(model.signature, {"ids": [np.ones(n, np.int64) for n in lengths]}, 21)
    engine = models.built(Forward(model))
    engine.learn(infer(engine, block, 0))
    counted = engine.replicas[0].module  # pyright: ignore[reportAttributeAccessIssue]
    counted.cells.clear()
    assert prove(engine, block, 0).rows == 6
    assert sum(counted.cells) < 3 * 2_000 + 400, "alone, and with the smallest"
