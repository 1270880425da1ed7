"""Messages of inference by their bytes: what they hold, and how long one holds up the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from standing_in import StandIn, about

from forwardpass.serving.applications import Application
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.exchanges import Exchange, Reply
from forwardpass.serving.open_inference_pb2 import InferRequest, InferResponse
from forwardpass.serving.options import RequestLimits, ServeOptions
from forwardpass.serving.protocols import calls
from forwardpass.serving.wire_fields import prefix

METHOD = "/inference.GRPCInferenceService/"
LIMITS = RequestLimits()


def same(asked: Inquiry) -> Answered:
    if asked.arrays is None:
        return Answered([], {"output": np.zeros(asked.count, "f4")}, [])
    return Answered([], {"output": np.asarray(next(iter(asked.arrays.values())))}, [])


class House:
    """In which bodies are counted."""

    limits = LIMITS

    def __init__(self) -> None:
        self.most_bytes = self._arriving_bytes = 0

    @property
    def arriving_bytes(self) -> int:
        return self._arriving_bytes

    @arriving_bytes.setter
    def arriving_bytes(self, size: int) -> None:
        self._arriving_bytes, self.most_bytes = size, max(size, self.most_bytes)


class Asked:
    """What came of a message: the reply, the most that it was counted for, and the longest that
    nobody else had a turn, in seconds of CPU."""

    def __init__(self, body: bytes, *inputs: str, method: str = "ModelInfer", **more: Any) -> None:
        self._body, self._method, self.house = body, METHOD + method, House()
        given = {"outputs": ["output: i64[batch n]"], **more}
        self._service = StandIn(about(*(inputs or ("x: i64[batch n]",)), **given), same)
        self.longest_seconds = 0.0
        self.reply = asyncio.run(self._run())
        assert self.house.arriving_bytes == 0

    async def _run(self) -> Reply:
        options = ServeOptions(models=(), grpc_port=0, limits=LIMITS)
        application = Application({"mlp": self._service}, options, [calls])
        way = application.admit("POST", self._method.encode(), {})
        exchange = Exchange(
            "gRPC", way.path, b"", {}, {}, self._body, "id", 0.0, account=self.house
        )
        exchange.hold(len(self._body))
        answering = asyncio.create_task(application.answer(way, exchange))
        while not answering.done():
            began = time.thread_time()
            await asyncio.sleep(0)
            self.longest_seconds = max(self.longest_seconds, time.thread_time() - began)
        exchange.let_go()
        return answering.result()

    @property
    def said(self) -> str:
        assert isinstance(self.reply.body, bytes)
        return self.reply.body.decode()

    def tensor(self, dtype: str) -> np.ndarray[Any, Any]:
        assert self.reply.status == 200, self.said
        message = InferResponse.FromString(self.reply.body)
        (output,), (piece,) = message.outputs, message.raw_output_contents
        return np.frombuffer(piece, dtype).reshape([*output.shape])


def field(number: int, value: bytes) -> bytes:
    return prefix(number, len(value)) + value


def request(
    contents: bytes | None, shape: list[int], datatype: str = "INT64", *raw: bytes
) -> bytes:
    message = InferRequest(model_name="mlp")
    item = message.inputs.add(name="x", datatype=datatype, shape=shape)
    if contents is not None:
        item.contents.MergeFromString(contents)
    message.raw_input_contents.extend(raw)
    return message.SerializeToString()


def with_input(contents: bytes, shape: list[int], datatype: str) -> bytes:
    """As `request`, of contents that nobody here parses."""
    message = InferRequest.Input(name="x", datatype=datatype, shape=shape).SerializeToString()
    return field(1, b"mlp") + field(5, message + field(5, contents))


MANY = 4_000_000
FLOODS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "inputs": ("4,096 fields", lambda: field(1, b"mlp") + field(5, b"") * MANY),
    "outputs": ("4,096 fields", lambda: field(1, b"mlp") + field(6, b"") * MANY),
    "raw contents": ("4,096 fields", lambda: field(1, b"mlp") + field(7, b"") * MANY),
    "parameters": ("4,096 fields", lambda: field(1, b"mlp") + field(4, b"") * MANY),
    "parameters of an input": (
        "4,096 fields",
        lambda: field(1, b"mlp") + field(5, field(4, b"") * MANY),
    ),
    "contents of an input": (
        "4,096 fields",
        lambda: field(1, b"mlp") + field(5, field(5, b"") * MANY),
    ),
    "a long shape": ("beside the data", lambda: field(1, b"mlp") + field(5, field(3, bytes(MANY)))),
    "numbers of a small shape": (
        "takes 2 elements; more came",
        lambda: with_input(field(3, bytes(MANY)), [1, 2], "INT64"),
    ),
    "numbers of a large shape": (
        "int64_contents has 4000000",
        lambda: with_input(field(3, bytes(MANY)), [1, MANY + 1], "INT64"),
    ),
    "numbers without an end": (
        "int64_contents: ",
        lambda: with_input(field(3, b"\x80" * MANY), [1, MANY], "INT64"),
    ),
    "numbers that are not packed": (
        "more came",
        lambda: with_input(b"\x18\0" * MANY, [1, 9_999], "INT64"),
    ),
    "texts": (
        "takes 2 elements; more came",
        lambda: with_input(field(8, b"") * MANY, [2], "BYTES"),
    ),
    "another datatype": (
        "expected INT64, got 'BYTES'",
        lambda: with_input(field(8, b"") * MANY, [1, MANY], "BYTES"),
    ),
    "another model": (
        "no model 'other'",
        lambda: request(None, [1]) + field(1, b"other") + field(5, b"") * 9,
    ),
    "a long name": ("beside the data", lambda: field(1, b"m" * MANY)),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_what_is_small_is_refused_before_it_is_made_anything_of(kind: str) -> None:
    more: dict[str, Any] = {"encodes": True, "columns": ("x",)} if kind == "texts" else {}
    said, body = FLOODS[kind]
    asked = Asked(body(), **more)
    assert 400 <= asked.reply.status < 500
    assert said in asked.said
    assert len(asked.said) < 1_000
    assert asked.longest_seconds < 0.25


@pytest.mark.parametrize("method", ["ModelMetadata", "ServerLive", "RepositoryIndex"])
def test_messages_without_tensors_are_short(method: str) -> None:
    asked = Asked(field(1, b"m" * MANY), method=method)
    assert asked.reply.status == 413


def test_many_numbers_are_read_in_parts_and_count_for_what_they_come_to() -> None:
    many = np.random.default_rng(0).integers(-(2**40), 2**40, MANY // 8)
    message = InferRequest(model_name="mlp")
    item = message.inputs.add(name="x", datatype="INT64", shape=[2, many.size // 2])
    item.contents.int64_contents.extend(many.tolist())
    body = message.SerializeToString()
    asked = Asked(body)
    assert (asked.tensor("<i8").reshape(-1) == many).all()
    assert asked.house.most_bytes == len(body) + many.nbytes
    assert asked.longest_seconds < 0.25


def test_what_numbers_come_to_is_more_than_can_be_held() -> None:
    size = LIMITS.queue_bytes // 8
    asked = Asked(with_input(field(3, bytes(size)), [1, size], "INT64"))
    assert (asked.reply.status, asked.longest_seconds < 0.25) == (503, True)


@pytest.mark.parametrize(
    ("datatype", "dtype", "contents"),
    [
        ("BOOL", "bool", field(1, b"\1\0") + b"\x08\1"),
        ("INT32", "i32", field(2, b"\1\0\1")),
        ("INT64", "i64", b"\x18\1\x18\0\x18\1"),
        ("UINT8", "u8", field(4, b"\1") + field(4, b"\0\1")),
        ("FP32", "f32", field(6, np.array([1, 0, 1], "<f4").tobytes())),
        ("FP64", "f64", b"".join(b"\x39" + np.float64(v).tobytes() for v in (1, 0, 1))),
    ],
)  # fmt: skip
def test_numbers_packed_or_not(datatype: str, dtype: str, contents: bytes) -> None:
    asked = Asked(
        request(contents, [1, 3], datatype), f"x: {dtype}[batch n]",
        outputs=[f"output: {dtype}[batch n]"],
    )  # fmt: skip
    assert asked.reply.status == 200, asked.said
    code = {"bool": "?", "i32": "<i4", "i64": "<i8", "u8": "u1", "f32": "<f4", "f64": "<f8"}[dtype]
    assert asked.tensor(code).tolist() == [[1, 0, 1]]


def test_a_message_whose_fields_come_in_pieces() -> None:
    """As protobuf has it: the last name counts, and contents that come twice go on."""
    own = InferRequest.Input(name="x", datatype="INT64", shape=[1, 2]).SerializeToString()
    body = field(5, field(5, b"\x18\1") + own + field(5, b"\x18\2")) + field(1, b"a")
    assert Asked(body + field(1, b"mlp")).tensor("<i8").tolist() == [[1, 2]]


def test_texts_one_by_one() -> None:
    def texts(*each: bytes) -> Asked:
        body = request(b"".join(field(8, text) for text in each), [2], "BYTES")
        return Asked(body, encodes=True, columns=("x",), outputs=["output: f32[batch]"])

    assert texts(b"a", "ä".encode()).tensor("<f4").tolist() == [0, 0]
    assert "element 1 is no UTF-8" in texts(b"a", b"\xff").said
    assert "takes 2 elements; bytes_contents has 1" in texts(b"a").said
    assert "takes 2 elements; more came" in texts(b"a", b"b", b"c").said


@pytest.mark.parametrize("contents", [field(3, b"\1\2"), b""])
def test_contents_beside_raw_contents_are_refused(contents: bytes) -> None:
    asked = Asked(request(contents, [1, 2], "INT64", bytes(16)))
    assert asked.reply.status == 400
    assert "has `contents`, and raw_input_contents are there, too" in asked.said
