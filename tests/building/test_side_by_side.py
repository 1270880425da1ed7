"""Streams: batches that a backend computes side by side, to the same numbers."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forwardpass as fwd
from forwardpass import Forward
from forwardpass.building.opening import one_at_a_time, sharing_graph
from forwardpass.errors import UsageError
from forwardpass.nouns.plans import Plan

ROWS = {"features": np.random.default_rng(0).normal(size=(3_000, 16)).astype("f4")}


def test_rows_are_those_of_one_stream_in_their_order() -> None:
    alone, _ = fwd.run(Forward(models.mlp()) @ "openvino(threads=1)", ROWS, batch=64)
    beside, report = fwd.run(
        Forward(models.mlp()) @ "openvino(threads=1, streams=3)", ROWS, batch=64
    )
    np.testing.assert_array_equal(alone["output"], beside["output"])
    assert report.device == "cpu"
    assert report.rows == 3_000


def test_an_artefact_opens_with_the_streams_that_it_was_made_with(tmp_path: Path) -> None:
    out = tmp_path / "net.fwd"
    fwd.export(Forward(models.mlp()) @ "openvino(streams=2)", out)
    plain, _ = fwd.run(fwd.load(out) @ "openvino(threads=1)", ROWS)
    came, _ = fwd.run(out, ROWS)
    np.testing.assert_allclose(came["output"], plain["output"], atol=1e-5)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("openvino(streams=0)", "streams must be a whole number from 1"),
        ("openvino(streams=many)", "streams must be a whole number"),
        ("openvino(streams=1.5)", "streams must be a whole number"),
        ("onnxruntime(streams=2)", "onnxruntime has no argument 'streams'"),
    ],
)
def test_a_number_that_is_none_is_refused(backend: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fwd.run(Forward(models.mlp()) @ backend, ROWS)


@given(streams=st.integers(1, 64), threads=st.none() | st.integers(1, 64))
def test_one_batch_at_a_time_has_the_threads_of_all_streams(
    streams: int, threads: int | None
) -> None:
    each = "" if threads is None else f", threads={threads}"
    whole = "" if threads is None else f", threads={threads * streams}"
    plan = Plan.parse(f"| remove_dropout @ openvino(int8{each}, streams={streams}) where a.*")
    alone = one_at_a_time(plan)
    assert str(alone) == f"| remove_dropout @ openvino(quantize=int8{whole}) where a.*"
    assert one_at_a_time(alone) == alone
    assert sharing_graph(plan) == sharing_graph(alone)
    assert str(sharing_graph(plan)) == "| remove_dropout @ openvino(quantize=int8) where a.*"


@pytest.mark.parametrize(
    "plan",
    ["@ eager(device=cuda:7)", "@ null", "@ inductor(dynamic=true)", "@ onnxruntime(threads=2)"],
)
def test_what_has_no_streams_stays(plan: str) -> None:
    assert str(one_at_a_time(Plan.parse(plan))) == plan
