"""Backends that write a graph: what they compute is what the module does, at sizes it never saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
import numpy as np
import pytest
import torch
from torch import nn

from forwardpass import Model
from forwardpass.building import backends
from forwardpass.errors import BuildError
from forwardpass.executing.examples import drawn
from forwardpass.nouns.folders import plugins
from forwardpass.nouns.forwards import Forward
from forwardpass.tensors.arrays import to_numpy

FILES = plugins(backends)
LOWERINGS = sorted(name for name, file in FILES.items() if not hasattr(file, "build"))
LOWERINGS.remove("pt2e")  # it only quantizes, and has tests of its own
COMPILERS = {"aot", "inductor"}
"""Seconds a model: one is quick enough, the others are for `make soak`."""
CASES: list[tuple[Callable[[], Model], list[dict[str, int]]]] = [
    (models.bert, [{"tokens": 3}, {"tokens": 29}]),
    (models.cnn, [{}]),
    (models.bilstm, [{"tokens": 5}, {"tokens": 40}]),
    (models.nested_output, [{}]),
    (models.nested_inputs, [{}]),
]


def rows(model: Model, count: int, **axes: int) -> dict[str, torch.Tensor]:
    return drawn(Forward(model), batch=count, axes=axes, seed=3)


def cases() -> list[Any]:
    found: list[Any] = []
    for backend in [*LOWERINGS, "inductor"]:
        for place, (make, sizes) in enumerate(CASES):
            slow = pytest.mark.soak if place else pytest.mark.long
            marks = [slow] if backend in COMPILERS else []
            name = f"{backend}-{make.__name__}"
            found.append(pytest.param(backend, make, sizes, marks=marks, id=name))
    return found


@pytest.mark.parametrize(("backend", "make", "sizes"), cases())
def test_a_lowering_computes_what_eager_does_at_other_sizes(
    backend: str, make: Callable[[], Model], sizes: list[dict[str, int]]
) -> None:
    model = make()
    if (backend, make) == ("aot", models.bilstm):
        with pytest.raises(BuildError, match=r"cannot be lowered to aot. torch.export: "):
            models.built(Forward(model) @ backend)
        return
    lowered, eager = models.built(Forward(model) @ backend), models.built(Forward(model))
    for axes in sizes:
        for count in (1, 2, 9):
            inputs = rows(model, count, **axes)
            came, expected = lowered(inputs), eager(inputs)
            assert came.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(
                    to_numpy(came[name]), to_numpy(value), rtol=0,
                    atol=1e-3 * float(value.abs().max()),
                )  # fmt: skip


class Baked(nn.Module):
    """Its forward counts the rows in Python, where no exporter can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        scale = torch.tensor(float(len(features.tolist())))
        return self.linear(features) * scale


@pytest.mark.parametrize("backend", [name for name in LOWERINGS if name not in COMPILERS])
def test_what_an_exporter_takes_for_a_constant_is_found(backend: str) -> None:
    with pytest.raises(BuildError, match=f"Baked cannot be lowered to {backend}"):
        models.built(Forward(Model(Baked(), "features: f32[batch 16]")) @ backend)


@pytest.mark.parametrize("backend", ["openvino", "torchscript"])
def test_a_module_of_which_parts_compute_in_bf16_is_lowered(backend: str) -> None:
    """Two libraries round such numbers differently: what is too far depends on the dtype."""
    forward = Forward(models.mlp()) | "cast(bf16)"
    features = torch.randn(5, 16).numpy()
    plain = models.built(forward)({"features": features})["output"]
    lowered = models.built(forward @ backend)({"features": features})["output"]
    assert torch.as_tensor(lowered).sub(torch.as_tensor(plain)).abs().max() < 5e-2
