"""run on every awkward model: each row gets what it gets alone, and nothing is touched."""

from __future__ import annotations

import copy
import random
from typing import Any

import models
import numpy as np
import pytest
import torch

import forwardpass as fwd
from forwardpass.tensors.trees import flatten, nest

COUNT = 23


def data(model: fwd.Model) -> dict[str, Any]:
    """Random columns for COUNT rows, of very different length along variable axes."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(26, 60, COUNT)
    assert model.signature is not None
    columns: dict[str, Any] = {}
    for item in model.signature.given:
        rows = []
        for length in lengths:
            shape = [int(length) if axis.is_variable else axis.size for axis in item.row_axes]
            whole = item.dtype == "i64"
            value = generator.integers(1, 50, shape) if whole else generator.normal(size=shape)
            rows.append(value.astype(np.int64 if whole else np.float32))
        columns[item.path] = rows
    return columns


def alone(model: fwd.Model, columns: dict[str, Any], row: int) -> dict[str, torch.Tensor]:
    """The outputs of one row computed by hand, without its batch axis."""
    module = copy.deepcopy(model.module).eval()
    inputs = {path: torch.as_tensor(values[row])[None] for path, values in columns.items()}
    assert model.signature is not None
    for item in model.signature.inputs:
        if item.derivation:
            length = len(next(iter(columns.values()))[row])
            size = torch.arange(length) if item.derivation == "positions" else torch.ones(length)
            inputs[item.path] = size.long()[None]
    args, kwargs = nest(inputs)
    if isinstance(module, torch.nn.Sequential):
        args, kwargs = tuple(inputs.values()), {}
    with torch.inference_mode():
        return {
            name: value[0]
            for name, value in flatten(module(*args, **kwargs)).items()
            if value.dim()
        }


DEPENDENT = {"always_dropout", "batch_statistics", "counter_buffer"}
"""Models whose rows depend on more than themselves: their values cannot be those of a row alone."""


@pytest.mark.parametrize("name", sorted(set(models.MODELS) - DEPENDENT))
def test_every_row_gets_what_it_gets_alone(name: str) -> None:
    model = models.MODELS[name]()
    columns = data(model)
    outputs, report = fwd.run(model, columns)
    assert report.rows == COUNT
    assert report.quarantined == 0
    assert report.padded_cells >= report.real_cells >= COUNT
    for row in range(COUNT):
        expected = alone(model, columns, row)
        for path, values in outputs.items():
            torch.testing.assert_close(
                values[row], expected[path], rtol=1e-5, atol=1e-5, equal_nan=True
            )


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_nothing_of_the_caller_is_touched(name: str, two_threads: int) -> None:
    model = models.MODELS[name]()
    model.module.train()
    columns = data(model)
    state = copy.deepcopy(model.module.state_dict())
    hooks = [len(part._forward_hooks) for part in model.module.modules()]
    needs = [parameter.requires_grad for parameter in model.module.parameters()]
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    interop = torch.get_num_interop_threads()
    with torch.enable_grad():
        fwd.run(f := fwd.load(model) @ "eager(threads=1)", columns)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert f.model is model
    assert all(part.training for part in model.module.modules())
    assert [parameter.requires_grad for parameter in model.module.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert [len(part._forward_hooks) for part in model.module.modules()] == hooks
    for key, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, state[key])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert (torch.get_num_threads(), torch.get_num_interop_threads()) == (two_threads, interop)


def test_a_random_model_gives_the_same_again() -> None:
    model = models.always_dropout()
    columns = data(model)
    one, first = fwd.run(model, columns, batch=4)
    two, second = fwd.run(model, columns, batch=4)
    assert torch.equal(one["output"], two["output"])
    assert first.digest == second.digest


def test_padding_is_used_only_where_it_was_proved() -> None:
    _, safe = fwd.run(models.masked_mean(), data(models.masked_mean()), batch=4)
    assert "proved on" in safe.padding
    assert safe.batches == -(-COUNT // 4)
    assert safe.padded_cells > safe.real_cells
    _, leaking = fwd.run(models.bilstm(), data(models.bilstm()), batch=4)
    assert "moves real outputs" in leaking.padding
    assert leaking.padded_cells == leaking.real_cells


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_a_given_batch_size_is_kept(batch: int) -> None:
    _, report = fwd.run(models.mlp(), data(models.mlp()), batch=batch)
    assert report.batches == -(-COUNT // batch)
    outputs, padded = fwd.run(models.bert(), data(models.bert()), batch=batch)
    assert padded.batches == -(-COUNT // batch)
    assert len(outputs["pooler_output"]) == COUNT


def test_a_bare_module_takes_its_inputs_from_the_data() -> None:
    module = torch.nn.Linear(16, 4)
    x = np.random.default_rng(0).normal(size=(7, 16))
    for source in (
        {"input": x},
        {"anything": x},
        x,
        torch.from_numpy(x),
        [{"input": row} for row in x],
    ):
        outputs, _ = fwd.run(module, source)
        torch.testing.assert_close(outputs["output"], module(torch.from_numpy(x).float()))
    outputs, _ = fwd.run(module, {"a": x, "b": x}, columns={"input": "b"})
    assert outputs["output"].shape == (7, 4)
    with pytest.raises(
        fwd.ForwardpassError, match=r"needs 'input'.*its columns are a, b.*--columns"
    ):
        fwd.run(module, {"a": x, "b": x})


def test_decode_and_outputs() -> None:
    model = fwd.Model(
        models.mlp().module,
        models.FEATURES,
        decode=lambda outputs: {
            "best": outputs["output"].argmax(-1),
            "name": ["x"] * len(outputs["output"]),
        },
    )
    columns = data(models.mlp())
    outputs, _ = fwd.run(model, columns)
    assert list(outputs) == ["best", "name"]
    raw, _ = fwd.run(model, columns, outputs=["output"])
    assert list(raw) == ["best", "name", "output"]
    assert torch.equal(raw["output"].argmax(-1), outputs["best"])
    with pytest.raises(fwd.ForwardpassError, match="--outputs logits: no such output"):
        fwd.run(model, columns, outputs=["logits"])


def test_an_encoder_may_take_columns_or_rows() -> None:
    module = models.mlp().module
    rows = [{"values": list(range(16)), "scale": 0.1 * i} for i in range(5)]
    by_column = fwd.Model(
        module,
        models.FEATURES,
        encode=lambda r: {"features": [np.array(v, float) for v in r["values"]]},
    )
    by_row = fwd.Model(
        module, models.FEATURES, encode=lambda r: [np.array(row["values"], float) for row in r]
    )
    one, _ = fwd.run(by_column, rows, batch=len(rows))
    two, _ = fwd.run(by_row, rows, batch=len(rows))
    assert torch.equal(one["output"], two["output"])


def test_collate_takes_what_the_notation_cannot_say() -> None:
    class Graphs(torch.nn.Module):
        def forward(self, nodes: torch.Tensor, graph: torch.Tensor, count: int) -> torch.Tensor:
            return torch.zeros(count).index_add(0, graph, nodes)

    def collate(items: list[Any]) -> dict[str, Any]:
        graph = torch.repeat_interleave(
            torch.arange(len(items)), torch.tensor([len(i["nodes"]) for i in items])
        )
        return {
            "nodes": torch.cat([torch.tensor(i["nodes"]).float() for i in items]),
            "graph": graph,
            "count": len(items),
        }

    model = fwd.Model(
        Graphs(),
        collate=collate,
        uncollate=lambda outputs, count: {"total": outputs},
        size=lambda item: len(item["nodes"]),
    )
    rows = [{"nodes": [float(i)] * (i % 5 + 1)} for i in range(40)]
    outputs, report = fwd.run(model, rows)
    assert outputs["total"].tolist() == [sum(row["nodes"]) for row in rows]
    assert report.real_cells == sum(len(row["nodes"]) for row in rows)


def test_optional_inputs_may_be_there_or_not() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
            return x * 2 if bias is None else x * 2 + bias

    model = fwd.Model(Net(), ["x: f32[batch 2]", "bias?: f32[batch 2]"])
    x = np.ones((3, 2), np.float32)
    assert fwd.run(model, {"x": x})[0]["output"].tolist() == [[2, 2]] * 3
    assert fwd.run(model, {"x": x, "bias": x})[0]["output"].tolist() == [[3, 3]] * 3


def test_no_rows_at_all() -> None:
    outputs, report = fwd.run(models.mlp(), [])
    assert report.rows == 0
    assert outputs == {}


def test_limit() -> None:
    outputs, report = fwd.run(models.mlp(), data(models.mlp()), limit=5)
    assert report.rows == len(outputs["output"]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch=0: expected 'auto'"),
        ({"batch": "big"}, "batch='big'"),
        ({"limit": 0}, "limit=0"),
    ],
)
def test_options_without_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(fwd.ForwardpassError, match=message):
        fwd.run(models.mlp(), data(models.mlp()), **options)
