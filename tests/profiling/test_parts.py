"""Parts: the seconds of a pass by call and by layer add up, and nothing else is claimed."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forwardpass.errors import PassError
from forwardpass.loading import load
from forwardpass.nouns.machines import Limits
from forwardpass.nouns.profiles import Parts
from forwardpass.nouns.progress import Steps
from forwardpass.probing import record
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.dissecting import Dissecting, Dissection
from forwardpass.profiling.parts import ROUNDS, parts

LIMITS = Limits({"f32": 1e11, "bf16": 2e11}, 1e10, 2e-6)


def taken_apart(
    forward: Any, inputs: Any, rows: int = 4, grad: Any = "inference", limits: Limits = LIMITS
) -> Parts:
    contender = Contender.of(load(forward), inputs, 256)
    found, failed = parts(contender, limits, {rows: ROUNDS}, grad, 0.2, Steps())
    for error in failed:
        raise error
    assert (found[0].rows, found[0].noise >= 0) == (rows, True)
    return found[0]


class Computes(nn.Module):
    """What a function of one tensor does."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def chain(width: int, length: int) -> nn.Module:
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(length)]).eval()


def test_calls_go_in_the_order_of_the_record() -> None:
    model, rows = (
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval(),
        torch.randn(4, 8),
    )
    found = taken_apart(model, rows)
    ran = [call for call in record(model, rows, grad="inference").calls if call.is_operator]
    assert [(call.call, call.operator) for call in found.calls] == [
        (c.index, c.operator) for c in ran
    ]
    assert [call.layer for call in found.calls] == ["0", "1", "2"]
    assert [call.macs for call in found.calls] == [4 * 8 * 16, 0, 4 * 16 * 2]
    assert sorted(layer.path for layer in found.layers) == ["0", "1", "2"]
    seconds = [layer.seconds.median for layer in found.layers]
    assert seconds == sorted(seconds, reverse=True)


def test_parts_are_not_more_than_the_whole_beyond_noise() -> None:
    found = taken_apart(chain(512, 6), torch.randn(64, 512), rows=64)
    assert found.why == ""
    assert found.unattributed is not None
    summed = sum(call.seconds.median for call in found.calls)
    slack = found.noise + 0.1 + (found.whole.high - found.whole.low) / found.whole.median
    assert summed <= found.whole.median * (1 + slack)
    assert found.unattributed.high >= 0 or -found.unattributed.median <= slack * found.whole.median


def test_layers_are_their_calls() -> None:
    model = nn.Sequential(chain(32, 2), nn.ReLU(), chain(32, 1)).eval()
    found = taken_apart(model, torch.randn(4, 32))
    for layer in found.layers:
        mine = [call for call in found.calls if call.layer == layer.path]
        assert layer.calls == len(mine)
        assert layer.macs == sum(call.macs or 0 for call in mine)
        assert layer.bytes == sum(call.bytes for call in mine)
        assert layer.limit_seconds == pytest.approx(sum(call.limit_seconds for call in mine))
        assert layer.seconds.low <= layer.seconds.median <= layer.seconds.high
    assert {layer.kind for layer in found.layers} == {"Linear", "ReLU"}
    assert sum(share.median for share in found.shares.values()) == pytest.approx(1, abs=0.2)


def test_a_module_that_is_called_twice_is_one_layer() -> None:
    shared = nn.Linear(8, 8)
    found = taken_apart(nn.Sequential(shared, shared).eval(), torch.randn(2, 8), rows=2)
    assert [(layer.path, layer.calls) for layer in found.layers] == [("0", 2)]


def test_the_module_and_the_process_are_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.BatchNorm1d(8))
    first: Any = model[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooked: list[str] = []

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        hooked.append(type(module).__name__)

    first.register_forward_hook(hook)
    hooks, threads = dict(first._forward_hooks), torch.get_num_threads()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    taken_apart(model, torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert model[1].training
    assert dict(first._forward_hooks) == hooks
    assert hooked
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert gc.isenabled()


def test_a_pass_that_goes_another_way_is_not_taken_apart() -> None:
    passes: list[Tensor] = []

    def turning(x: Tensor) -> Tensor:
        passes.append(x)
        return torch.tanh(x) if len(passes) > 6 else torch.relu(x)

    found = taken_apart(Computes(turning), torch.randn(4, 8))
    assert "went another way: aten.tanh.default ran in place of" in found.why
    assert "relu" in found.why
    assert (found.layers, found.calls, found.shares) == ((), (), {})


def test_torchscript_is_taken_apart() -> None:
    script = torch.jit.trace(chain(16, 2), torch.randn(2, 16))
    found = taken_apart(script, torch.randn(4, 16))
    assert found.why == ""
    assert [call.macs for call in found.calls if call.macs] == [4 * 16 * 16] * 2


def test_vmap_is_taken_apart() -> None:
    layer = nn.Linear(8, 8)
    found = taken_apart(Computes(lambda x: torch.vmap(layer)(x)), torch.randn(4, 8))
    assert found.why == ""
    assert found.calls


@pytest.mark.parametrize("last", ["a call reads it", "it comes out"])
def test_work_in_another_thread_is_not_called_overhead(last: str) -> None:
    class Threaded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            came: list[Tensor] = []
            thread = threading.Thread(target=lambda: came.append(self.tower(x)))
            thread.start()
            thread.join()
            return came[0] + 1 if last == "a call reads it" else came[0]

    found = taken_apart(Threaded().eval(), torch.randn(4, 64))
    assert "no call was seen to make, and each pass makes it anew" in found.why


def test_a_tensor_that_stood_there_before_is_no_hidden_work() -> None:
    scale = torch.ones(8)
    found = taken_apart(Computes(lambda x: x * scale), torch.randn(4, 8))
    assert found.why == ""
    assert [call.operator for call in found.calls] == ["aten.mul.Tensor"]
    returned = taken_apart(Computes(lambda x: (x + 1, scale)), torch.randn(4, 8))
    assert returned.why == ""


def test_with_grad_on_it_is_the_pass_of_a_training_step() -> None:
    found = taken_apart(chain(16, 2), torch.randn(4, 16), grad="on")
    assert found.why == ""
    operators = {call.operator for call in found.calls}
    assert "aten.addmm.default" in operators, "autograd opens linear"


def test_a_batch_that_raises_says_so() -> None:
    def least(x: Tensor) -> Tensor:
        if len(x) > 2:
            raise ValueError("at most two rows")
        return x + 1

    said = "a batch of 3 rows was not taken apart: the pass raised ValueError: at most two rows"
    with pytest.raises(PassError, match=said):
        taken_apart(Computes(least), torch.randn(2, 8), rows=3)
    assert taken_apart(Computes(least), torch.randn(2, 8), rows=2).why == ""


def test_a_pass_without_operators_is_all_unattributed() -> None:
    found = taken_apart(Computes(lambda x: x), torch.randn(4, 8))
    assert (found.why, found.calls, found.layers) == ("", (), ())
    assert found.unattributed is not None
    assert found.shares["overhead"].median == pytest.approx(1)


def test_what_a_pass_writes_of_its_inputs_is_not_there_the_next_time() -> None:
    seen: set[float] = set()

    def doubling(x: Tensor) -> Tensor:
        seen.add(float(x.sum()))
        return x.mul_(2)

    assert taken_apart(Computes(doubling), torch.ones(4, 8)).why == ""
    assert seen == {32.0}


def refusing(make: Callable[[], object]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        make()
        return x

    return forward


def test_a_pass_that_ends_the_process_is_an_error_of_that_batch() -> None:
    with pytest.raises(PassError, match="SystemExit"):
        taken_apart(Computes(refusing(lambda: exit(3))), torch.randn(4, 8))


def test_batches_take_turns_so_that_each_is_timed_at_many_moments() -> None:
    seen: list[int] = []

    def told(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.relu()

    contender = Contender.of(load(Computes(told)), torch.randn(4, 8), 256)
    both = {1: ROUNDS, 4: ROUNDS}
    found, failed = parts(contender, LIMITS, both, "inference", 0.1, Steps())
    assert [one.rows for one in found] == [1, 4]
    assert not failed
    turns = [rows for rows, _ in groupby(seen)]
    assert turns.count(1) >= 3
    assert turns.count(4) >= 3
    seen.clear()
    parts(contender, LIMITS, {1: 1, 4: ROUNDS}, "inference", 1e-9, Steps())
    passes = {rows: seen.count(rows) for rows in (1, 4)}
    assert passes[1] < passes[4], "one round, and three of a batch that is worth them"


def test_a_batch_that_raises_later_does_not_take_the_others_with_it() -> None:
    def picky(x: Tensor) -> Tensor:
        if len(x) > 2:
            raise ValueError("two at most")
        return x.relu()

    contender = Contender.of(load(Computes(picky)), torch.randn(4, 8), 256)
    found, failed = parts(contender, LIMITS, {1: ROUNDS, 4: ROUNDS}, "inference", 0.01, Steps())
    assert [one.rows for one in found] == [1]
    (error,) = failed
    assert "a batch of 4 rows was not taken apart" in str(error)
    assert "ValueError: two at most" in str(error)


def test_what_torch_compile_replaces_is_timed_end_to_end() -> None:
    compiled: Any = torch.compile(nn.ReLU(), backend="eager")
    found = taken_apart(nn.Sequential(nn.Linear(8, 8), compiled).eval(), torch.randn(4, 8))
    assert found.why == "compiled by torch.compile, and timed end to end only: 1"
    assert (found.calls, found.layers) == ((), ())
    assert found.whole.median > 0


def timed_as(monkeypatch: pytest.MonkeyPatch, call: float, whole: float) -> Parts:
    """The parts of two calls, as if each took so long and a pass so long, within 1 %."""

    rounds = [1.0, 0.99, 1.01, 1.0, 0.995]
    dissection = Dissection(
        [(whole * r, whole * r * 1.01) for r in rounds], [2.0 for _ in rounds],
        [[call * r, call * r] for r in rounds], "",
    )  # fmt: skip
    monkeypatch.setattr(Dissecting, "done", dissection)
    return taken_apart(chain(8, 2), torch.randn(4, 8))


def test_calls_that_add_up_to_more_than_the_pass_are_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = timed_as(monkeypatch, call=0.6, whole=1.0)
    assert "the calls add up to 19% more than the pass that they are parts of" in found.why
    assert (found.calls, found.layers, found.shares) == ((), (), {})


def test_what_the_calls_leave_is_unattributed_and_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timed_as(monkeypatch, call=0.3, whole=1.0)
    assert found.why == ""
    assert found.unattributed is not None
    assert found.unattributed.median == pytest.approx(0.4, abs=0.02)
    assert found.shares["overhead"].high >= 0.4
    within = timed_as(monkeypatch, call=0.503, whole=1.0)
    assert within.why == "", "no more than the whole differs from itself"


def test_what_is_unattributed_is_no_more_than_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass of each two was held up: as far as medians tell, the whole takes one second."""

    held = [(1.0, 90.0), (80.0, 1.0), (1.0, 1.0), (1.0, 70.0), (1.0, 1.0)]
    dissection = Dissection(held, [1.5] * 5, [[0.3, 0.3]] * 5, "")
    monkeypatch.setattr(Dissecting, "done", dissection)
    found = taken_apart(chain(8, 2), torch.randn(4, 8))
    assert found.unattributed is not None
    assert found.whole.median == 1.0
    assert found.unattributed.median == pytest.approx(0.4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_calls_overlap_with_python_and_are_not_more_than_the_whole() -> None:
    found = taken_apart(chain(1024, 20).to("cuda"), torch.randn(256, 1024), rows=256)
    assert found.why == ""
    assert len(found.calls) == 20
    summed = sum(call.seconds.median for call in found.calls)
    assert 0 < summed <= found.whole.median * (1.1 + found.noise)
