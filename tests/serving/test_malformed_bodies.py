"""Whatever is wrong with a body: a 4xx in JSON, nothing is asked, and the next one is read."""

from __future__ import annotations

import random

import malformed
import pytest
from standing_in import StandIn, about, answered

from forwardpass.serving.protocols import rows

MODELS = {
    "vector": about("features: f32[batch 3]"),
    "image": about("pixels: u8[batch 2 2 3]"),
    "tokens": about(
        "ids: i64[batch tokens=2..8]",
        "mask: bool[batch tokens]",
        "w: f16[batch]",
        "z: c64[batch 1]",
    ),
    "text": about("ids: i64[batch tokens=1..8] pad 0", encodes=True, columns=("text",)),
}
COUNTS = [pytest.param(60), pytest.param(600, marks=pytest.mark.soak)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", list(malformed.CLASSES))
@pytest.mark.parametrize("model", list(MODELS))
def test_it_is_refused_and_the_next_is_answered(model: str, kind: str, count: int) -> None:
    chance, service = random.Random(f"{model} {kind}"), StandIn(MODELS[model])
    for _ in range(count // len(MODELS)):
        body = malformed.CLASSES[kind](chance, MODELS[model])
        status, told = answered(rows, [service], "POST", "/models/mlp", body)
        assert 400 <= status < 500, (body[:200], told)
        assert told["error"]
        assert len(told["error"]) < 1_000
    assert not service.asked
    body = malformed.encoded(malformed.right(chance, MODELS[model]))
    assert answered(rows, [service], "POST", "/models/mlp", body)[0] == 200
