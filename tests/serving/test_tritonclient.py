"""NVIDIA's own clients, unchanged, against the protocol over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from front import serving
from standing_in import StandIn, about
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.protocols import inference

CODINGS = [None, "gzip", "deflate"]


def summed(asked: Inquiry) -> Answered:
    """The first input as it came, and the sums of its rows; of texts their lengths."""
    if asked.values is not None:
        return Answered([], {"length": np.array([len(v["text"]) for v in asked.values])}, [])
    assert asked.arrays is not None
    x = np.asarray(asked.arrays["x"])
    return Answered([], {"same": x, "sum": x.sum(1, dtype=x.dtype)}, [])


def tensors(dtype: str = "f32", name: str = "tensors ä") -> StandIn:
    outputs = [f"same: {dtype}[batch n]", f"sum: {dtype}[batch]"]
    return StandIn(about(f"x: {dtype}[batch n=1..64]", outputs=outputs), summed, name)


def empty() -> StandIn:
    outputs = ["same: f32[batch 0]", "sum: f32[batch]"]
    return StandIn(about("x: f32[batch 0]", outputs=outputs), summed, "empty")


def words() -> StandIn:
    spec = about(encodes=True, tensors=False, columns=("text",), outputs=["length: i64[batch]"])
    return StandIn(spec, summed, "words")


DTYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")
MODELS = [
    tensors(),
    words(),
    empty(),
    StandIn(None, name="loading"),
    *(tensors(d, d) for d in DTYPES),
]


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with serving(inference, services={service.name: service for service in MODELS}) as front:
        yield f"127.0.0.1:{front.port}"


@pytest.fixture(scope="module")
def client(url: str) -> Generator[Any]:
    with triton.InferenceServerClient(url) as client:
        yield client


def given(array: Any, datatype: str = "FP32", *, binary: bool = True, name: str = "x") -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def test_health_metadata_and_what_is_served(client: Any) -> None:
    assert client.is_server_live()
    assert not client.is_server_ready()  # one is loading
    assert client.is_model_ready("tensors ä")
    assert client.is_model_ready("words", "1")
    assert not client.is_model_ready("loading")
    assert not client.is_model_ready("words", "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("tensors ä")
    config = client.get_model_config("tensors ä", "1")
    (listed,), (configured,) = metadata["inputs"], config["input"]
    assert listed == {"name": "x", "datatype": "FP32", "shape": [-1, -1]}
    assert listed["shape"][1:] == configured["dims"]
    assert config["max_batch_size"] > 0
    states = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert (states["words"], states["loading"]) == ("READY", "UNAVAILABLE")


@pytest.mark.parametrize("sent", CODINGS)
@pytest.mark.parametrize("wanted", CODINGS)
@pytest.mark.parametrize("binary", [True, False])
def test_infer(client: Any, sent: str | None, wanted: str | None, binary: bool) -> None:
    array = np.random.default_rng(0).normal(size=(3, 5)).astype("f4")
    outputs = [
        triton.InferRequestedOutput("sum", binary_data=not binary),
        triton.InferRequestedOutput("same", binary_data=binary),
    ]
    for asked in (None, outputs):
        result = client.infer(
            "tensors ä", [given(array, binary=binary)], outputs=asked, request_id="7",
            request_compression_algorithm=sent, response_compression_algorithm=wanted,
            timeout=5_000_000, priority=2, parameters={"mine": "anything"},
        )  # fmt: skip
        assert result.as_numpy("same").tobytes() == array.tobytes()
        assert result.as_numpy("sum").tobytes() == array.sum(1).tobytes()
        assert result.get_response()["id"] == "7"


@pytest.mark.parametrize("coding", CODINGS)
def test_infer_of_much(client: Any, coding: str | None) -> None:
    """More than is compressed in the event loop, or fits into one read of a socket."""
    array = np.random.default_rng(0).normal(size=(1_500, 64)).astype("f4")
    result = client.infer(
        "tensors ä", [given(array)], request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )  # fmt: skip
    assert result.as_numpy("same").tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_datatype(client: Any, dtype: str) -> None:
    datatype = client.get_model_metadata(dtype)["inputs"][0]["datatype"]
    array = np.array([[0, 1, 1], [1, 0, 1]], triton_to_np_dtype(datatype))
    for binary in (True, False)[: 1 if datatype == "BF16" else 2]:
        result = client.infer(dtype, [given(array, datatype, binary=binary)])
        assert (result.as_numpy("same") == array).all()
        assert result.as_numpy("same").shape == (2, 3)


def test_numbers_that_are_none_are_data(client: Any) -> None:
    array = np.array([[np.nan, np.inf, -np.inf]], "f4")
    assert client.infer("tensors ä", [given(array)]).as_numpy("same").tobytes() == array.tobytes()


def test_rows_without_a_number(client: Any) -> None:
    for binary in (True, False):
        result = client.infer("empty", [given(np.zeros((2, 0), "f4"), binary=binary)])
        assert result.as_numpy("same").shape == (2, 0)
        assert result.as_numpy("sum").tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize("binary", [True, False])
def test_texts(client: Any, shape: tuple[int, ...], binary: bool) -> None:
    texts = np.array(["a text", "", "äöü"], object).reshape(shape)
    result = client.infer("words", [given(texts, "BYTES", binary=binary, name="text")])
    assert result.as_numpy("length").tolist() == [6, 0, 3]


def test_classes(client: Any) -> None:
    array = np.array([[0.25, 0.5, -1], [3, 2, 1]], "f4")
    for binary in (True, False):
        asked = triton.InferRequestedOutput("same", binary_data=binary, class_count=2)
        result = client.infer("tensors ä", [given(array)], outputs=[asked])
        told = [str(t, "utf-8") if binary else t for t in result.as_numpy("same").ravel()]
        assert told == ["0.500000:1", "0.250000:0", "3.000000:0", "2.000000:1"]
        assert result.as_numpy("same").shape == (2, 2)


def test_what_is_refused_is_said(client: Any) -> None:
    array = np.zeros((2, 3), "f4")
    shared = triton.InferInput("x", [2, 3], "FP32").set_shared_memory("region", 24)
    for model, inputs, more, status, said in (
        ("tensors", [given(array)], {}, "404", "did you mean 'tensors ä'"),
        ("tensors ä", [given(array)], {"model_version": "3"}, "404", "no version '3'"),
        ("loading", [given(array)], {}, "400", "not ready"),
        ("tensors ä", [given(array, name="y")], {}, "400", "known: x"),
        ("tensors ä", [given(array.astype("f8"), "FP64")], {}, "400", "expected FP32"),
        ("tensors ä", [given(array[0])], {}, "400", "the first axis is the batch"),
        ("tensors ä", [given(array[:, :0])], {}, "400", "cannot be 0"),
        ("tensors ä", [shared], {}, "400", "shared memory"),
        ("tensors ä", [given(array)], {"sequence_id": 3}, "400", "sequences"),
        ("words", [given(array, name="text")], {}, "400", "expected BYTES"),
    ):
        with pytest.raises(InferenceServerException, match=said) as refused:
            client.infer(model, inputs, **more)
        assert refused.value.status() == status


def test_shared_memory_is_refused_from_the_beginning(client: Any) -> None:
    for call in (
        client.unregister_system_shared_memory,
        client.get_cuda_shared_memory_status,
        lambda: client.register_system_shared_memory("region", "/key", 64),
    ):
        with pytest.raises(InferenceServerException, match="send the data in the request") as said:
            call()
        assert said.value.status() == "400"


def test_statistics(client: Any) -> None:
    (stats,) = client.get_inference_statistics("i8", "1")["model_stats"]
    assert stats["inference_stats"]["success"]["count"] >= 0
    assert len(client.get_inference_statistics()["model_stats"]) == len(MODELS)


def test_requests_at_once(url: str) -> None:
    with triton.InferenceServerClient(url, concurrency=8) as client:
        arrays = [np.full((1, n), n, "f4") for n in range(1, 33)]
        waiting = [client.async_infer("tensors ä", [given(array)]) for array in arrays]
        for array, one in zip(arrays, waiting, strict=True):
            assert np.asarray(one.get_result().as_numpy("sum")) == array.sum()


def test_the_client_of_asyncio(url: str) -> None:
    async def ask() -> None:
        array = np.random.default_rng(1).normal(size=(2, 7)).astype("f4")
        async with triton_aio.InferenceServerClient(url) as client:
            assert await client.is_server_live()
            assert (await client.get_model_metadata("words"))["name"] == "words"
            for coding in CODINGS:
                result = await client.infer(
                    "tensors ä", [given(array)], request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )  # fmt: skip
                assert np.asarray(result.as_numpy("same")).tobytes() == array.tobytes()
            with pytest.raises(InferenceServerException, match="known: x"):
                await client.infer("tensors ä", [given(array, name="y")])

    asyncio.run(ask())
