"""Whose line it is, wherever a model's file lies."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.code.owners import (
    Owner,
    is_installed,
    models_frame,
    models_line,
    owner,
    past_ours,
    raised_at,
)
from forwardpass.keeping.containers import is_users_class
from forwardpass.nouns.calls import Site

PACKAGE = os.path.dirname(fwd.__file__)
TORCH = os.path.dirname(torch.__file__)
SOURCE = """\
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        x = self.fc(x)
        return x * float(x.abs().max())
"""
FOLDERS = ["forwardpass-demo", "torch-project", "numpy", "torch", "forwardpass", "models"]


def model_in(file: str) -> nn.Module:
    """The model of SOURCE, as Python has it that read the source from that file."""
    space: dict[str, Any] = {"__name__": "some_model"}
    exec(compile(SOURCE, file, "exec"), space)
    return space["Model"]()


@pytest.mark.parametrize(
    ("file", "whose"),
    [
        (f"{PACKAGE}/recording/tracing.py", Owner.OURS),
        (f"{PACKAGE}/__init__.py", Owner.OURS),
        (f"{PACKAGE}/building/engines.py", Owner.OURS),
        (f"{PACKAGE}/building/steps/cast.py", Owner.LIBRARY),
        (f"{PACKAGE}/loading/pooling.py", Owner.LIBRARY),
        (f"{PACKAGE}-demo/model.py", Owner.USER),
        (f"{TORCH}/nn/modules/linear.py", Owner.LAYERS),
        (f"{TORCH}/ao/nn/quantized/modules/linear.py", Owner.LAYERS),
        (f"{TORCH}/nn/modules/module.py", Owner.TORCH),
        (f"{TORCH}/nn/functional.py", Owner.TORCH),
        (f"{TORCH}/_tensor.py", Owner.TORCH),
        (f"{os.path.dirname(np.__file__)}/_core/fromnumeric.py", Owner.NUMPY),
        (contextlib.__file__, Owner.PYTHON),
        ("<frozen importlib._bootstrap>", Owner.PYTHON),
        (f"{sysconfig.get_path('purelib')}/timm/layers/norm.py", Owner.LIBRARY),
        ("/home/me/.local/lib/python3.12/site-packages/timm/layers/norm.py", Owner.LIBRARY),
        ("/usr/lib/python3/dist-packages/somebody/model.py", Owner.LIBRARY),
        ("/home/me/torch-project/model.py", Owner.USER),
        ("/home/me/torch/nn/modules/mine.py", Owner.USER),
        ("/home/me/forwardpass/model.py", Owner.USER),
        ("model.py", Owner.USER),
        ("<stdin>", Owner.USER),
        ("<ipython-input-3-0123456789ab>", Owner.USER),
        ("/tmp/ipykernel_71/123.py", Owner.USER),
        ("<eval_with_key>.7", Owner.USER),
        ("<string>", Owner.STRING),
    ],
)
def test_whose_a_file_is(file: str, whose: Owner) -> None:
    assert owner(file) is whose


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_model_is_its_users_in_a_folder_of_any_name(folder: str, tmp_path: Path) -> None:
    file = str(tmp_path / folder / "model.py")
    done = fwd.record(model_in(file), torch.randn(2, 4))
    sites = {done.site(call) for call in done.calls}
    assert {site.line for site in sites if os.path.basename(site.file) == "model.py"} >= {10, 11}
    found = fwd.check(model_in(file), torch.randn(2, 4), rules=["host-boundary"])
    (finding,) = found.findings
    assert finding.severity == "warning"
    assert finding.site is not None
    assert finding.site.line == 11


def test_a_model_that_was_installed_is_a_librarys(tmp_path: Path) -> None:
    model = model_in(str(tmp_path / "site-packages" / "somebody" / "model.py"))
    found = fwd.check(model, torch.randn(2, 4), rules=["host-boundary"])
    (finding,) = found.findings
    assert finding.severity == "note"
    assert finding.message.startswith("libraries look at values")


@pytest.mark.parametrize("file", ["<stdin>", "<ipython-input-3-0123456789ab>", "<string>"])
def test_what_stands_in_no_file_has_its_lines(file: str) -> None:
    done = fwd.record(model_in(file), torch.randn(2, 4))
    lines = [done.site(call).line for call in done.calls if call.macs]
    assert lines == [10]


def test_the_forward_of_a_step_is_a_line_of_the_pass() -> None:
    """A Cast is a module of the model that runs, although its file is one of ours."""
    forward = fwd.Forward(fwd.Model(model_in("model_of_a_cast.py"))) | "cast(bf16)"
    done = fwd.record(forward, torch.randn(2, 4))
    files = {done.site(call).file for call in done.calls}
    assert any(file.endswith("building/steps/cast.py") for file in files)
    assert "model_of_a_cast.py" in files
    assert not any("recording" in file for file in files)


def test_lines_of_python_and_numpy_are_those_that_called_them() -> None:
    class Through(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return copy.deepcopy(x) + np.squeeze(x)  # pyright: ignore

    done = fwd.record(Through(), torch.ones(2, 1), grad="off")
    assert {"copy_", "squeeze", "add"} <= {call.short for call in done.calls}
    assert {done.site(call).file.rpartition(os.sep)[2] for call in done.calls} == {"test_owners.py"}


def _here() -> FrameType:
    return sys._getframe(1)  # pyright: ignore[reportPrivateUsage]


def test_the_models_frame_is_found_past_python_and_not_past_ours() -> None:
    seen: list[FrameType | None] = []

    def look(function: Callable[[], FrameType]) -> None:
        seen.append(models_frame(function()))

    within_python: Any = functools.partial(_here)
    look(within_python)
    assert seen[0] is not None
    assert seen[0].f_code.co_name == "look"
    ours: dict[str, Any] = {}
    exec(compile("def f(g): return g()", f"{PACKAGE}/recording/made_up.py", "exec"), ours)
    frames: list[FrameType] = []
    ours["f"](lambda: frames.append(_here()))
    (inner,) = frames
    assert models_frame(inner) is inner
    assert models_frame(inner.f_back) is None
    assert models_line(inner.f_back) is None
    past = past_ours(inner.f_back)
    assert past is not None
    assert past.f_code.co_name == "test_the_models_frame_is_found_past_python_and_not_past_ours"


def test_what_raises_within_pytorch_raised_at_the_models_line() -> None:
    model = model_in("raises_in_a_layer.py")
    with pytest.raises(RuntimeError) as raised:
        model(torch.randn(2, 5))
    site = raised_at(raised.value.__traceback__)
    assert site is not None
    assert (site.file, site.line) == ("raises_in_a_layer.py", 10)
    assert raised_at(None) is None


def test_a_site_is_installed_where_its_file_is() -> None:
    assert is_installed(Site("torch/nn/functional.py", 1, "f"))
    assert is_installed(Site("contextlib.py", 1, "f"))
    assert not is_installed(Site("nowhere/model.py", 1, "f"))
    assert not is_installed(Site("<string>", 1, "f"))


def test_classes_are_the_users_or_not() -> None:
    class Mine:
        pass

    assert is_users_class(Mine)
    for kind in (int, Path, np.ndarray, nn.Linear, fwd.Model, type(sys.implementation)):
        assert not is_users_class(kind)
