"""fwd.watch: the passes that the user's own code makes, recorded and otherwise left alone."""

from __future__ import annotations

import copy
import re
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.errors import UsageError


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def trained(model: nn.Module, steps: int = 3) -> list[float]:
    """A training loop as people write it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    losses: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(6, 4, generator=generator)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class Recursive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, depth: int = 2) -> torch.Tensor:
        x = self.fc(x)
        return self(x, depth - 1) if depth else x


class Raising(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.fc, self.error = nn.Linear(4, 4), error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        if (x == x).all():
            raise self.error
        return x


# -- what is recorded ----------------------------------------------------------------------------


def test_a_training_loop() -> None:
    model = mlp()
    with fwd.watch(model) as records:
        trained(model, 3)
    assert len(records) == 3
    assert {r.mode for r in records} == {"train"}
    assert {r.grad for r in records} == {"on"}
    began = [r.began_seconds for r in records]
    assert began == sorted(began, key=lambda second: second or 0.0)
    assert all(second is not None and second > 0 for second in began)
    callers = {(r.caller.function, r.caller.line) for r in records if r.caller}
    line = trained.__code__.co_firstlineno + 7
    assert callers == {("trained", line)}
    first = records[0]
    assert [layer.module for layer in first.layers] == ["0", "3"]
    assert any("running_mean" in said for said in first.changes)
    assert first.reaches["output"] == tuple(name for name, _ in model.named_parameters())
    assert "put back" not in str(first), "these passes are real"


def test_an_evaluation_loop_over_single_samples_shows_as_one() -> None:
    model = mlp().eval()
    with fwd.watch(model) as records, torch.no_grad():
        for row in torch.randn(25, 4):
            model(row[None])
        model(torch.randn(25, 4))
    assert len(records) == 26
    (_, singles), (_, whole) = records.by_caller()
    assert (len(singles), len(whole)) == (25, 1)
    assert {r.grad for r in records} == {"off"}
    printed = str(records)
    assert printed.startswith("26 passes\n")
    assert re.search(r"\b25 +input\[1 4\]", printed)
    assert re.search(r"\b1 +input\[25 4\]", printed)


def test_passes_of_other_shapes_and_ways() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum() if x.shape[0] > 2 else x * 2

    model = Branching()
    with fwd.watch(model) as records:
        for rows in (1, 2, 3, 1):
            model(torch.ones(rows, 2))
    one, two, three, again = records
    assert [list(r.values[r.inputs["x"]].shape) for r in records] == [
        [1, 2],
        [2, 2],
        [3, 2],
        [1, 2],
    ]
    assert one.path == two.path != three.path
    assert again.calls is one.calls


def test_equal_calls_in_another_setting_are_not_mistaken() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    x = torch.ones(1, 4)
    with fwd.watch(model) as records:
        model(x)
        model.eval()
        model(x)
        with torch.no_grad():
            model(x)
        with torch.inference_mode():
            model(x)
        model[0].requires_grad_(False)
        model(x)
    assert [r.mode for r in records] == ["train", *["eval"] * 4]
    assert [r.grad for r in records] == ["on", "on", "off", "inference", "on"]
    assert [bool(r.reaches.get("output")) for r in records] == [True, True, False, False, False]
    assert [p.trainable for p in records[-1].parameters] == [False, False]


def test_equal_calls_with_other_names_of_outputs() -> None:
    class Named(nn.Module):
        name = "first"

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {self.name: x + 1}

    model = Named()
    with fwd.watch(model) as records:
        model(torch.ones(2))
        model.name = "second"
        model(torch.ones(2))
        model(x=torch.ones(2))
    assert [list(r.outputs) for r in records] == [["first"], ["second"], ["second"]]
    assert [list(r.inputs) for r in records] == [["x"]] * 3


def test_a_long_loop_is_small_in_memory() -> None:
    model = nn.Linear(4, 2)
    x = torch.randn(1, 4)
    with fwd.watch(model) as records, torch.no_grad():
        for _ in range(5):
            model(x)
        tracemalloc.start()
        for _ in range(2000):
            model(x)
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert len(records) == 2005
    assert all(r.calls is records[0].calls for r in records)
    assert grown / 2000 < 1500, "bytes a pass"


def test_no_tensor_of_a_pass_is_kept() -> None:
    import weakref

    model = mlp().eval()
    x = torch.randn(3, 4)
    with fwd.watch(model) as records, torch.no_grad():
        y = model(x)
    gone = [weakref.ref(x), weakref.ref(y)]
    del x, y
    assert [ref() for ref in gone] == [None, None]
    assert len(records) == 1


def test_recursion_is_one_pass() -> None:
    model = Recursive()
    with fwd.watch(model) as records:
        model(torch.ones(1, 4), 2)
    (record,) = records
    assert sum(entry.path == "fc" for entry in record.modules) == 3
    assert len(record.layers) == 3


def test_a_part_of_a_model() -> None:
    model = mlp()
    with fwd.watch(model[3]) as records:
        model(torch.ones(2, 4))
    (record,) = records
    assert record.totals.macs == 2 * 8 * 2
    assert record.caller is not None
    assert "module.py" in record.caller.file or "container.py" in record.caller.file


def test_nested_watching_of_two_models() -> None:
    one, two = mlp().eval(), nn.Linear(2, 2)
    both = nn.Sequential(one, two)
    called = nn.Module.__call__
    with fwd.watch(both) as outer:
        both(torch.ones(1, 4))
        with fwd.watch(two) as inner:
            both(torch.ones(1, 4))
            two(torch.ones(1, 2))
        two(torch.ones(1, 2))
        both(torch.ones(1, 4))
    assert nn.Module.__call__ is called
    assert (len(outer), len(inner)) == (3, 2)
    assert {r.totals.macs for r in outer} == {4 * 8 + 8 * 2 + 2 * 2}
    assert {r.totals.macs for r in inner} == {4}
    first, within, last = outer
    assert within.calls == first.calls, "what the inner one does for itself is not seen"
    assert within.modules == first.modules
    assert last.calls is first.calls
    named = [str(r.caller).rpartition(":")[0] for r in (*outer, inner[1])]
    assert all(name.endswith("test_watching.py") for name in named)
    assert "container.py" in str(inner[0].caller)


def test_two_models_side_by_side() -> None:
    one, two = nn.Linear(4, 3), nn.Linear(3, 2)
    with fwd.watch(one) as first, fwd.watch(two) as second:
        for _ in range(2):
            two(one(torch.ones(1, 4)))
    assert [r.totals.macs for r in first] == [12, 12]
    assert [r.totals.macs for r in second] == [6, 6]


def test_the_inner_model_watched_first() -> None:
    inner = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    outer = nn.Sequential(inner, nn.Linear(3, 2))
    x = torch.ones(1, 4)
    with fwd.watch(outer) as plain:
        outer(x)
    with fwd.watch(inner) as inside, fwd.watch(outer) as outside:
        outer(x)
    assert [entry.path for entry in outside[0].modules] == ["", "0", "0.0", "0.1", "1"]
    assert outside[0].calls == plain[0].calls
    assert [entry.path for entry in inside[0].modules] == ["", "0", "1"]


def test_other_threads_are_left_alone() -> None:
    model = mlp().eval()
    came: list[torch.Tensor] = []
    with fwd.watch(model) as records:
        thread = threading.Thread(target=lambda: came.append(model(torch.ones(2, 4))))
        thread.start()
        thread.join()
        assert len(records) == 0
        model(torch.ones(2, 4))
    assert len(records) == 1
    torch.testing.assert_close(came[0], model(torch.ones(2, 4)))


def test_a_model_noun() -> None:
    model = fwd.Model(nn.Linear(4, 2), "features: f32[batch 4]")
    with fwd.watch(model) as records:
        model.module(torch.ones(3, 4))
    assert len(records) == 1
    assert records[0].totals.macs == 3 * 8


def test_recording_within_the_block() -> None:
    model = mlp().eval()
    x = torch.ones(2, 4)
    with fwd.watch(model) as records:
        model(x)
        own = fwd.record(model, x)
        model(x)
    assert own.validate("d").verdict == "valid"
    assert own.caller is None
    real = [r for r in records if r.caller and r.caller.file.endswith("test_watching.py")]
    assert len(real) == 2
    assert len(records) == 2, "what fwd.record runs is its own pass"


def test_hooks_run_as_before() -> None:
    model = mlp().eval()
    seen: list[str] = []
    model.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model.register_forward_hook(lambda module, args, output: seen.append("after"))
    model[0].register_forward_hook(lambda module, args, output: output + 1)
    plain = model(torch.ones(1, 4))
    with fwd.watch(model) as records:
        watched = model(torch.ones(1, 4))
    assert torch.equal(plain, watched)
    assert seen == ["after", "after"]
    assert "aten.mul.Tensor" in {call.operator for call in records[0].calls}


# -- the user's model ----------------------------------------------------------------------------


def test_training_is_bit_for_bit_what_it_is_unwatched() -> None:
    plain = mlp()
    watched = copy.deepcopy(plain)
    losses = trained(plain, 5)
    with fwd.watch(watched):
        assert trained(watched, 5) == losses
    for (name, one), (_, other) in zip(
        plain.state_dict().items(), watched.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_random_numbers_are_those_of_an_unwatched_run() -> None:
    model = nn.Dropout(0.5)
    torch.manual_seed(5)
    plain = [model(torch.ones(9)) for _ in range(3)]
    torch.manual_seed(5)
    with fwd.watch(model):
        watched = [model(torch.ones(9)) for _ in range(3)]
    assert all(map(torch.equal, plain, watched))


@pytest.mark.parametrize(
    "leave",
    [None, ValueError("user"), KeyboardInterrupt(), SystemExit(3)],
    ids=["normally", "ValueError", "KeyboardInterrupt", "SystemExit"],
)
def test_nothing_is_left_after_the_block(leave: Any) -> None:
    model = mlp()
    before = dict(vars(model))
    called, methods = nn.Module.__call__, (torch.Tensor.numpy, torch.Tensor.tolist)
    expected = pytest.raises(type(leave)) if leave is not None else nullcontext()
    with expected as caught, fwd.watch(model) as records:
        model(torch.ones(2, 4))
        if leave is not None:
            raise leave
    assert caught is None or caught.value is leave
    assert nn.Module.__call__ is called
    assert (torch.Tensor.numpy, torch.Tensor.tolist) == methods
    assert vars(model) == before
    assert all(not part._forward_hooks for part in model.modules())
    model(torch.ones(2, 4))
    assert len(records) == 1, "after the block nothing is recorded"


@pytest.mark.parametrize(
    "error", [ValueError("mine"), KeyboardInterrupt("stop"), SystemExit(4)], ids=repr
)
def test_an_error_in_a_pass_comes_out_unchanged(error: BaseException) -> None:
    model = Raising(error)
    called, methods = nn.Module.__call__, (torch.Tensor.numpy, torch.Tensor.tolist)
    with fwd.watch(model) as records:
        with pytest.raises(type(error)) as caught:
            model(torch.ones(1, 4))
        model.error = ValueError("second")
        with pytest.raises(ValueError, match="second"):
            model(torch.ones(1, 4))
        assert not torch.isnan(model.fc(torch.ones(1, 4))).any()
    assert caught.value is error
    assert error.__cause__ is None
    assert nn.Module.__call__ is called
    assert (torch.Tensor.numpy, torch.Tensor.tolist) == methods
    assert len(records) == 2
    assert [r.failed is not None for r in records] == [True, True]
    assert records[0].failed is not None
    assert type(error).__name__ in records[0].failed.error
    assert [call.short for call in records[0].calls][-2:] == ["eq", "all"] or records[0].calls
    assert "2 of which raised" in str(records)


def test_a_failed_pass_does_not_stand_for_later_ones() -> None:
    model = nn.Linear(4, 2)
    with fwd.watch(model) as records:
        model(torch.ones(1, 4))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            model(torch.ones(1, 3))
        model(torch.ones(1, 4))
    first, failed, last = records
    assert failed.failed is not None
    assert failed.failed.operator.startswith("aten.")
    assert "f32[1 3]" in failed.failed.operands
    assert first.failed is None
    assert last.failed is None
    assert last.calls is first.calls


def test_within_inference_mode_and_autocast() -> None:
    model = mlp().eval()
    with fwd.watch(model) as records, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        y = model(torch.ones(2, 4))
    assert y.dtype == torch.bfloat16
    (record,) = records
    assert record.grad == "inference"
    assert record.values[record.outputs["output"]].dtype == "bf16"


@pytest.mark.parametrize(
    "thing",
    [None, "model.py", lambda x: x, torch.ones(1), nn.Linear],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_no_module_is_refused(thing: Any) -> None:
    called: Callable[..., Any] = nn.Module.__call__
    with (
        pytest.raises(UsageError, match=r"watch takes a torch.nn.Module or a Model, not "),
        fwd.watch(thing),
    ):
        pass
    assert nn.Module.__call__ is called


def test_a_lazy_module_is_refused_when_it_is_called() -> None:
    model = nn.LazyLinear(3)
    called = nn.Module.__call__
    with pytest.raises(UsageError, match="is lazy"), fwd.watch(model):
        model(torch.ones(1, 4))
    assert nn.Module.__call__ is called


def test_records_are_full_records() -> None:
    model = mlp().eval()
    with fwd.watch(model) as records:
        model(torch.ones(2, 4))
    record = records[0]
    again = fwd.Record.from_json(record.to_json())
    assert again.caller == record.caller
    assert again.to_json() == record.to_json()
    assert list(records[:1]) == [record]
    assert repr(records) == "Watched(1 passes)"
    assert "<pre" in records._repr_html_()
