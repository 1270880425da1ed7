"""A pass made again with something changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass.errors import PassError
from forwardpass.loading import load
from forwardpass.nouns.calls import Call
from forwardpass.probing import record
from forwardpass.probing.changes import SAME, Change
from forwardpass.probing.probes import Inapplicable, Probe
from forwardpass.probing.rows import ByRow
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk


class Net(nn.Module):
    """A layer, noise where it is drawn, and a running mean in train mode."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 7:
            raise ValueError("seven rows")
        h = self.norm(self.fc(x))
        return h + self.noise * torch.randn_like(h) if self.noise else h


def probe_of(module: nn.Module, inputs: Any = None, **how: Any) -> Probe:
    given = torch.randn(5, 4) if inputs is None else inputs
    forward = load(module)
    return Probe(record(forward, given, grad="off", **how), forward.model.signature)


def test_rows_are_taken_in_the_order_that_is_asked_for() -> None:
    probe = probe_of(Net().eval())
    (whole,) = probe.outputs().values()
    (some,) = probe.outputs(Change(rows=(3, 0, 0))).values()
    assert torch.allclose(some, whole[[3, 0, 0]])
    assert probe.rows == 5
    assert probe.passes == 2


def test_inputs_take_the_place_of_those_of_their_path() -> None:
    probe = probe_of(Net().eval())
    x = torch.randn(2, 4)
    (came,) = probe.outputs(Change(inputs=dict.fromkeys(probe.inputs, x))).values()
    assert torch.equal(came, probe.module(x))


def test_a_seed_gives_other_numbers_and_the_same_ones_again() -> None:
    probe = probe_of(Net(noise=1.0).eval())
    (first,) = probe.outputs().values()
    (again,) = probe.outputs().values()
    (other,), (twin,) = (probe.outputs(Change(seed=7)).values() for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(other, twin)
    assert not torch.equal(first, other)


def test_another_dtype_is_that_of_a_copy() -> None:
    module = Net().eval()
    probe = probe_of(module)
    wide = Change(dtype=torch.float64)
    (came,) = probe.outputs(wide).values()
    (some,) = probe.outputs(Change(rows=(1,), dtype=torch.float64)).values()
    assert came.dtype == some.dtype == torch.float64
    assert module.fc.weight.dtype == torch.float32
    assert probe.changed(wide).module is probe.changed(wide).module is not module


def test_modes_are_put_back_and_nothing_learned_stays() -> None:
    module = Net().eval()
    probe = probe_of(module)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    done = probe.recording(Change(mode="train", grad="on"))
    assert (done.mode, done.grad) == ("train", "on")
    assert not module.training
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())


def test_a_recording_is_kept_for_who_asks_next() -> None:
    probe = probe_of(Net().eval())
    assert probe.recording() is probe.whole
    assert probe.recording(Change(mode="train")) is probe.recording(Change(mode="train"))
    assert probe.passes == 2
    assert set(probe.whole.outputs.values()) <= probe.whole.tensors.keys()
    assert not probe.recording(values=False).tensors


def test_one_of_other_inputs_is_made_anew() -> None:
    probe = probe_of(Net().eval())
    anew = Change(inputs=probe.inputs)
    assert probe.recording(anew) is not probe.recording(anew)


def test_a_walk_goes_along_the_recorded_calls() -> None:
    class Names(Walk):
        seen: list[str] = []  # noqa: RUF012

        def at(self, call: Call, func: Any, schema: Schema, args: Any, kwargs: Any) -> Any:
            self.seen.append(call.short)
            return super().at(call, func, schema, args, kwargs)

    probe = probe_of(Net().eval())
    walk = Names(probe.record)
    probe.walk(walk)
    assert walk.seen == [call.short for call in probe.record.calls]
    assert walk.next is None
    assert not walk.parted


def test_a_walk_parts_where_the_pass_goes_another_way() -> None:
    probe = probe_of(Net().eval())
    walk = Walk(probe.record)
    probe.walk(walk, Change(mode="train"))
    assert walk.parted
    assert 0 < walk.steps < len(probe.record.calls)
    assert walk.next is None


def test_timings_take_turns() -> None:
    probe = probe_of(Net().eval())
    one, other = probe.timing(SAME, Change(rows=(0,)), rounds=3)
    assert len(one.samples) == len(other.samples) == 3
    assert min(one.samples) > 0
    assert probe.passes == 8  # one of each does not count


def test_what_several_need_is_made_once() -> None:
    probe = probe_of(Net().eval())
    assert probe.once(ByRow) is probe.once(ByRow)


@pytest.mark.parametrize("again", [Probe.outputs, Probe.recording])
def test_a_module_that_raises_raises_a_pass_error(again: Any) -> None:
    probe = probe_of(Net().eval())
    with pytest.raises(PassError, match="seven rows"):
        again(probe, Change(rows=(0,) * 7))


def test_of_nested_tensors_no_rows_are_taken() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)])
    with pytest.raises(Inapplicable, match="nested"):
        _ = probe_of(First(), nested).rows


def test_rows_are_found_by_one_row_more() -> None:
    rows = probe_of(Net().eval()).once(ByRow)
    assert rows.count == 5
    assert rows.resized[0] == 6
    assert [layout.axis for layout in rows.outputs.values()] == [0]
