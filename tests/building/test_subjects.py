"""The batches on which what is made of a module must compute what the module does."""

from __future__ import annotations

from pathlib import Path

import models
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.building import build
from forwardpass.building.replicas import Example
from forwardpass.building.subjects import Subject, Truth
from forwardpass.executing.examples import drawn


def subject(model: Model) -> Subject:
    forward = Forward(model)
    at = lambda rows, sizes: drawn(forward, batch=len(rows), axes=sizes)  # noqa: E731
    return Subject(model.module.eval(), Example(model.signature, drawn(forward, batch=3), at))


def truths(model: Model) -> dict[str, Truth]:
    return {truth.said: truth for truth in subject(model).truths()}


def test_the_ends_of_what_the_signature_permits_are_tried() -> None:
    found = truths(models.bert())
    assert {"1 row × tokens=1", "1 row × tokens=64"} <= set(found)


def test_of_a_padded_batch_the_real_cells_count() -> None:
    (padded,) = [t for said, t in truths(models.gpt2_left(True)).items() if "padded" in said]
    mask = torch.as_tensor(padded.inputs["attention_mask"]).bool()  # type: ignore[index]
    assert not mask.all()
    assert torch.equal(padded.real["last_hidden_state"].all(-1), mask)


class Guarded(nn.Module):
    """Leaves the mask out where all of it is real: another way, which only some batches take."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.embed(ids)
        if mask.all():
            return hidden.mean(1)
        weight = mask.to(hidden.dtype)[..., None]
        return (hidden * weight).sum(1) / weight.sum(1)


@pytest.mark.parametrize("backend", ["torchscript", "openvino"])
def test_a_graph_is_made_of_a_mask_that_hides_something(backend: str, tmp_path: Path) -> None:
    inputs = ["ids: i64[batch tokens=1..64] pad 0", "mask: i64[batch tokens] = valid(tokens)"]
    forward = Forward(Model(Guarded(), inputs)) @ backend
    artefact = fwd.export(forward, tmp_path / "x.fwd")
    assert any("padded" in said for said in artefact.lowered.tried)
    ids = torch.tensor([[4, 5, 6, 0], [1, 2, 3, 4]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    batch = {"ids": ids, "mask": mask}
    engine = build(fwd.load(tmp_path / "x.fwd", trust="code"), batch)
    came = torch.as_tensor(engine(batch)["output"])
    torch.testing.assert_close(came, forward.model.module(ids, mask), atol=1e-5, rtol=0)
