"""`.pt2`: signatures from programs, and crafted files that must never run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim, export, save

from forwardpass.errors import LoadError
from forwardpass.loading import load

BATCH = Dim("batch")


def exported(folder: Path, module: nn.Module, *args: Any, shapes: Any, name: str = "p.pt2") -> Path:
    save(export(module.eval(), args, dynamic_shapes=shapes), folder / name)
    return folder / name


def test_inputs_and_results_are_those_of_the_program(program: Path) -> None:
    model = load(program).model
    assert str(model.signature) == "x: f32[batch axis1=3..64 4]\nmask: f32[batch axis1=3..64]"
    assert (model.trust, model.origin, model.encode) == ("data", str(program), None)
    torch.manual_seed(0)
    x, mask = torch.randn(7, 5, 4), torch.ones(7, 5)
    expected = torch.export.load(program).module()(x, mask=mask)
    for arguments in (((), {"x": x, "mask": mask}), ((x,), {"mask": mask}), ((x, mask), {})):
        with torch.inference_mode():
            found = model.module(*arguments[0], **arguments[1])
        torch.testing.assert_close(found, expected)


def test_the_module_is_in_eval_mode_and_can_be_asked_to(program: Path) -> None:
    module = load(program).model.module
    assert not any(part.training for part in module.modules())
    assert module.eval() is module


def test_one_row_and_many(program: Path) -> None:
    module = load(program).model.module
    for batch in (1, 2, 300):
        assert module(x=torch.randn(batch, 3, 4), mask=torch.ones(batch, 3))["y"].shape == (
            batch,
            2,
        )


class Nested(nn.Module):
    def forward(self, batch: dict[str, torch.Tensor], points: list[torch.Tensor]) -> torch.Tensor:
        return batch["a"] + batch["b"].sum(1, keepdim=True) + points[0] * points[1]


def test_nested_inputs_have_paths(tmp_path: Path) -> None:
    shapes = {
        "batch": {"a": {0: BATCH}, "b": {0: BATCH, 1: Dim.DYNAMIC}},
        "points": [{0: BATCH}] * 2,
    }
    a, b = torch.ones(3, 1), torch.ones(3, 5)
    path = exported(tmp_path, Nested(), {"a": a, "b": b}, [torch.ones(3, 2)] * 2, shapes=shapes)
    model = load(path).model
    assert str(model.signature) == (
        "batch.a: f32[batch 1]\nbatch.b: f32[batch axis1]\n"
        "points.0: f32[batch 2]\npoints.1: f32[batch 2]"
    )
    result = model.module(batch={"a": a[:2], "b": b[:2]}, points=[torch.ones(2, 2)] * 2)
    torch.testing.assert_close(result, torch.full((2, 2), 7.0))


class Halves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], -1, 2).sum(1)


class Flagged(nn.Module):
    def forward(self, x: torch.Tensor, double: bool = True, other: Any = None) -> torch.Tensor:
        return x.long() * (2 if double else 1)


class Recurrent(nn.Module):
    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return x + state[0]


def test_axes_that_are_multiples_constants_and_a_batch_inside(tmp_path: Path) -> None:
    path = exported(
        tmp_path, Halves(), torch.randn(3, 8), shapes={"x": {0: BATCH, 1: 2 * Dim("half", max=40)}}
    )
    assert str(load(path).model.signature) == "x: f32[batch axis1=2..80%2]"
    path = exported(
        tmp_path,
        Flagged(),
        torch.ones(3, dtype=torch.int32),
        True,
        None,
        shapes={"x": {0: BATCH}, "double": None, "other": None},
    )
    model = load(path).model
    assert str(model.signature) == "x: i32[batch]"
    assert model.module(x=torch.tensor([1, 5], dtype=torch.int32)).tolist() == [2, 10]
    shapes = {"x": {0: BATCH}, "state": {1: BATCH}}
    path = exported(tmp_path, Recurrent(), torch.randn(3, 8), torch.randn(2, 3, 8), shapes=shapes)
    assert str(load(path).model.signature) == "x: f32[batch 8]\nstate: f32[2 batch 8]"


class Appended(nn.Module):
    def forward(self, x: torch.Tensor, longer: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.new_zeros(x.shape[0], 1)], 1) + longer


def test_what_the_notation_cannot_say_is_taken_from_the_data(tmp_path: Path) -> None:
    tokens = Dim("tokens", min=2, max=30)
    shapes = {"x": {0: BATCH, 1: tokens}, "longer": {0: BATCH, 1: tokens + 1}}
    path = exported(tmp_path, Appended(), torch.randn(3, 5), torch.randn(3, 6), shapes=shapes)
    with pytest.warns(
        UserWarning, match=r"taken from the data, because the size s\d+ \+ 1 of its input"
    ):
        model = load(path).model
    assert model.signature is None
    assert model.module(x=torch.zeros(2, 4), longer=torch.ones(2, 5)).sum() == 10


def test_a_fixed_batch_says_how_to_export_again(tmp_path: Path) -> None:
    path = exported(tmp_path, nn.Linear(4, 2), torch.randn(3, 4), shapes=None)
    with pytest.raises(
        LoadError,
        match=r"fixed batch of 3; export again with dynamic_shapes=\{'input': \{0: Dim\('batch'\)",
    ):
        load(path)
    few = {"input": {0: Dim("batch", min=4)}}
    path = exported(tmp_path, nn.Linear(4, 2), torch.randn(5, 4), shapes=few)
    with pytest.raises(LoadError, match="batches of 4 rows and more"):
        load(path)


def test_a_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt2"
    save(export(nn.Dropout(0.5), (torch.randn(3, 4),), dynamic_shapes={"input": {0: BATCH}}), path)
    with pytest.raises(
        LoadError, match=r"exported in training mode \(dropout .* call model\.eval\(\)"
    ):
        load(path)


def test_outputs_of_transformers_are_known(bert_folder: Path, tmp_path: Path) -> None:
    """In a process that never imported transformers: PyTorch must learn its outputs."""
    from transformers import BertModel

    ids = torch.ones(3, 6, dtype=torch.long)
    network = BertModel.from_pretrained(bert_folder).eval()
    program = export(network, (), {"input_ids": ids}, dynamic_shapes={"input_ids": {0: BATCH}})
    save(program, tmp_path / "bert.pt2")
    code = (
        "import torch; from forwardpass.loading import load\n"
        f"model = load({str(tmp_path / 'bert.pt2')!r}).model\n"
        "print(*model.module(input_ids=torch.ones(2, 6, dtype=torch.long)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["last_hidden_state", "pooler_output"]


def test_control_flow_stays(tmp_path: Path) -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    model = load(exported(tmp_path, Branch(), torch.randn(3, 4), shapes={"x": {0: BATCH}})).model
    assert model.module(x=torch.ones(2, 4)).sum() == 16
