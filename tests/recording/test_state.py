"""What a pass changes of its module: seen, said, and put back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functions import Fn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from untouched import operators, untouched, valid

from forwardpass.probing import record


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_train_mode_batch_norm_writes_its_running_statistics(grad: Any) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    done = valid(model, torch.randn(4, 1, 6, 6), mode="train", grad=grad)
    assert done.mode == "train"
    changed = " ".join(done.changes)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert f"buffer 1.{name} was written" in changed
    (norm,) = [call for call in done.calls if "batch_norm" in call.short]
    written = {v.name for v in done.values if v.storage in norm.writes and v.name}
    assert written == {"1.running_mean", "1.running_var"}


def test_eval_mode_changes_nothing_and_says_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    for grad in ("on", "off", "inference"):
        done = valid(model, torch.randn(4, 1, 6, 6), mode="eval", grad=grad)
        assert done.mode == "eval"
        assert done.changes == ()  # the mode that was asked for is no doing of the pass


def test_two_batch_norms_in_a_row_see_the_statistics_in_order() -> None:
    norm = nn.BatchNorm1d(3)
    done = valid(Fn(lambda self, x: self.norm(self.norm(x)), norm=norm), torch.randn(5, 3),
                 mode="train", grad="off")  # fmt: skip
    first, second = [call for call in done.calls if "batch_norm" in call.short]
    kinds = {(e.source, e.target, e.kind) for e in done.edges}
    assert (first.index, second.index, "data") in kinds
    means = [s for s in second.inputs if done.values[s].storage in first.writes]
    assert all(done.values[s].version == 1 for s in means)


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
@pytest.mark.parametrize("where", ["functional", "module", "attention", "slopes"])
def test_dropout_in_train_mode_is_random_and_replayed(where: str, grad: Any) -> None:
    models = {
        "functional": Fn(lambda self, x: F.dropout(x, 0.3, self.training) + F.dropout(x, 0.9)),
        "module": nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4)),
        "attention": nn.TransformerEncoderLayer(4, 2, 8, dropout=0.4, batch_first=True),
        "slopes": nn.RReLU(),
    }
    done = valid(models[where], torch.randn(2, 6, 4), mode="train", grad=grad)
    assert "random" in [call.kind for call in done.calls]
    again = valid(models[where], torch.randn(2, 6, 4), mode="eval", grad=grad)
    assert where == "functional" or "random" not in [call.kind for call in again.calls]


def test_the_recorded_pass_draws_what_the_next_plain_pass_would_draw() -> None:
    model, x = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)).train(), torch.randn(3, 4)
    done = record(model, x, values="all")
    assert torch.equal(done.tensors[done.outputs["output"]], model(x))


def test_changed_attributes_are_told_and_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.count += 1
        self.log.append("pass")
        self.table["x"] = 1
        self.fresh = "new"
        del self.gone
        return x * self.count

    model = Fn(forward, count=0, log=[], table={}, gone=1)
    for _ in range(2):
        done = valid(model, torch.ones(2))
        text = "; ".join(done.changes)
        assert "attribute count was changed" in text
        assert "attribute log was changed" in text
        assert "attribute table was changed" in text
        assert "attribute fresh was added" in text
        assert "attribute gone was removed" in text
    assert (model.count, model.log, model.table, model.gone) == (0, [], {}, 1)
    assert not hasattr(model, "fresh")


def test_nested_containers_in_attributes_are_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.cache["keys"].append(x)
        return x * len(self.cache["keys"])

    model = Fn(forward, cache={"keys": []})
    done = valid(model, torch.ones(2))
    assert any("cache" in change for change in done.changes)
    assert model.cache == {"keys": []}


def test_a_parameter_that_a_pass_writes_is_told_and_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.clamp_(-0.1, 0.1)
        return self.layer(x)

    for grad in ("on", "off", "inference"):
        done = valid(Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4), grad=grad)
        assert done.changes == ("parameter layer.weight was written",)


def test_a_parameter_written_through_data_is_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.layer.weight.data.mul_(0.5)
        self.layer.bias.data[0] = 7.0
        return self.layer(x)

    done = valid(Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4))
    assert any("layer.weight" in change for change in done.changes)


def test_a_parameter_whose_data_is_replaced_is_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.layer.weight.data = self.layer.weight.data * 0.5
        return self.layer(x)

    model, x = Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4)
    with untouched(model, x):
        done = record(model, x)
        found = done.validate("d")
    assert done.changes == ("parameter layer.weight was given other data",)
    assert found.verdict == "invalid"  # no operator gave it that, so the record cannot know
    assert {fault.rung for fault in found.faults} == {"d"}


def test_a_parameter_that_is_replaced_is_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.layer.weight = nn.Parameter(self.layer.weight * 2)
        return self.layer(x)

    model, x = Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4)
    with untouched(model, x):
        done = record(model, x)
        found = done.validate("d")
    assert any("layer.weight was replaced" in change for change in done.changes)
    assert not found.faults


def test_modules_that_are_added_or_replaced_in_a_pass_are_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.late = nn.Identity()
        self.layer = nn.Tanh()
        return self.late(self.layer(x))

    model = Fn(forward, layer=nn.ReLU())
    with untouched(model):
        done = record(model, torch.ones(2))
        found = done.validate("d")
    assert isinstance(model.layer, nn.ReLU)
    assert not hasattr(model, "late")
    assert found.verdict == "valid"
    assert any("late" in change for change in done.changes)


def test_a_store_that_a_pass_replaces_is_told_and_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.norm._buffers = {**self.norm._buffers, "running_mean": torch.ones(3)}
        return self.norm(x)

    model = Fn(forward, norm=nn.BatchNorm1d(3).eval()).eval()
    store, x = model.norm._buffers, torch.randn(4, 3)
    with untouched(model, x):
        done = record(model, x)
    assert done.changes == ("buffer norm.running_mean was replaced",)
    assert model.norm._buffers is store


def test_hooks_that_a_pass_registers_are_taken_off() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.layer.register_forward_hook(lambda *_: None)
        return self.layer(x)

    model, x = Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4)
    with untouched(model, x):
        record(model, x).validate("d")
    assert not model.layer._forward_hooks


def test_requires_grad_that_a_pass_sets_is_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.layer.requires_grad_(False)
        return self.layer(x)

    model, x = Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4)
    with untouched(model, x):
        record(model, x).validate("d")


def test_a_backward_inside_of_a_pass_leaves_no_gradients() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            loss = self.layer(x).square().mean()
            loss.backward()
        return self.layer.weight.grad.sum() + x.sum()

    model, x = Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4)
    with untouched(model, x):
        found = record(model, x).validate("d")
    assert not found.faults


def test_a_mode_that_a_pass_changes_is_told_and_put_back() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.part.eval()
        return self.part(x)

    done = valid(Fn(forward, part=nn.Dropout(0.5)).train(), torch.ones(3))
    assert any("mode of part was set to eval" in change for change in done.changes)


def test_mixed_modes_stay_mixed() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    model.train()
    model[0].eval()
    done = valid(model, torch.randn(4, 3))
    assert done.mode == "mixed"
    assert [entry.training for entry in done.modules] == [True, False, True, True]


def test_hooks_of_the_user_run_and_are_recorded() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    model[0].register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
    model[0].register_forward_hook(lambda _, inputs, output: output.tanh())
    model.register_forward_hook(lambda _, inputs, output: output - 1)
    done = valid(model, torch.randn(2, 4), grad="off")
    assert [op for op in operators(done) if op not in ("t", "detach")] == [
        "mul", "addmm", "tanh", "relu", "sub",
    ]  # fmt: skip
    by = {call.short: done.module(call).path for call in done.calls}
    assert (by["mul"], by["tanh"], by["relu"], by["sub"]) == ("0", "0", "1", "")


def test_autocast_around_record_is_part_of_the_pass() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        done = valid(model, x, grad="off")
        expected = model(x)
    assert done.values[done.outputs["output"]].dtype == "bf16"
    assert expected.dtype == torch.bfloat16
    assert done.validate("e").verdict == "valid"  # outside of the region as well


def test_autocast_inside_of_forward_is_recorded() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layer(x)

    for grad in ("on", "off", "inference"):
        done = valid(Fn(forward, layer=nn.Linear(4, 3)), torch.randn(2, 4), grad=grad)
        assert done.values[done.outputs["output"]].dtype == "bf16"


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_weight_norm_is_recorded_with_its_two_parameters(grad: Any) -> None:
    done = valid(parametrizations.weight_norm(nn.Linear(4, 3)), torch.randn(2, 4), grad=grad)
    assert done.totals.macs == 2 * 4 * 3
    used = {name for call in done.calls for name in call.parameters}
    assert used == {
        "bias", "parametrizations.weight.original0", "parametrizations.weight.original1",
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_spectral_norm_writes_its_vectors_only_in_train_mode(mode: Any) -> None:
    torch.manual_seed(0)  # so large that the vectors it begins with have not converged
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(32, 32)))
    done = valid(model, torch.randn(2, 32), mode=mode)
    written = [change for change in done.changes if "buffer" in change]
    assert bool(written) == (mode == "train")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_old_weight_norm_by_hooks_is_recorded() -> None:
    model = torch.nn.utils.weight_norm(nn.Linear(4, 3))
    x = torch.randn(2, 4)
    with untouched(model, x):
        found = record(model, x).validate("d")
    assert not found.faults
