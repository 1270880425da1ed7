"""Families of models on each backend, a part of benchmarks/lowering_table.py: what is quick to
build in every run, the rest in `make soak`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from benchmarks.lowering_models import FAMILIES
from benchmarks.lowering_table import BACKENDS, alone, entry

QUICK = {
    ("gpt2", "onnxruntime"),
    ("gpt2", "torchscript"),
    ("autoencoder", "onnxruntime"),
    ("autoencoder", "openvino"),
    ("autoencoder", "torchscript"),
}
REFUSED = {("lstm", "aot"): "cannot be lowered to aot"}
SOAKED = [pytest.param(backend, marks=pytest.mark.soak) for backend in ("onnxruntime", "eager")]


def cases() -> list[Any]:
    found: list[Any] = []
    for family in FAMILIES:
        for backend in BACKENDS:
            marks = [] if (family, backend) in QUICK else [pytest.mark.soak]
            found.append(pytest.param(family, backend, marks=marks, id=f"{family}-{backend}"))
    return found


@pytest.mark.parametrize(("family", "backend"), cases())
def test_an_artefact_computes_what_its_model_does(
    family: str, backend: str, tmp_path: Path
) -> None:
    made = entry(FAMILIES[family], backend, tmp_path / "x.fwd")
    if (family, backend) in REFUSED:
        assert made.verdict == "refuses"
        assert REFUSED[family, backend] in made.said
        return
    assert (made.verdict, made.said) == ("works", "")


@pytest.mark.parametrize("backend", ["openvino", *SOAKED])
def test_it_answers_alone(backend: str, tmp_path: Path) -> None:
    made = entry(FAMILIES["bert"], backend, tmp_path / "x.fwd")
    assert made.trust == "data"
    assert alone(made, FAMILIES["bert"], backend, tmp_path) == "answers"
