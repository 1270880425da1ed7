"""NVIDIA's own gRPC clients, unchanged, against a whole server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

import forwardpass as fwd
from forwardpass import serving

MODELS = """
import time

import torch
from torch import nn

import forwardpass as fwd


class Summed(nn.Module):
    def forward(self, x):
        return {"same": x.clone(), "sum": x.sum(1, dtype=x.dtype)}


class Length(nn.Module):
    def forward(self, bytes):
        return (bytes >= 0).sum(1)


class Slow(nn.Module):
    def forward(self, x):
        if bool((x > 0).any()):
            time.sleep(2)
        if bool((x < 0).any()):
            raise ValueError("no root of that")
        return x


def model(dtype):
    return fwd.Model(Summed(), f"x: {dtype}[batch n=1..64]")


f32, f64, i64, i8, u8 = (model(dtype) for dtype in ("f32", "f64", "i64", "i8", "u8"))
slow = fwd.Model(Slow(), "x: f32[batch]")
words = fwd.Model(
    Length(), "bytes: i64[batch length=1..100] pad -1",
    encode=lambda rows: {"bytes": [list(text.encode()) for text in rows["text"]]},
)
"""
DATATYPES = {"f32": "FP32", "f64": "FP64", "i64": "INT64", "i8": "INT8", "u8": "UINT8"}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    file = tmp_path_factory.mktemp("calls") / "summed.py"
    file.write_text(MODELS)
    models = {name: f"{file}:{name}" for name in (*DATATYPES, "slow", "words")}
    with fwd.serve(models, port=0, grpc_port=0, access_log=False) as server:
        assert server.grpc_address is not None
        yield server.grpc_address


@pytest.fixture(scope="module")
def client(address: str) -> Generator[Any]:
    with triton.InferenceServerClient(address) as client:
        yield client


def given(array: Any, datatype: str = "FP32", *, name: str = "x") -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array)


def test_health_metadata_and_what_is_served(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("words", "1")
    assert "statistics" in client.get_server_metadata().extensions
    metadata, config = client.get_model_metadata("f32"), client.get_model_config("f32").config
    assert [*metadata.inputs[0].shape] == [-1, -1]
    assert (metadata.inputs[0].name, metadata.inputs[0].datatype) == ("x", "FP32")
    assert [*config.input[0].dims] == [-1]
    assert config.max_batch_size > 0
    assert {model.state for model in client.get_model_repository_index().models} == {"READY"}
    (stats,) = client.get_inference_statistics("f32").model_stats
    assert stats.name == "f32"
    assert len(client.get_inference_statistics().model_stats) == len(DATATYPES) + 2


@pytest.mark.parametrize("dtype", DATATYPES)
def test_every_datatype(client: Any, dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], triton_to_np_dtype(DATATYPES[dtype]))
    result = client.infer(dtype, [given(array, DATATYPES[dtype])], request_id="7")
    assert (result.as_numpy("same") == array).all()
    assert (result.as_numpy("sum") == array.sum(1)).all()
    assert result.get_response().id == "7"


def test_one_output_of_much_compressed(client: Any) -> None:
    array = np.random.default_rng(0).normal(size=(1_500, 64)).astype("f4")
    result = client.infer(
        "f32", [given(array)], outputs=[triton.InferRequestedOutput("sum")],
        compression_algorithm="gzip", timeout=20_000_000, priority=2,
    )  # fmt: skip
    np.testing.assert_allclose(result.as_numpy("sum"), array.sum(1), rtol=1e-5, atol=1e-5)
    assert result.as_numpy("same") is None


def test_texts_and_classes(client: Any) -> None:
    texts = np.array(["a text", "", "äöü"], object)
    result = client.infer("words", [given(texts, "BYTES", name="text")])
    assert result.as_numpy("output").tolist() == [6, 0, 6]
    asked = triton.InferRequestedOutput("same", class_count=2)
    result = client.infer("f32", [given(np.array([[0.25, 0.5]], "f4"))], outputs=[asked])
    assert result.as_numpy("same").tolist() == [[b"0.500000:1", b"0.250000:0"]]


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [("FP32", "fp32_contents", [0.5, 1, 2]), ("INT64", "int64_contents", [1, 2, -3]),
     ("INT8", "int_contents", [1, 2, -3])],
)  # fmt: skip
def test_numbers_one_by_one(address: str, datatype: str, field: str, values: list[Any]) -> None:
    name = next(name for name, known in DATATYPES.items() if known == datatype)
    request = service_pb2.ModelInferRequest(model_name=name)
    item = request.inputs.add(name="x", datatype=datatype, shape=[1, 3])
    getattr(item.contents, field).extend(values)
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        reply = stub.ModelInfer(request)
        told = np.frombuffer(reply.raw_output_contents[1], triton_to_np_dtype(datatype))
        assert told.tolist() == [sum(values)]
        if datatype == "INT8":
            item.contents.int_contents[0] = 300
            with pytest.raises(grpc.RpcError, match="holds what is no INT8"):
                stub.ModelInfer(request)


def test_what_is_refused_is_said(client: Any) -> None:
    array = np.zeros((2, 3), "f4")
    shared = triton.InferInput("x", [2, 3], "FP32")
    shared.set_shared_memory("region", 24)
    for model, inputs, more, status, said in (
        ("f3", [given(array)], {}, "NOT_FOUND", "did you mean 'f32'"),
        ("f32", [given(array)], {"model_version": "3"}, "NOT_FOUND", "no version '3'"),
        ("f32", [given(array, name="y")], {}, "INVALID_ARGUMENT", "known: x"),
        ("f32", [given(array.astype("f8"), "FP64")], {}, "INVALID_ARGUMENT", "expected FP32"),
        ("f32", [given(array[0])], {}, "INVALID_ARGUMENT", "the first axis is the batch"),
        ("f32", [given(array)], {"sequence_id": 3}, "INVALID_ARGUMENT", "sequences"),
        ("f32", [shared], {}, "INVALID_ARGUMENT", ""),
        ("slow", [given(np.array([0, -1], "f4"))], {}, "INVALID_ARGUMENT", "row 1"),
    ):
        with pytest.raises(InferenceServerException, match=said) as refused:
            client.infer(model, inputs, **more)
        assert refused.value.status() == f"StatusCode.{status}"
    with pytest.raises(InferenceServerException) as refused:
        client.load_model("f32")
    assert refused.value.status() == "StatusCode.UNIMPLEMENTED"


def test_bytes_that_are_no_message(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        for method in ("ModelInfer", "ModelMetadata"):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"\xff" * 40)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(bytes(65 << 20))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_deadline_that_cannot_be_kept(client: Any) -> None:
    """The server says so as soon as it knows, or the client when the time is up."""
    wait = given(np.array([1], "f4"))
    began = time.monotonic()
    with pytest.raises(InferenceServerException) as late:
        client.infer("slow", [wait], client_timeout=0.5)
    assert late.value.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")
    assert time.monotonic() - began < 1.5


def test_calls_at_once(address: str) -> None:
    def asked(n: int) -> float:
        return client.infer("f32", [given(np.full((1, n), n, "f4"))]).as_numpy("sum")[0]

    with triton.InferenceServerClient(address) as client, ThreadPoolExecutor(8) as clients:
        assert [*clients.map(asked, range(1, 33))] == [n * n for n in range(1, 33)]


def test_the_client_of_asyncio(address: str) -> None:
    async def ask() -> None:
        array = np.random.default_rng(1).normal(size=(2, 7)).astype("f4")
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_live()
            result = await client.infer("f32", [given(array)])
            assert np.asarray(result.as_numpy("same")).tobytes() == array.tobytes()

    asyncio.run(ask())


def test_the_token_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "summed.py"
    file.write_text(MODELS)
    served = fwd.serve(f"{file}:f32", port=0, grpc_port=0, token="secret", access_log=False)
    with served as server, triton.InferenceServerClient(server.grpc_address) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.get_model_metadata("summed")
        assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        headers = {"authorization": "Bearer secret"}
        assert client.get_model_metadata("summed", headers=headers).name == "summed"


def test_the_messages_are_those_of_the_file(tmp_path: Path) -> None:
    folder = Path(serving.__file__).parent
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--python_out={tmp_path}",
         f"--pyi_out={tmp_path}", "open_inference.proto"],
        check=True,
    )  # fmt: skip
    for name in ("open_inference_pb2.py", "open_inference_pb2.pyi"):
        assert (tmp_path / name).read_text() == (folder / name).read_text(), "make proto"
