"""schemathesis asks all that `/openapi.json` says, right and wrong, over real sockets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
import torch
from engine_ends import FarEngine
from front import Front, serving
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from test_answers_of_run import FarService, rows_of
from torch import nn

from forwardpass import Model
from forwardpass.nouns.folders import plugins
from forwardpass.serving import protocols
from tests import models

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
BEYOND_SCHEMAS = ("expected `int`, got `float`", "beyond 64 bits")
"""What JSON Schema cannot say: that 100.0 is no whole number, and how large those of an object are
that the model may read."""
MANY = "rows; a request may hold"
SHAPES = re.compile(
    r"input .*: (axis|data|shape|expected|got)|input .* is (not there|there twice)|0 rows"
    r"|the model has none|" + MANY
)
"""Nor that a shape, its data and the model belong together; of outputs nothing is said."""
COUNTS = [pytest.param(25), pytest.param(400, marks=pytest.mark.soak)]


class Codes:
    """The bytes of a text, and a space, so that there is one."""

    text_columns = ("text",)

    def __call__(self, rows: Any) -> dict[str, Any]:
        return {"codes": [list((text + " ").encode()) for text in rows["text"]]}


def words() -> Model:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(256, 4)

        def forward(self, codes: torch.Tensor) -> torch.Tensor:
            return self.table(codes).mean(1)

    return Model(Table(), "codes: i64[batch n]", encode=Codes())


@contextmanager
def served() -> Generator[Front]:
    """A model of numbers, and one of texts."""
    mlp = models.mlp()
    with (
        FarEngine(mlp, rows_of(mlp, 3)) as vectors,
        FarEngine(words(), [{"text": "a"}, {"text": "bcd"}]) as texts,
        serving(
            *plugins(protocols).values(),
            services={
                "mlp": FarService(vectors, "mlp"),
                "words": FarService(texts, "words", '"a text"'),
            },
        ) as front,
    ):
        yield front


def asked(front: Front, mode: GenerationMode, count: int) -> Counter[tuple[str, int]]:
    """Ask each operation as often, and see that the answer is as described; by operation and
    status, how often."""
    url = f"http://127.0.0.1:{front.port}"
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    came = Counter[tuple[str, int]]()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue

        @settings(
            max_examples=count, deadline=None, phases=[Phase.generate], database=None,
            suppress_health_check=SLOW, derandomize=True,
        )  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case[Any]) -> None:
            response = case.call(base_url=url)
            came[case.operation.label, response.status_code] += 1
            assert response.status_code < 500, (case.as_curl_command(), response.text)
            if any(words in response.text.lower() for words in BEYOND_SCHEMAS):
                return
            if mode is GenerationMode.POSITIVE and SHAPES.search(response.text):
                assert response.status_code == (413 if MANY in response.text else 400)
                return
            case.validate_response(response)

        holds()
    return came


@pytest.fixture(scope="module")
def front() -> Generator[Front]:
    with served() as front:
        yield front


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_as_described(front: Front, mode: GenerationMode, count: int) -> None:
    assert asked(front, mode, count).total() > 0
