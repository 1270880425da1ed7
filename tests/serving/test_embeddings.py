"""`/v1/embeddings` as clients of OpenAI ask."""

from __future__ import annotations

import base64
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from standing_in import StandIn, about, answered

from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.protocols import embeddings

IDS = "ids: i64[batch tokens=1..512] pad 0"


def vectors(asked: Inquiry) -> Answered:
    """Of each text its length and 0.1; as many tokens as characters."""
    assert asked.values is not None
    assert not asked.decoded
    lengths = [len(text) for text in asked.values]
    return Answered([], {"e": np.array([[n, 0.1] for n in lengths], "f4")}, [(n,) for n in lengths])


def encoder(name: str = "mini") -> StandIn:
    told = about(IDS, outputs=["e: f32[batch 2]"], encodes=True, columns=("text",))
    return StandIn(told, vectors, name)


def embedded(services: list[StandIn], **body: Any) -> tuple[int, Any]:
    return answered(embeddings, services, "POST", "/v1/embeddings", body)


def embedded_bytes(body: bytes) -> tuple[int, Any]:
    return answered(embeddings, [encoder()], "POST", "/v1/embeddings", body)


def test_base64_is_little_endian_float32() -> None:
    texts = ["a", "abc"]
    status, told = embedded([encoder()], input=texts, model="mini", encoding_format="base64")
    assert status == 200
    assert [one["index"] for one in told["data"]] == [0, 1]
    came = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in told["data"]]
    np.testing.assert_array_equal(came, np.array([[1, 0.1], [3, 0.1]], "f4"))
    assert told["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert (told["object"], told["model"]) == ("list", "mini")


def test_a_string_is_a_list_of_one_and_the_only_model_needs_no_name() -> None:
    _, told = embedded([encoder()], input="four", user="me", dimensions=2)
    assert told["data"][0]["embedding"] == [4.0, float(np.float32(0.1))]


def test_texts_that_were_cut_are_named() -> None:
    def cut(asked: Inquiry) -> Answered:
        return replace(vectors(asked), truncated=[1])

    service = StandIn(encoder().about, cut, "mini")
    _, told = embedded([service], input=["a", "much"], model="mini")
    assert told["truncated"] == [1]
    assert "truncated" not in embedded([encoder()], input=["a"], model="mini")[1]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": "a", "model": "mii"}, 404, "no model 'mii' is served; did you mean 'mini'?"),
        ({"input": "a"}, 400, "model: say which of mini, mlp"),
        ({"input": [1, 2, 3], "model": "mini"}, 400, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]], "model": "mini"}, 400, "input[0]: a token"),
        ({"input": [], "model": "mini"}, 400, "an empty list"),
        ({"input": "a", "model": "mini", "dimensions": 3}, 400, "mini gives 2, not 3"),
        ({"input": "a", "model": "mini", "encoding_format": "hex"}, 400, "invalid enum value"),
        ({"input": "a", "model": "mlp"}, 400, "mlp takes no text but x: f32[batch 3]"),
        ({"input": None, "model": "mini"}, 400, "input: expected `str | array`"),
        ({"model": "mini"}, 400, "object missing required field `input`"),
        ({"input": ["a"] * 9, "model": "mini"}, 413, "more than 8 texts, as many as"),
    ],
)
def test_a_refusal_is_in_the_words_of_that_protocol(body: Any, status: int, said: str) -> None:
    services = [encoder(), StandIn(about("x: f32[batch 3]"))]
    came, told = answered(embeddings, services, "POST", "/v1/embeddings", body, request_rows=8)
    assert came == status
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert said in told["error"]["message"]


@pytest.mark.parametrize(
    "outputs",
    [
        ["a: f32[batch tokens 2]"],
        ["a: f32[batch 2]", "b: f32[batch 2]"],
        ["a: i64[batch 2]"],
        ["a: f32[batch]"],
        [],
    ],
)
def test_a_model_whose_output_is_no_vector_says_what_it_gives(outputs: list[str]) -> None:
    service = StandIn(about(IDS, outputs=outputs, encodes=True), vectors, "tagger")
    status, told = embedded([service], input="a")
    assert status == 400
    assert "; ".join(outputs) in told["error"]["message"]
    assert "POST /models/tagger" in told["error"]["message"]


def test_the_models_are_listed() -> None:
    status, told = answered(embeddings, [encoder()], "GET", "/v1/models")
    assert status == 200
    assert [model["id"] for model in told["data"]] == ["mini"]
    assert answered(embeddings, [encoder()], "GET", "/v1/models/mini")[1]["object"] == "model"
    assert answered(embeddings, [encoder()], "GET", "/v1/models/none")[0] == 404


def test_a_list_of_millions_is_refused_before_it_is_made() -> None:
    for one in ("1", "[]", '""', "[1,2]"):
        body = f'{{"input":[{",".join([one] * 1_000_000)}]}}'.encode()
        tracemalloc.start()
        try:
            assert embedded_bytes(body)[0] == 413
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
    status, told = embedded([encoder()], input=[[1] * 1_000_000])
    assert (status, "a token" in told["error"]["message"]) == (400, True)


def test_a_refusal_does_not_repeat_a_body() -> None:
    for body in ({"input": "a", "encoding_format": "x" * 9_999}, {"input": "a", "x" * 9_999: 1}):
        status, told = embedded([encoder()], **body)
        assert status == 400
        assert len(told["error"]["message"]) < 1_000
