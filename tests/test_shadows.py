"""Attributes may stand in the place of every method of nn.Module: every verb takes these."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from untouched import same

import forwardpass as fwd

NAMES = sorted(
    name
    for name in dir(nn.Module)
    if not name.startswith("_") and name not in ("forward", "training", "dump_patches")
)
VALUES = {"none": lambda: None, "list": lambda: [1, 2], "layer": lambda: nn.ReLU()}


class Part(nn.Module):
    """A layer that says what it is in its own words."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.fc.weight.data.copy_(torch.linspace(-1, 1, 24).reshape(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc(x)).relu()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part, self.head = Part(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(x))


class OfClass(Net):
    """The same, in the class itself."""


for _name in NAMES:
    setattr(OfClass, _name, None)


class Guarded(Net):
    """Looks its attributes up, and sets them, in its own way; is empty, and equals nothing."""

    __hash__ = None  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name in ("part", "head"):
            return self.__dict__["_modules"][name]
        raise AttributeError(f"no {name} here")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "sealed" or "sealed" not in self.__dict__:
            nn.Module.__setattr__(self, name, value)
        else:
            raise RuntimeError(f"{name}: sealed")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __iter__(self) -> Any:
        raise RuntimeError("nothing to go over")

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


def shadowed(value: str) -> nn.Module:
    module = Net()
    for part in (module, module.part):
        for name in NAMES:
            vars(part)[name] = VALUES[value]()
    return module


def sealed() -> nn.Module:
    module = Guarded()
    module.sealed = True
    return module


MODULES = {
    **{value: lambda value=value: shadowed(value) for value in VALUES},
    "class": OfClass,
    "guarded": sealed,
}
PATHS = ["", "part", "part.fc", "part.norm", "head"]
X = torch.linspace(-1, 1, 32).reshape(8, 4)


def plain() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def like_plain(kind: str) -> nn.Module:
    """One of the modules, with the weights of `plain`, evaluating."""
    torch.manual_seed(0)
    module = MODULES[kind]()
    for part in (
        module,
        *vars(module)["_modules"].values(),
        *vars(module.part)["_modules"].values(),
    ):
        vars(part)["training"] = False
    return module


@pytest.mark.parametrize("mode", ["train", "eval", None])
@pytest.mark.parametrize("kind", MODULES)
def test_record_and_what_stands_on_it(kind: str, mode: Any, tmp_path: Path) -> None:
    module, expected = like_plain(kind), plain()
    with torch.no_grad():
        if mode is not None:
            expected.train(mode == "train")
        numbers = expected(X)
    for grad in ("on", "off", "inference"):
        done = fwd.record(module, X, mode=mode, grad=grad)
        assert same(done.returned["output"], numbers)
        assert [entry.path for entry in done.modules] == [
            "",
            "part",
            "part.fc",
            "part.norm",
            "head",
        ]
        found = done.validate("f")
        assert found.verdict == "valid", repr(found)
        explained = done.explain("output[0,1]")
        assert explained.parts[-1].value == pytest.approx(float(numbers[0, 1]))
        space: dict[str, Any] = {}
        exec(done.to_python(), space)
        state = {p.name: t for p, t in zip(done.parameters, _tensors(module), strict=True)}
        assert torch.allclose(space["forward"](X, state)["output"], numbers, atol=1e-6)
        done.save(tmp_path / "it.fwdrecord")
    assert vars(module)["training"] is False


def _tensors(module: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    own = vars(module)
    for store in ("_parameters", "_buffers"):
        found += [tensor for tensor in own[store].values() if tensor is not None]
    for child in own["_modules"].values():
        found += _tensors(child)
    return found


@pytest.mark.parametrize("kind", MODULES)
def test_check_and_diff_say_what_they_say_of_the_plain_one(kind: str) -> None:
    module = like_plain(kind)
    for grad in ("on", "inference"):
        found, expected = (
            {
                (one.rule, one.severity, one.message)
                for one in fwd.check(m, X, grad=grad)
                # what PyTorch's own exporter makes of such a module is another matter; it is asked
                # where it is loaded already
                if one.rule != "static-ready"
            }
            for m in (module, plain())
        )
        assert {one[:2] for one in found} == {one[:2] for one in expected}
    assert fwd.diff(module, plain(), X).verdict == fwd.diff(plain(), plain(), X).verdict
    other = plain()
    with torch.no_grad():
        other.part.fc.weight[0, 0] += 1
    guilty = fwd.diff(module, other, X).guilty
    assert guilty is not None
    assert guilty.path == "part.fc"


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("plan", ["", " | cast(f64)", " @ eager(device=cpu)"])
def test_run_and_watch(kind: str, plan: str) -> None:
    module = like_plain(kind)
    with torch.no_grad():
        expected = plain()(X)
    model = fwd.Model(module, inputs="x: f32[batch 4]")
    forward = fwd.Forward(model, fwd.Plan.parse(plan)) if plan else model
    outputs, report = fwd.run(forward, {"x": X.numpy()})
    assert report.rows == len(X)
    assert np.allclose(outputs["output"], expected, atol=1e-6)
    with fwd.watch(module) as records:
        module(X)
    assert len(records) == 1
