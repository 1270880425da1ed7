"""pt2e: layers in int8, and what proves that they are; or a refusal that says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from torch import nn
from torch._inductor import config as of_inductor

from forwardpass import Forward, Model
from forwardpass.building import Engine, Example, build
from forwardpass.errors import BuildError, UsageError
from forwardpass.executing.examples import drawn
from forwardpass.tensors.arrays import to_numpy


class Rows:
    """Batches of several sizes, anew at each iteration."""

    def __init__(self, model: Model, rows: tuple[int, ...] = (8, 5, 1)) -> None:
        self.model, self.rows = model, rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for seed, rows in enumerate(self.rows):
            batch = drawn(Forward(self.model), batch=rows, seed=seed)
            yield {path: to_numpy(value) for path, value in batch.items()}


def built(model: Model, backend: str, data: Rows | None = None) -> Engine:
    forward = Forward(model) @ backend
    return build(
        forward,
        Example(
            model.signature,
            drawn(forward, batch=3),
            lambda rows, sizes: drawn(forward, batch=len(rows), axes=sizes),
            data,
        ),
    )


def pictures(channels: int) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10),
        ]  # fmt: skip
        return Model(nn.Sequential(*layers), f"pixels: f32[batch {channels} 8 8]")


@pytest.mark.parametrize(
    ("backend", "error", "message"),
    [
        ("pt2e(quantize=int8)", BuildError, "fitted to data, and there are none: .* --calibrate"),
        ("pt2e(quantize=int4)", UsageError, "int8 is what pt2e quantizes to"),
        ("pt2e(quantize=int8, dynamic=1)", UsageError, "dynamic must be true or false"),
        ("pt2e", UsageError, r"pt2e needs quantize: pt2e\(quantize=…\)"),
        (
            "pt2e(quantize=int8, dynamic=true) where heads.*",
            UsageError,
            "'heads.*' matches no layer; known: 0, 2",
        ),
    ],
)
def test_what_cannot_be_quantized_so_is_refused(
    backend: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        built(models.mlp(), backend)


def test_data_without_a_row_are_none() -> None:
    model = models.mlp()
    with pytest.raises(BuildError, match="no row that can be encoded"):
        built(model, "pt2e(quantize=int8)", Rows(model, ()))


def test_a_module_without_layers_is_refused() -> None:
    class Sines(nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.sin()

    model = Model(Sines(), models.FEATURES)
    with pytest.raises(BuildError, match="quantizes none of its layers"):
        built(model, "pt2e(quantize=int8, dynamic=true)")


def test_layers_are_in_int8_and_the_others_stay(tmp_path: Path) -> None:
    model, before = models.mlp(), of_inductor.pre_grad_custom_pass
    engine = built(model, "pt2e(quantize=int8, threads=1) where !2", Rows(model))
    (done,) = engine.applied
    assert done.did.startswith("1 of 2 layers in int8: the code calls 1 kernels of oneDNN in int8")
    assert "their weights have 25% of their size" in done.did
    assert done.did.endswith("as they were stay 2")
    assert 0 < done.moved < 0.05
    assert of_inductor.pre_grad_custom_pass is before
    for rows in (1, 4):
        inputs = drawn(Forward(model), batch=rows, seed=9)
        exact = to_numpy(models.built(Forward(model))(inputs)["output"])
        came = to_numpy(engine(inputs)["output"])
        assert np.abs(came - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.soak
def test_convolutions_and_attention_are_in_int8() -> None:
    model = pictures(3)
    (done,) = built(model, "pt2e(quantize=int8)", Rows(model)).applied
    assert done.did.startswith("3 of 3 layers in int8: the code calls 3 kernels of oneDNN in int8")
    assert done.moved < 0.05
    (done,) = built(models.bert(), "pt2e(quantize=int8, dynamic=true) where !pooler*").applied
    assert done.did.startswith("12 of 13 layers in int8")
    assert done.did.endswith("as they were stay pooler.dense")
    assert done.moved < 0.05


@pytest.mark.soak
def test_a_wrong_fusion_is_found() -> None:
    """PyTorch 2.13 takes the layout of a convolution with one input channel for another one."""
    model = pictures(1)
    with pytest.raises(BuildError, match=r"a fusion of PyTorch .* is wrong"):
        built(model, "pt2e(quantize=int8)", Rows(model))
