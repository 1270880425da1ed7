"""The null backend, and the way of what computes on NumPy's arrays: it needs no torch."""

from __future__ import annotations

import models
import numpy as np
import pytest
from artefact import ran
from torch import nn

import forwardpass as fwd
from forwardpass.errors import UsageError

WITHOUT_TORCH = """
import numpy as np
from artefact import Artefact
from forwardpass.building import Example, build
from forwardpass.executing.batches import Batch
from forwardpass.executing.encoding import Encoder
from forwardpass.executing.executors import InProcess, Threaded
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.rows import Rows

signature = ["ids: i64[batch tokens=1..8] pad 0", "mask: i64[batch tokens] = valid(tokens)"]
outputs = ["output_0: i64[batch tokens]", "output_1: i64[batch tokens]"]
model = Model(Artefact(), signature, outputs)
ids = [np.arange(1, 1 + n) for n in (3, 5, 2)]
block = Encoder(model)(Rows({"ids": ids}, np.arange(3))).block
engine = build(
    Forward(model, Plan.parse("@ null")), Example(model.signature, block.collate([5]))
)
for kind in (InProcess, Threaded):
    executor = kind(engine)
    result = executor.submit(Batch(block, (5,), 5, 0)).result()
    executor.close()
    ((start, stop, came),) = result.pieces
    assert (start, stop, result.failures) == (0, 3, {})
    assert [row.tolist() for row in came["output_0"]] == [row.tolist() for row in ids]
    assert [row.tolist() for row in came["output_1"]] == [[1] * len(row) for row in ids]
"""


def test_arrays_are_encoded_computed_and_cut_without_torch() -> None:
    ran(WITHOUT_TORCH)


def test_a_run_gives_its_data_back() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    outputs, report = fwd.run(fwd.load(models.mlp()) @ "null", {"features": rows})
    assert np.array_equal(outputs["output"], rows)
    assert (report.rows, report.device) == (50, "cpu")


def test_rows_of_any_length_come_back_in_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 60)
    ids = [np.arange(1, 1 + n) for n in lengths]
    outputs, _ = fwd.run(fwd.load(models.masked_mean()) @ "null", {"ids": ids}, batch=7)
    assert [row.tolist() for row in outputs["output_0"]] == [row.tolist() for row in ids]


def test_what_it_cannot_give_back_is_refused() -> None:
    collated = fwd.Model(
        models.mlp().module, collate=lambda items: None, uncollate=lambda outputs, count: {}
    )
    with pytest.raises(UsageError, match="has a collate of its own; use eager"):
        fwd.run(fwd.load(collated) @ "null", {"features": np.zeros((3, 16), np.float32)})


@pytest.mark.parametrize("backend", ["null", "eager"])
def test_complex_rows_with_nan_are_counted(backend: str) -> None:
    waves = np.ones((6, 3), np.complex64)
    waves[1, 2], waves[4, 0] = complex(float("nan"), 0), complex(1, float("nan"))
    model = fwd.Model(nn.Identity(), "waves: c64[batch 3]")
    _, report = fwd.run(fwd.load(model) @ backend, {"waves": waves})
    assert report.nan_rows == 2
