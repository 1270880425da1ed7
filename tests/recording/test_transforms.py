"""What torch.func does inside of a pass: maps, derivatives, ensembles."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import (
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vjp,
    vmap,
)
from torch.nn import functional as F
from untouched import valid

import forwardpass as fwd

X = torch.randn(5, 3)


class Net(nn.Module):
    """A small net inside of what torch.func makes of it."""

    def __init__(self, last: int = 2) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, last))

    def one(self, row: Tensor) -> Tensor:
        return self.net(row)

    def summed(self, row: Tensor) -> Tensor:
        return self.net(row).sum()


class Mapped(Net):
    def forward(self, x: Tensor) -> Tensor:
        return vmap(self.one)(x)


class MappedAlongOne(Net):
    def forward(self, x: Tensor) -> Tensor:
        return vmap(self.one, in_dims=1, out_dims=1)(x.T)


class Twice(Net):
    def forward(self, x: Tensor) -> Tensor:
        return vmap(vmap(self.one))(x[None])


class Dropped(Net):
    def forward(self, x: Tensor) -> Tensor:
        return vmap(self.dropped, randomness="different")(x)

    def dropped(self, row: Tensor) -> Tensor:
        return F.dropout(self.net(row), 0.5)


class Jacobian(Net):
    def forward(self, x: Tensor) -> Any:
        return self.net(x), vmap(jacrev(self.one))(x).flatten(1).norm(dim=1)


class ForwardJacobian(Net):
    def forward(self, x: Tensor) -> Tensor:
        return vmap(jacfwd(self.one))(x)


class Curvature(Net):
    def forward(self, x: Tensor) -> Tensor:
        return vmap(hessian(self.summed))(x)


class Direction(Net):
    def forward(self, x: Tensor) -> Tensor:
        return jvp(self.net, (x,), (torch.ones_like(x),))[1]


class Pulled(Net):
    def forward(self, x: Tensor) -> Tensor:
        back: Any = vjp(self.net, x)[1]
        return back(torch.ones(len(x), 2))[0]


class Energy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return grad(self.summed)(x)


class Functional(Net):
    def forward(self, x: Tensor) -> Tensor:
        state = {name: p * 2 for name, p in self.net.named_parameters()}
        return functional_call(self.net, state, (x,))


class Sensitive(nn.Module):
    """A Jacobian of a net with batch statistics, by its state."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return vmap(jacrev(self.one))(x)

    def one(self, row: Tensor) -> Tensor:
        state = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        return functional_call(self.net, state, (row[None],))[0]


class Ensemble(nn.Module):
    """Members stacked, and a twin of one on the meta device that runs with their state."""

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(3)
        )
        self.__dict__["base"] = copy.deepcopy(self.members[0]).to("meta")

    def forward(self, x: Tensor) -> Tensor:
        parameters, buffers = stack_module_state(list(self.members))
        return vmap(self.member, (0, 0, None))(parameters, buffers, x).mean(0)

    def member(self, parameters: Any, buffers: Any, x: Tensor) -> Tensor:
        base: Any = self.base
        return functional_call(base, (parameters, buffers), (x,))


class Loop(Ensemble):
    """The same, one by one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(0)


KINDS = [
    Mapped, MappedAlongOne, Twice, Dropped, Jacobian, ForwardJacobian, Curvature, Direction, Pulled,
    Energy, Functional, Sensitive, Ensemble,
]  # fmt: skip


@pytest.mark.parametrize("grad", ["on", "off"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pass_is_recorded_and_proved(kind: type[nn.Module], grad: Any) -> None:
    done = valid(kind().eval(), X, level="f", grad=grad)
    assert not done.unseen


@pytest.mark.parametrize("kind", KINDS)
def test_every_element_is_explained_or_refused_in_words(kind: type[nn.Module]) -> None:
    done = fwd.record(kind().eval(), X, grad="off")
    right = 0
    for call in done.calls:
        if not call.outputs or not done.values[call.outputs[0]].elements:
            continue
        value = done.values[call.outputs[0]]
        place = f"[{', '.join('0' * len(value.shape))}]" if value.shape else ""
        try:
            said = done.explain(f"#{call.index}{place}")
        except fwd.ForwardpassError:
            continue
        for part in said.parts:
            if part.value is not None:
                assert part.value == pytest.approx(part.recorded, rel=1e-4, abs=1e-5), call
                right += 1
    assert right


def test_modules_inside_of_vmap_are_recorded_on_all_that_is_mapped_over() -> None:
    done = fwd.record(Mapped().eval(), X, grad="off")
    (linear,) = done.of_module("net.0")
    assert [done.values[serial].shape for serial in linear.inputs] == [(5, 3)]
    assert [done.values[serial].shape for serial in linear.outputs] == [(5, 6)]
    assert done.totals.macs == 5 * (3 * 6 + 6 * 2)
    assert any("vmap" in note and "net.0" in note for note in done.notes)


def test_an_ensemble_is_the_same_as_its_members_one_by_one() -> None:
    one, other = Loop().eval(), Ensemble().eval()
    other.load_state_dict(one.state_dict())
    assert fwd.diff(one, other, X, grad="off").verdict in ("same", "rounding")
    with torch.no_grad():
        other.members[1][2].weight[0, 0] += 0.5  # type: ignore[index]
    assert fwd.diff(one, other, X, grad="off").verdict == "differs"


@pytest.mark.parametrize("kind", KINDS)
def test_rules_do_not_fail_and_claim_nothing_of_layers_that_are_used(kind: Any) -> None:
    findings = fwd.check(kind().eval(), X, mode="eval", grad="off")
    # A derivative does not depend on the last bias: that alone is computed with in vain.
    assert all("net.2.bias (" in finding.message for finding in findings.of("unused"))
    assert not [one for one in findings.skipped if "failed" in one.reason], findings.skipped
