"""Two passes, compared: what differs, by how much, who made it, and what could not be said."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.errors import PassError, UsageError

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def mlp() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 3)
        ).eval()  # fmt: skip


def state_of(module: nn.Module) -> dict[str, Any]:
    kept = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    return {"state": kept, "mode": [m.training for m in module.modules()]}


# -- verdicts ------------------------------------------------------------------------------------


def test_a_pass_equals_itself_bit_for_bit() -> None:
    found = fwd.diff(mlp(), mlp(), X)
    assert (found.verdict, found.first, found.guilty, found.unpaired) == ("same", -1, None, ())
    assert found.outputs[0].error.max_absolute == 0
    assert all(step.error.relative == 0 for step in found.steps)


def test_another_order_of_summation_is_rounding() -> None:
    class Reordered(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            half = self.in_features // 2
            left = x[:, :half] @ self.weight[:, :half].t()
            return left + x[:, half:] @ self.weight[:, half:].t() + self.bias

    one = nn.Sequential(nn.Linear(512, 64), nn.Linear(64, 3)).eval()
    other = copy.deepcopy(one)
    layer = Reordered(512, 64)
    layer.load_state_dict(one[0].state_dict())
    other[0] = layer
    found = fwd.diff(one, other, torch.randn(4, 512))
    assert found.verdict == "rounding"
    assert 0 < found.outputs[0].error.relative < found.outputs[0].tolerance < 1e-4
    assert found.guilty is None


def test_bfloat16_differs_and_every_layer_has_its_part() -> None:
    found = fwd.diff(mlp(), fwd.load(mlp()) | "cast(bf16)", X)
    assert found.verdict == "differs"
    guilty = {layer.path for layer in found.layers if layer.guilty}
    assert guilty == {"", "0", "1", "3"}, "the casts are the module's own; ReLU makes no error"
    for layer in found.layers:
        assert 1e-4 < layer.made < 2e-2, "each works on a's numbers: nothing adds up"
    assert any("cast(bf16)" in note for note in found.notes)


def test_created_and_inherited_are_told_apart() -> None:
    other = mlp()
    with torch.no_grad():
        other[0].weight[0] += 0.1
    found = fwd.diff(mlp(), other, X)
    assert [layer.path for layer in found.layers] == ["0"], "the others only inherit"
    by = {step.module: step for step in found.steps}
    assert by["3"].error.relative > 1e-3
    assert by["3"].made == 0
    assert found.steps[found.first].module == "0"


def test_only_the_outputs_of_one_side_are_listed() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.fc(x), "hidden": x}

    class One(Two):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.fc(x)[:, :2]}

    found = fwd.diff(Two(), One(), X)
    assert found.verdict == "differs"
    assert "hidden is in a only" in found.only_outputs
    assert "logits is [6, 3] in a, [6, 2] in b" in found.only_outputs


def test_nan_on_one_side_is_a_difference() -> None:
    other = mlp()
    with torch.no_grad():
        other[3].bias[0] = torch.nan
    found = fwd.diff(mlp(), other, X)
    assert found.verdict == "differs"
    assert found.outputs[0].error.unlike == 6
    assert found.guilty is not None
    assert found.guilty.path == "3"
    assert fwd.diff(other, other, X).verdict == "same", "NaN in the same places is no difference"


def test_flips_are_counted_where_there_are_scores() -> None:
    other = mlp()
    with torch.no_grad():
        other[3].bias[1] += 100
    (output,) = fwd.diff(mlp(), other, X).outputs
    assert output.rows == 6
    assert output.flips is not None
    assert output.flips > 0


# -- sides ---------------------------------------------------------------------------------------


def test_train_against_eval() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)).train()
    before = state_of(model)
    found = fwd.diff(model, model, X, mode="eval", b_mode="train")
    assert found.verdict == "differs"
    assert {layer.path for layer in found.layers if layer.guilty} == {"1", "2"}
    after = state_of(model)
    assert after["mode"] == before["mode"]
    for name, tensor in before["state"].items():
        assert torch.equal(after["state"][name], tensor)


def test_another_stride_is_the_convolutions_fault() -> None:
    def net(stride: int) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=stride), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )  # fmt: skip

    found = fwd.diff(net(1), net(2), torch.randn(2, 3, 16, 16))
    assert found.guilty is not None
    assert found.guilty.path == "2", "the shapes differ from there on"


def test_layers_that_change_places_without_effect_are_nobodys_fault() -> None:
    one = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Identity())
    other = nn.Sequential(one[0], nn.Identity(), nn.ReLU())
    found = fwd.diff(one, other, X)
    assert (found.verdict, found.guilty) == ("same", None)


def test_an_overflow_in_half_precision_is_made_where_it_happens() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight *= 1e6
    found = fwd.diff(model, fwd.load(model) | "cast(f16)", X)
    assert found.guilty is not None
    assert found.guilty.path == "0"
    assert found.guilty.made == sys.float_info.max
    assert found.outputs[0].error.unlike > 0
    assert fwd.Diff.from_json(found.to_json()) == found


def test_input_against_input_blames_no_layer() -> None:
    found = fwd.diff(mlp(), mlp(), X, b_inputs=X + 0.1)
    assert found.verdict == "differs"
    assert found.guilty is None
    assert any(note.startswith("input ") and "differs" in note for note in found.notes)


def test_a_batch_in_pieces_shows_what_depends_on_the_batch() -> None:
    leaky = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    found = fwd.diff(leaky, leaky, X, b_batch=2)
    assert found.verdict == "differs"
    assert found.guilty is not None
    assert found.guilty.path == "1"
    assert found.outputs[0].shape == (6, 3), "all rows are compared"
    assert fwd.diff(leaky, leaky, X, b_batch=1, mode="eval").verdict in ("same", "rounding")


def test_pieces_along_a_batch_axis_that_is_not_the_first() -> None:
    class SequenceFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    model = fwd.Model(SequenceFirst().eval(), inputs="x: f32[5 batch 16]")
    found = fwd.diff(model, model, {"x": torch.randn(5, 4, 16)}, b_batch=1, expanded=True)
    assert found.verdict in ("same", "rounding")
    assert not [layer for layer in found.layers if layer.guilty]


def test_pieces_with_as_many_rows_as_another_axis_is_long() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.T.contiguous()

    found = fwd.diff(Last(), Last(), X[:, :3], b_batch=3)
    assert found.verdict == "same"
    assert found.outputs[0].shape == (3, 6), "put together along the rows, not along the three"


def test_a_port_with_other_names() -> None:
    class Port(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(8, 16)
            self.norm = nn.LayerNorm(16)
            self.leave = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.leave(self.norm(self.enter(x)).clamp(min=0))

    original, port = mlp(), Port().eval()
    for mine, its in ((0, port.enter), (1, port.norm), (3, port.leave)):
        its.load_state_dict(original[mine].state_dict())
    assert fwd.diff(original, port, X).verdict == "same"
    with torch.no_grad():
        port.leave.weight[0] *= 1.5
    found = fwd.diff(original, port, X)
    assert found.guilty is not None
    assert (found.guilty.path, found.guilty.other) == ("3", "leave")
    mapped = fwd.diff(original, port, X, renamed={"0": "enter", "1": "norm", "3": "leave"})
    assert mapped.guilty is not None
    assert (mapped.guilty.path, mapped.guilty.other) == ("3", "leave")


def test_a_compiled_side_is_compared_at_its_outputs() -> None:
    model = mlp()
    compiled: Any = torch.compile(copy.deepcopy(model), backend="aot_eager")
    found = fwd.diff(model, compiled, X)
    assert found.verdict in ("same", "rounding")
    assert any("compiled" in note for note in found.notes)


def test_records_from_files_are_compared_where_values_were_kept(tmp_path: Path) -> None:
    one, other = mlp(), mlp()
    with torch.no_grad():
        other[3].weight += 0.1
    for name, model in (("a", one), ("b", other)):
        fwd.record(model, X, values="all").save(tmp_path / f"{name}.record")
    a, b = (fwd.Record.load(tmp_path / f"{name}.record") for name in "ab")
    found = fwd.diff(a, b)
    assert found.verdict == "differs"
    assert found.steps[found.first].module == "3"
    assert found.layers == ()
    assert any("nobody is blamed" in note for note in found.notes)


# -- control flow --------------------------------------------------------------------------------


class Loop(nn.Module):
    """Goes round until the numbers are small."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        while float(x.norm()) > 1:
            x = self.fc(x) * 0.5
        return x.relu() if float(x.sum()) > 0 else x.tanh()


def test_where_control_flow_parted() -> None:
    loop = Loop().eval()
    found = fwd.diff(loop, loop, X, b_inputs=1000 * X)
    assert found.fork is not None
    counts = {site.line: (one, other) for site, one, other in found.fork.counts}
    assert any(one < other for one, other in counts.values())
    assert found.unpaired
    assert fwd.diff(loop, loop, X).fork is None


def test_casts_are_no_other_way() -> None:
    assert fwd.diff(mlp(), fwd.load(mlp()) | "cast(bf16)", X).fork is None


# -- what cannot be said -------------------------------------------------------------------------


def test_a_model_that_cannot_run_in_float64() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            if x.dtype != torch.float32:
                raise TypeError("float32 only")
            return self.fc(x)

    found = fwd.diff(Picky(), Picky(), X)
    assert "float32 only" in found.floor


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"inputs": None}, "needs inputs"),
        ({"inputs": X, "b_batch": 7}, "b_batch=7: the batch has 6 rows"),
        ({"inputs": X, "b_batch": 0}, "b_batch=0"),
        ({"inputs": [1]}, "a tensor, a tuple"),
    ],
)
def test_what_is_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fwd.diff(mlp(), mlp(), **how)


def test_a_side_that_raises() -> None:
    with pytest.raises(PassError, match="addmm"):
        fwd.diff(mlp(), nn.Linear(9, 3), X)


def test_it_goes_to_json_and_back() -> None:
    found = fwd.diff(mlp(), fwd.load(mlp()) | "cast(bf16)", X)
    assert fwd.Diff.from_json(found.to_json()) == found
    assert "cast(bf16)" in found._repr_html_()
