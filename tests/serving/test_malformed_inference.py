"""Whatever is wrong with a request of the protocol: a 4xx in JSON, and nothing is asked."""

from __future__ import annotations

import random

import malformed_inference as malformed
import numpy as np
import pytest
from standing_in import StandIn, about, answered

from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.protocols import inference

MODELS = {
    "vector": about("features: f32[batch 3]", outputs=["output: f32[batch]"]),
    "several": about(
        "ids: i64[batch tokens=2..8]",
        "mask: bool[batch tokens]",
        "w: f16[batch 2]",
        "u: u8[3 batch 2]",
        "h: bf16[batch 1]",
        outputs=["output: f32[batch]"],
    ),
    "text": about(encodes=True, tensors=False, columns=("a", "b"), outputs=["output: f32[batch]"]),
}
COUNTS = [pytest.param(60), pytest.param(600, marks=pytest.mark.soak)]


def known(asked: Inquiry) -> Answered:
    return Answered([], {"output": np.arange(asked.count, dtype="f4")}, [])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", list(malformed.CLASSES))
@pytest.mark.parametrize("model", list(MODELS))
def test_it_is_refused_and_the_next_is_answered(model: str, kind: str, count: int) -> None:
    chance, service = random.Random(f"{model} {kind}"), StandIn(MODELS[model], known)
    path = "/v2/models/mlp/infer"
    for _ in range(count // len(MODELS)):
        body, headers = malformed.CLASSES[kind](chance, MODELS[model])
        status, told = answered(inference, [service], "POST", path, body, headers)
        assert 400 <= status < 500, (body[:300], headers, told)
        assert told["error"]
        assert len(told["error"]) < 1_000, told["error"][:200]
    assert not service.asked
    for _ in range(9):
        body, headers = malformed.sent(*malformed.right(chance, MODELS[model]))
        status, told = answered(inference, [service], "POST", path, body, headers)
        assert status == 200, told
