"""Validation holds every fact of a record against the pass, not only what calls compute."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass.probing import record
from forwardpass.recording import Recording


class Net(nn.Module):
    """Views, an in-place operator on a view, dropout, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = F.relu(self.first(x))
        z = F.dropout(y * 3.0 + self.second(y), 0.5).view(2, 3, -1).transpose(1, 2)
        z[:, 0].mul_(2.0)
        return {"one": z.flatten(1), "two": z.sum(-1)}


def taken() -> Recording:
    return record(Net(), torch.randn(2, 6), grad="off", mode="train")


def with_value(done: Recording, serial: int, **fields: Any) -> Recording:
    values = list(done.values)
    values[serial] = msgspec.structs.replace(values[serial], **fields)
    return msgspec.structs.replace(done, values=tuple(values))


def with_call(done: Recording, index: int, **fields: Any) -> Recording:
    calls = list(done.calls)
    calls[index] = msgspec.structs.replace(calls[index], **fields)
    return msgspec.structs.replace(done, calls=tuple(calls))


def test_the_healthy_twin_is_valid() -> None:
    assert taken().validate("e").verdict == "valid"


@pytest.mark.parametrize(
    ("fact", "wrong"),
    [
        ("shape", lambda v: (*v.shape, 1)),
        ("dtype", lambda v: "f64"),
        ("strides", lambda v: tuple(s + 1 for s in v.strides)),
        ("offset", lambda v: v.offset + 1),
        ("storage", lambda v: v.storage + 1),
        ("version", lambda v: v.version + 1),
        ("producer", lambda v: -1 if v.producer >= 0 else 0),
    ],
)
def test_a_wrong_fact_of_any_value_is_found(fact: str, wrong: Any) -> None:
    done = taken()
    read = {serial for call in done.calls for serial in (*call.inputs, *call.outputs)}
    for serial in sorted(read):
        value = done.values[serial]
        if fact == "strides" and not value.strides:
            continue
        planted = with_value(done, serial, **{fact: wrong(value)})
        assert planted.validate("d").verdict == "invalid", f"{fact} of value {serial}"


def test_outputs_that_point_elsewhere_are_found() -> None:
    done = taken()
    one, two = done.outputs["one"], done.outputs["two"]
    for outputs in ({"one": two, "two": one}, {"one": 0, "two": two}, {"one": one}):
        other = msgspec.structs.replace(done, outputs=outputs)
        assert other.validate("d").verdict == "invalid", outputs


def test_dropped_outputs_and_writes_are_found_at_every_call() -> None:
    done = taken()
    for call in done.calls:
        if call.outputs:
            planted = with_call(done, call.index, outputs=())
            assert planted.validate("d").verdict == "invalid", f"outputs of {call.operator}"
        if call.writes:
            planted = with_call(done, call.index, writes=())
            assert planted.validate("d").verdict == "invalid", f"writes of {call.operator}"


@pytest.mark.parametrize("kind", ["compute", "view", "in-place", "random", "host"])
def test_a_wrong_kind_is_found(kind: Any) -> None:
    done = taken()
    for call in done.calls:
        if call.kind != kind:
            planted = with_call(done, call.index, kind=kind)
            assert planted.validate("d").verdict == "invalid", f"{call.operator} as {kind}"


def test_inputs_and_arguments_that_disagree_are_found_at_every_call() -> None:
    done = taken()
    for call in done.calls:
        for place, serial in enumerate(call.inputs):
            inputs = list(call.inputs)
            inputs[place] = 0 if serial else 1
            planted = with_call(done, call.index, inputs=tuple(inputs))
            assert planted.validate("d").verdict == "invalid", f"input {place} of {call.operator}"
