"""The `openai` client, unchanged, over real sockets."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import openai
import pytest
from front import serving
from standing_in import StandIn, about
from test_embeddings import encoder

from forwardpass.serving.protocols import embeddings

Client = openai.OpenAI


@pytest.fixture(scope="module")
def client() -> Generator[Client]:
    services = {"mini": encoder(), "mlp": StandIn(about("x: f32[batch 3]"))}
    with (
        serving(embeddings, services=services) as front,
        openai.OpenAI(
            base_url=f"http://127.0.0.1:{front.port}/v1", api_key="none", max_retries=0
        ) as client,
    ):
        yield client


def test_embeddings_as_it_asks_by_default(client: Client) -> None:
    """It asks for base64, and decodes that by itself."""
    came = client.embeddings.create(model="mini", input=["a", "a longer text"])
    vectors = np.array([one.embedding for one in came.data], "f4")
    np.testing.assert_array_equal(vectors, np.array([[1, 0.1], [13, 0.1]], "f4"))
    assert [one.index for one in came.data] == [0, 1]
    assert (came.usage.prompt_tokens, came.usage.total_tokens) == (14, 14)


def test_floats_are_the_same_numbers(client: Client) -> None:
    came = client.embeddings.create(model="mini", input="text", encoding_format="float", user="me")
    assert came.data[0].embedding == [4.0, float(np.float32(0.1))]
    assert came.model == "mini"


def test_models_are_listed_and_looked_up(client: Client) -> None:
    assert [model.id for model in client.models.list()] == ["mini", "mlp"]
    assert client.models.retrieve("mini").owned_by == "forwardpass"


def test_errors_are_its_own_classes(client: Client) -> None:
    with pytest.raises(openai.NotFoundError, match="did you mean 'mini'") as unknown:
        client.embeddings.create(model="minni", input="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="mini", input=[[1, 2, 3]])
    with pytest.raises(openai.BadRequestError, match="mlp takes no text") as wrong:
        client.embeddings.create(model="mlp", input="a")
    assert wrong.value.type == "invalid_request_error"
