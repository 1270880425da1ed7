"""The shared models are as awkward as they say."""

from __future__ import annotations

from typing import Any

import models
import pytest
import torch

from forwardpass import Model


def batch(model: Model, count: int = 3, size: int = 30) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Random inputs for `count` rows, every variable axis at `size`, as `forward` takes them."""
    assert model.signature is not None
    generator = torch.Generator().manual_seed(1)
    places: list[Any] = []
    names: dict[str, Any] = {}
    for item in model.signature.inputs:
        shape = [count if a.is_batch else size if a.is_variable else a.size for a in item.axes]
        if item.derivation == "positions":
            value = torch.arange(size).expand(count, -1)
        elif item.derivation:
            value = torch.ones(shape, dtype=torch.int64)
        elif item.dtype == "i64":
            value = torch.randint(1, 50, shape, generator=generator)
        else:
            value = torch.randn(shape, generator=generator)
        head, _, rest = item.path.partition(".")
        if head.isdigit() or isinstance(model.module, torch.nn.Sequential):
            places.append(value)
        elif rest.isdigit():
            names.setdefault(head, []).append(value)
        elif rest:
            names.setdefault(head, {})[rest] = value
        else:
            names[head] = value
    return tuple(places), names


def run(model: Model, *arguments: Any, **named: Any) -> Any:
    with torch.inference_mode():
        return model.module.eval()(*arguments, **named)


@pytest.mark.parametrize("name", models.MODELS)
def test_each_runs_and_is_made_alike_without_touching_the_random_state(name: str) -> None:
    before = torch.get_rng_state()
    first, second = models.MODELS[name](), models.MODELS[name]()
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)
    places, names = batch(first)
    assert run(first, *places, **names) is not None


@pytest.mark.parametrize(
    ("model", "value", "leaks"),
    [
        (models.bilstm(), 0, True),
        (models.pooled_convolution(), 0.0, True),
        (models.masked_mean(), 0, False),
    ],
    ids=["bilstm", "pooled_convolution", "masked_mean"],
)
def test_padding_leaks_where_it_is_said_to(model: Model, value: float, leaks: bool) -> None:
    _, names = batch(model, count=1)
    padded = {
        name: torch.nn.functional.pad(tensor, (0, 9), value=value) for name, tensor in names.items()
    }
    moved = (run(model, **names) - run(model, **padded)).abs().max().item()
    assert (moved > 1e-3) == leaks


@pytest.mark.parametrize(("positions", "leaks"), [(False, True), (True, False)])
def test_gpt2_padded_on_the_left_needs_positions(positions: bool, leaks: bool) -> None:
    model = models.gpt2_left(positions)
    _, names = batch(model, count=1, size=12)
    padded = {
        name: torch.nn.functional.pad(tensor, (7, 0), value=0) for name, tensor in names.items()
    }
    alone = run(model, **names).last_hidden_state
    moved = (alone - run(model, **padded).last_hidden_state[:, 7:]).abs().max().item()
    assert (moved > 1e-3) == leaks


@pytest.mark.parametrize("samples", [25, 26, 34, 35, 44, 100, 999])
def test_strided_has_the_frames_it_declares(samples: int) -> None:
    model = models.strided()
    _, names = batch(model, count=2, size=samples)
    assert model.signature is not None
    declared = model.signature.outputs[0].shape(2, {"samples": samples})
    assert run(model, **names).shape == declared


def test_rows_depend_on_their_batch_mates() -> None:
    _, names = batch(models.batch_statistics())
    model = models.batch_statistics()
    assert not torch.allclose(run(model, **names)[:2], run(model, names["features"][:2]))


def test_out_of_memory_and_poison() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        run(models.memory_bound(8), torch.zeros(9, 16))
    with pytest.raises(ValueError, match="poison"):
        run(models.poisoned(), torch.full((2, 16), 2e6))
