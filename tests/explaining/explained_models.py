"""Small models to explain, and what every explanation must keep to."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass.nouns.explanations import Explanation, Gradient, Part
from forwardpass.nouns.records import Record

GRADS = ("on", "off", "inference")


class Fn(nn.Module):
    """A module that is a function, with parts."""

    def __init__(self, then: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.then = then

    def forward(self, *inputs: Any) -> Any:
        return self.then(self, *inputs)


def mlp() -> nn.Sequential:
    parts = {"fc1": nn.Linear(6, 8), "act": nn.ReLU(), "fc2": nn.Linear(8, 4)}
    return nn.Sequential(OrderedDict(parts))


def explained(done: Record, element: str, tolerance: float = 1e-5) -> tuple[Part, ...]:
    """The parts of an explanation: each broken down, and close to what the pass computed."""
    said = done.explain(element)
    for part in said.parts:
        assert part.steps, part.lacking
        assert part.value == part.steps[-1].value
        assert part.recorded == pytest.approx(part.value, rel=tolerance, abs=tolerance)
        for step in part.steps:
            if step.terms and step.formula.startswith("Σ"):
                assert step.value == pytest.approx(sum(term.value for term in step.terms))
    assert Explanation.from_json(said.to_json()) == said
    assert max(map(len, str(said).splitlines())) <= 80
    return said.parts


def gradient_of(done: Record, element: str, loss: Any = None) -> Gradient:
    """The way back, as autograd has it and explained as closely."""
    found = done.explain(element, gradient=True, loss=loss).gradient
    assert found is not None
    if found.value is not None:
        assert found.steps
        assert found.value == pytest.approx(found.autograd, rel=1e-4, abs=1e-5)
    return found


def gradients(module: nn.Module, loss: Callable[[Any], Tensor], *inputs: Tensor) -> dict[str, Any]:
    """What autograd gives for a copy of the module, by name; inputs as `0`, `1`."""
    twin = copy.deepcopy(module)
    given = [t.clone().requires_grad_() if t.is_floating_point() else t for t in inputs]
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        loss(twin(*given)).backward()
    found: dict[str, Any] = {name: p.grad for name, p in twin.named_parameters()}
    return found | {str(place): tensor.grad for place, tensor in enumerate(given)}
