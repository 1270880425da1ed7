"""Weights are whole numbers of 8 bits, here and in what is written; the rest is said."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stepped import Stepped, stepped
from torch import nn

import forwardpass as fwd
from forwardpass.errors import BuildError, UsageError

FEATURES = "x: f32[batch 16]"


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 128), nn.Linear(128, 4))


def quantized(module: nn.Module, step: str = "quantize(int8)", inputs: str = FEATURES) -> Stepped:
    return stepped(module.eval(), inputs, step)


def test_each_weight_is_int8_and_rounded_by_at_most_half_a_step() -> None:
    net = mlp()
    done = quantized(net)
    for path in ("0", "2", "3"):
        before, after = net.get_submodule(path), done.module.get_submodule(path)
        assert after.numbers.dtype is torch.int8
        assert [name for name, _ in after.named_parameters()] == ["bias"]
        step = before.weight.abs().amax(1, keepdim=True) / 127.5
        assert (
            ((after.weight - before.weight).abs() <= step * 0.5001)
            .logical_or(after.numbers == 127)
            .all()
        )
    assert done.did == (
        "the weights of 3 of 3 linear layers are int8; weights and buffers take "
        f"{16 * 256 + 256 * 128 + 128 * 4 + 8 * (256 + 128 + 4):,} bytes, where they took 151,056"
    )
    assert 1e-5 < done.apart < 0.05
    assert net[0].weight.dtype is torch.float32


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino", "torchscript"])
def test_what_is_written_is_as_small_and_computes_the_same(backend: str, tmp_path: Path) -> None:
    forward = fwd.load(fwd.Model(mlp().eval(), FEATURES)) | "quantize(int8)"
    rows = {"x": np.random.default_rng(0).normal(size=(20, 16)).astype("f4")}
    fwd.export(forward @ backend, tmp_path / "small.fwd")
    written = sum(file.stat().st_size for file in (tmp_path / "small.fwd").rglob("*"))
    assert written < 90_000
    here, _ = fwd.run(forward, rows)
    there, _ = fwd.run(fwd.load(tmp_path / "small.fwd", trust="code"), rows)
    np.testing.assert_allclose(there["output"], here["output"], rtol=1e-4, atol=1e-5)


def test_where_chooses_layers() -> None:
    done = quantized(mlp(), "quantize(int8) where 2")
    assert done.did.startswith("the weights of 1 of 3 linear layers are int8")
    assert type(done.module[0]) is type(done.module[3]) is nn.Linear


def test_what_is_no_plain_layer_stays_with_its_reason() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.tied, self.hooked = (nn.Linear(16, 16) for _ in range(4))
            self.tied.weight = self.b.weight
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))
            self.hooked.register_forward_hook(lambda module, args, out: out * 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.hooked(self.normed(self.tied(self.b(self.a(x)))))

    done = quantized(Mixed())
    assert done.did.startswith("the weights of 1 of 5 linear layers are int8")
    assert done.did.endswith(
        "; 4 stay (b: its weight is tied.weight, too; tied: its weight is b.weight, too; "
        "hooked: it has hooks; normed: its weight is computed from others)"
    )
    assert done.apart < 0.05


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("quantize(int4)", r"quantize\(int4\): the dtype must be int8"),
        ("quantize(int8, weight_only=false)", r"activations .* @ openvino\(quantize=int8\)"),
    ],
)
def test_what_is_no_step_of_ours_is_refused(step: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantized(mlp(), step)


def test_where_there_is_nothing_to_quantize_it_says_so() -> None:
    with pytest.raises(BuildError, match="there is no linear layer to quantize"):
        quantized(nn.Conv2d(3, 4, 1), inputs="x: f32[batch 3 4 4]")
    with pytest.raises(BuildError, match="it is int8 already"):
        quantized(mlp(), "quantize(int8) | quantize(int8)")


def test_torchao_is_not_heard_and_leaves_pytorch_as_it_was() -> None:
    code = """
import logging, torch
from torch._inductor import config
import sys; sys.path.append("../..")
import test_quantize as tests
before = config.pre_grad_custom_pass
tests.quantized(tests.mlp())
assert config.pre_grad_custom_pass is before
assert logging.getLogger("torchao").level == logging.NOTSET
"""
    folder = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert logging.getLogger("torchao").isEnabledFor(logging.WARNING)
