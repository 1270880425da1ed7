"""Pairs that are hard to compare: other sizes, noise, complex and sparse numbers, moved calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.errors import UsageError

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


class By(nn.Module):
    """Two linear layers, and a forward that is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.how = forward

    def forward(self, x: Tensor) -> Any:
        return self.how(self, x)


def with_other_weight(model: By, name: str) -> By:
    other = copy.deepcopy(model)
    with torch.no_grad():
        getattr(other, name).weight[0, 0] += 0.3
    return other


def guilty(a: Any, b: Any, inputs: Any = X, **more: Any) -> str | None:
    found = fwd.diff(a, b, inputs, grad="off", **more)
    assert found.verdict == "differs"
    return None if found.guilty is None else found.guilty.path


# -- what can be compared at all -----------------------------------------------------------------


def test_inputs_of_another_size_differ_and_nothing_raises() -> None:
    model = nn.Linear(8, 8)
    found = fwd.diff(model, model, X, b_inputs=X[:2])
    assert found.verdict == "differs"
    assert found.only_outputs == ("output is [4, 8] in a, [2, 8] in b",)


@pytest.mark.parametrize(
    "noise",
    [
        lambda x: x + torch.randn_like(x),
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.7)),
        lambda x: x + torch.empty_like(x).normal_(),
        lambda x: F.dropout(x, 0.5),
    ],
)
def test_noise_is_the_same_in_both_and_widens_no_tolerance(noise: Any) -> None:
    model = By(lambda self, x: noise(self.one(x)))
    assert fwd.diff(model, copy.deepcopy(model), X).verdict == "same"
    assert guilty(model, with_other_weight(model, "one")) == "one"


def test_complex_against_real_numbers() -> None:
    turned = By(
        lambda _, x: torch.view_as_real(torch.view_as_complex(x.view(4, 4, 2)) * 1j).flatten(1)
    )
    by_hand = By(lambda _, x: torch.stack([-x[:, 1::2], x[:, ::2]], -1).flatten(1))
    assert fwd.diff(turned, by_hand, X).verdict in ("same", "rounding")


def test_complex_outputs_have_a_tolerance() -> None:
    table = torch.fft.fft(torch.eye(8))
    a = By(lambda _, x: torch.fft.fft(x))
    b = By(lambda _, x: x.to(torch.complex64) @ table)
    assert fwd.diff(a, b, X).verdict == "rounding"
    c = By(lambda _, x: x.to(torch.complex64) @ table.conj())
    assert fwd.diff(a, c, X).verdict == "differs"


@pytest.mark.parametrize(
    "out",
    [
        lambda y: y.to_sparse(),
        lambda y: y.detach().numpy(),
        lambda y: float(y.sum()),
        lambda y: torch.nested.nested_tensor([y[0], y[1, :3]]),
    ],
)
def test_outputs_that_are_no_plain_tensors(out: Any) -> None:
    model = By(lambda self, x: out(self.one(x)))
    assert fwd.diff(model, model, X, grad="off").verdict == "same"
    assert guilty(model, with_other_weight(model, "one")) == "one"


def test_scratch_that_nobody_reads_is_not_compared() -> None:
    model = nn.LSTM(8, 16, batch_first=True)
    for _ in range(5):
        found = fwd.diff(model, copy.deepcopy(model), torch.randn(3, 6, 8), grad="on")
        assert (found.verdict, found.first, found.layers) == ("same", -1, ())


def test_half_precision_is_measured_like_any_other() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8)).bfloat16()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[2].weight[0] += 0.5
    x = X.bfloat16()
    found = fwd.diff(model, other, x, grad="off")
    assert found.outputs[0].tolerance < 0.04
    assert found.guilty is not None
    assert found.guilty.path == "2"


# -- who is to blame -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (lambda h: h.view(2, 2, 8).transpose(0, 1).reshape(4, 8), lambda h: h),
        (lambda h: h[:-1], lambda h: h[1:]),
        (lambda h: h[:, None].expand(4, 2, 8)[:, 0], lambda h: h.flip(0)),
        (lambda h: h.chunk(2)[0], lambda h: h.chunk(2)[1]),
        (lambda h: h.view(2, 16).t().reshape(4, 8), lambda h: h.view(4, 8)),
    ],
)
def test_another_view_is_the_fault_of_the_code_that_views(a: Any, b: Any) -> None:
    one = By(lambda self, x: self.two(a(self.one(x))))
    other = By(lambda self, x: self.two(b(self.one(x))))
    assert guilty(one, other) == ""


def test_arithmetic_that_was_moved_heals_and_hides_nothing() -> None:
    a = By(lambda self, x: self.two(((self.one(x) @ x.T) * 0.3).softmax(-1) @ x))
    b = By(lambda self, x: self.two(((self.one(x) * 0.3) @ x.T).softmax(-1) @ x))
    assert fwd.diff(a, b, X, grad="off").verdict in ("same", "rounding")
    found = fwd.diff(a, with_other_weight(b, "two"), X, grad="off")
    assert found.guilty is not None
    assert (found.guilty.path, found.guilty.comes_out) == ("two", True)
    healed = [layer.path for layer in found.layers if layer.guilty and not layer.comes_out]
    assert healed == [""]


def test_a_folded_normalisation_hides_nothing() -> None:
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)
    ).eval()
    nn.init.uniform_(net[1].running_var, 0.5, 2.0)
    folded = copy.deepcopy(net)
    folded[0], folded[1] = fuse_conv_bn_eval(net[0], net[1]), nn.Identity()
    images = torch.randn(2, 3, 8, 8)
    assert fwd.diff(net, folded, images, grad="off").verdict == "rounding"
    with torch.no_grad():
        folded[4].bias[0] += 0.1
    assert guilty(net, folded, images) == "4"


class Unembedding(nn.Module):
    """A residual layer, a normalisation with weights, and scores."""

    def __init__(self, *, folded: bool = False) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(8, 8), nn.LayerNorm(8, elementwise_affine=not folded)
        self.out = nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x + self.up(x).relu()))


def unembeddings() -> tuple[Unembedding, Unembedding]:
    """One, and the same with the weights of its norm folded into the layer behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        a = Unembedding().eval()
        nn.init.normal_(a.norm.weight, 1.0, 0.3)
        nn.init.normal_(a.norm.bias)
    b = Unembedding(folded=True).eval()
    b.load_state_dict(a.state_dict(), strict=False)
    with torch.no_grad():
        b.out.bias += b.out.weight @ a.norm.bias
        b.out.weight *= a.norm.weight
    return a, b


def test_a_centred_unembedding_is_the_fault_of_what_was_centred() -> None:
    a, b = unembeddings()
    assert fwd.diff(a, b, X, grad="off").verdict == "rounding", "folding alone changes nothing"
    with torch.no_grad():
        b.out.weight -= b.out.weight.mean(0)
        b.out.bias -= b.out.bias.mean()
    found = fwd.diff(a, b, X, grad="off")
    assert found.guilty is not None
    assert (found.guilty.path, found.guilty.comes_out) == ("out", True)
    assert [layer.path for layer in found.layers if layer.guilty and not layer.comes_out] == [
        "norm"
    ], "what it leaves out, the next layer takes up"


@pytest.mark.parametrize("turned", [False, True])
def test_a_fault_before_a_folded_norm_is_not_hidden_by_it(turned: bool) -> None:
    a, b = unembeddings()
    with torch.no_grad():
        (a if turned else b).up.weight *= 1.02
    found = fwd.diff(a, b, X, grad="off")
    assert found.guilty is not None
    assert found.guilty.path == "up", "little by itself, and all that comes out"
    assert [layer.path for layer in found.layers if layer.comes_out] == ["up"]


class Adapted(nn.Module):
    """A linear layer with an adapter of low rank."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(8, 8), nn.Linear(8, 2), nn.Linear(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))

    def merged(self) -> nn.Linear:
        layer = nn.Linear(8, 8)
        with torch.no_grad():
            layer.weight.copy_(self.base.weight + self.up.weight @ self.down.weight)
            layer.bias.copy_(self(torch.zeros(1, 8))[0])
        return layer


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("wrong", ["0", "2", "3"])
def test_a_merged_adapter_hides_nothing(turned: bool, wrong: str) -> None:
    one = nn.Sequential(nn.Linear(8, 8), Adapted(), nn.LayerNorm(8), nn.Linear(8, 3))
    other = copy.deepcopy(one)
    other[1] = one[1].merged()
    a, b = (other, one) if turned else (one, other)
    assert fwd.diff(a, b, X, grad="off").verdict == "rounding"
    with torch.no_grad():
        b.get_submodule(wrong).weight.view(-1)[0] += 0.5
    assert guilty(a, b) == wrong


def test_a_block_that_became_an_identity_is_named_as_a_whole() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.fc(self.norm(x)).relu()

    net = nn.Sequential(Block(), Block(), Block())
    other = copy.deepcopy(net)
    other[1] = nn.Identity()
    assert guilty(net, other) == "1"
    assert guilty(other, net) == "1"


def test_calls_with_other_scratch_are_compared() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 8))
    found = fwd.diff(net, net, X, mode="train", b_mode="eval")
    assert "aten.native_batch_norm.default" in [step.operator for step in found.steps]
    assert found.guilty is not None
    assert found.guilty.path == "1"
    assert found.steps[found.first].module == "1"


# -- what is refused, and said -------------------------------------------------------------------


@pytest.mark.parametrize("renamed", [{"nope": "one"}, {"one": "nope"}])
def test_a_path_that_no_module_has_is_refused(renamed: dict[str, str]) -> None:
    model = By(lambda self, x: self.one(x))
    with pytest.raises(UsageError, match="no module 'nope' ran"):
        fwd.diff(model, model, X, renamed=renamed)


def test_records_without_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = By(lambda self, x: self.one(x))
    fwd.record(model, X, grad="off").save("bare.json")
    fwd.record(model, X, grad="off", values="all").save("full.fwd")
    bare, full = fwd.Record.load("bare.json"), fwd.Record.load("full.fwd")
    with pytest.raises(UsageError, match="records need their values"):
        fwd.diff(bare, bare)
    with pytest.raises(UsageError, match="records need their values"):
        fwd.diff(full, bare)
    done = CliRunner().invoke(main, ["diff", "full.fwd", "full.fwd"])
    assert done.exit_code == 0, done.output
    assert "came in from outside" not in done.output
