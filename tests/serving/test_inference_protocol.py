"""The Open Inference Protocol, by its bytes."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from standing_in import StandIn, about, answered, options, replied

from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.exchanges import RefusedError, Reply
from forwardpass.serving.gauges import Gauges
from forwardpass.serving.protocols import inference

LENGTH = b"inference-header-content-length"


def doubled(asked: Inquiry) -> Answered:
    """The first input twice itself."""
    assert asked.arrays is not None
    assert not asked.decoded
    value = np.asarray(next(iter(asked.arrays.values())))
    return Answered([], {"output": value + value}, [])


def service(
    *inputs: str, output: str = "output: f32[batch 4]",
    answer: Callable[[Inquiry], Answered] = doubled
) -> StandIn:  # fmt: skip
    return StandIn(about(*(inputs or ("x: f32[batch 4]",)), outputs=[output]), answer)


def binary(array: np.ndarray[Any, Any], datatype: str, name: str = "x") -> tuple[bytes, int]:
    """A request that asks for all as binary data, and the length of its JSON."""
    data = array.tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": name, "shape": array.shape, "datatype": datatype,
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    ).encode()  # fmt: skip
    return head + data, len(head)


def asked(served: StandIn, body: Any, headers: Mapping[bytes, bytes] | None = None) -> Any:
    return answered(inference, [served], "POST", "/v2/models/mlp/infer", body, headers)


def joined(reply: Reply) -> bytes:
    return b"".join(reply.body) if isinstance(reply.body, list) else reply.body


def tensor(**given: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4], **given}


def test_the_bytes_of_a_binary_request_and_its_reply() -> None:
    served = service()
    array = np.array([[1, 2, 3, np.nan], [np.inf, 0, -1, 0.5]], "<f4")
    body, size = binary(array, "FP32")
    reply = replied(
        inference, [served], "POST", "/v2/models/mlp/infer", body, {LENGTH: b"%d" % size}
    )
    head = (
        b'{"model_name":"mlp","model_version":"1","outputs":[{"name":"output","datatype":"FP32",'
        b'"shape":[2,4],"parameters":{"binary_data_size":32}}]}'
    )
    assert joined(reply) == head + (array + array).tobytes()
    assert reply.headers == [(LENGTH, b"%d" % len(head))]
    assert (reply.status, reply.type) == (200, b"application/octet-stream")


def test_binary_data_are_not_copied_before_the_channel() -> None:
    served = service()
    body, size = binary(np.ones((3, 4), "<f4"), "FP32")
    asked_for = replied(
        inference, [served], "POST", "/v2/models/mlp/infer", body, {LENGTH: b"%d" % size}
    )
    assert asked_for.status == 200
    (inquiry,) = served.asked
    assert inquiry.arrays is not None
    assert np.shares_memory(np.asarray(inquiry.arrays["x"]), np.frombuffer(body, np.uint8))
    assert (inquiry.count, inquiry.bytes) == (3, 48)


def test_json_in_and_out_with_an_id() -> None:
    status, reply = asked(service(), {"id": "a7", "inputs": [tensor()]})
    assert status == 200
    assert reply == {
        "id": "a7", "model_name": "mlp", "model_version": "1",
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [1, 4], "data": [2, 4, 6, 8]}],
    }  # fmt: skip
    nested = tensor(shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7, 8]])
    status, reply = asked(service(), {"inputs": [nested]})
    assert reply["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12, 14, 16]


@pytest.mark.parametrize(
    ("dtype", "datatype", "numpy"),
    [
        ("f64", "FP64", "<f8"), ("f32", "FP32", "<f4"), ("f16", "FP16", "<f2"),
        ("i64", "INT64", "<i8"), ("i32", "INT32", "<i4"), ("i16", "INT16", "<i2"),
        ("i8", "INT8", "<i1"), ("u8", "UINT8", "<u1"), ("bool", "BOOL", "|b1"),
    ],
)  # fmt: skip
def test_every_datatype_both_ways(dtype: str, datatype: str, numpy: str) -> None:
    served = service(f"x: {dtype}[batch 4]", output=f"output: {dtype}[batch 4]")
    array = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], numpy)
    body, size = binary(array, datatype)
    reply = replied(
        inference, [served], "POST", "/v2/models/mlp/infer", body, {LENGTH: b"%d" % size}
    )
    assert reply.body[1] == (array + array).tobytes()
    plain = tensor(shape=[2, 4], datatype=datatype, data=array.ravel().tolist())
    status, told = asked(served, {"inputs": [plain]})
    assert status == 200
    assert told["outputs"][0] == {
        "name": "output", "datatype": datatype, "shape": [2, 4],
        "data": (array + array).ravel().tolist(),
    }  # fmt: skip


def test_bf16_is_the_upper_half_of_a_float32_and_binary_alone() -> None:
    served = service("x: bf16[batch 4]", output="output: bf16[batch 4]")
    array = np.array([[1.5, -2.0, 0.0078125, 3.0]], "<f4")
    halves = array.view("<u2")[:, 1::2].copy()
    body, size = binary(halves, "BF16")
    reply = replied(
        inference, [served], "POST", "/v2/models/mlp/infer", body, {LENGTH: b"%d" % size}
    )
    assert reply.body[1] == (array + array).view("<u2")[:, 1::2].tobytes()
    status, told = asked(served, {"inputs": [tensor(datatype="BF16")]})
    assert (status, told["error"]) == (
        400, "input 'x': BF16 has no form in JSON: send it as binary data",
    )  # fmt: skip


def test_json_and_binary_mixed_in_their_order() -> None:
    def answer(asked: Inquiry) -> Answered:
        assert asked.arrays is not None
        a, b, c = (np.asarray(asked.arrays[name]) for name in "abc")
        return Answered([], {"a": a, "b": b, "c": c}, [])

    spec = about(
        *(f"{name}: i32[batch]" for name in "abc"),
        outputs=[f"{name}: i32[batch]" for name in "abc"],
    )
    served = StandIn(spec, answer)
    inputs = [
        {"name": "c", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 4}},
        {"name": "b", "shape": [1], "datatype": "INT32", "data": [2]},
        {"name": "a", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 4}},
    ]
    outputs = [
        {"name": "b", "parameters": {"binary_data": True}},
        {"name": "c", "parameters": {"binary_data": False}},
        {"name": "a"},
    ]
    head = json.dumps(
        {"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}}
    ).encode()
    reply = replied(
        inference, [served], "POST", "/v2/models/mlp/infer", head + struct.pack("<ii", 3, 1),
        {LENGTH: b"%d" % len(head)},
    )  # fmt: skip
    told = json.loads(bytes(reply.body[0]))["outputs"]
    assert [output["name"] for output in told] == ["b", "c", "a"]
    assert told[1]["data"] == [3]
    assert joined(reply).endswith(b"}]}" + struct.pack("<ii", 2, 1))


@pytest.mark.parametrize(
    ("coding", "pack", "unpack"),
    [
        (b"gzip", gzip.compress, gzip.decompress),
        (b"deflate", zlib.compress, zlib.decompress),
    ],
)
def test_lengths_are_those_of_what_is_decompressed(
    coding: bytes, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]
) -> None:
    body, size = binary(np.ones((2, 4), "<f4"), "FP32")
    headers = {LENGTH: b"%d" % size, b"content-encoding": coding, b"accept-encoding": coding}
    path = "/v2/models/mlp/infer"
    reply = replied(inference, [service()], "POST", path, pack(body), headers)
    assert (b"content-encoding", coding) in reply.headers
    whole = unpack(joined(reply))
    length = int(dict(reply.headers)[LENGTH])
    assert whole[length:] == np.full((2, 4), 2, "<f4").tobytes()
    assert json.loads(whole[:length])["model_name"] == "mlp"


def test_the_header_may_be_the_whole_body() -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()
    status, reply = asked(service(), body, {LENGTH: b"%d" % len(body)})
    assert (status, reply["outputs"][0]["shape"]) == (200, [1, 4])


def test_texts_for_the_encode_of_a_model() -> None:
    spec = about(
        "ids: i64[batch tokens=1..8] pad 0", encodes=True, columns=("text", "pair"),
        outputs=["output: f32[batch 2]"],
    )  # fmt: skip
    served = StandIn(spec, lambda asked: Answered([], {"output": np.zeros((2, 2), "f4")}, []))
    data = b"".join(struct.pack("<I", len(t)) + t for t in (b"a", "ä".encode()))
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "text", "shape": [2, 1], "datatype": "BYTES",
                    "parameters": {"binary_data_size": len(data)},
                },
                {"name": "pair", "shape": [2], "datatype": "BYTES", "data": ["", "b"]},
            ]
        }
    ).encode()  # fmt: skip
    status, _ = asked(served, head + data, {LENGTH: b"%d" % len(head)})
    assert status == 200
    (inquiry,) = served.asked
    assert inquiry.values == [{"text": "a", "pair": ""}, {"text": "ä", "pair": "b"}]
    assert inquiry.arrays is None
    # The same model takes what its encode would give.
    ids = {"name": "ids", "shape": [2, 3], "datatype": "INT64", "data": [1, 2, 3, 4, 5, 6]}
    assert asked(served, {"inputs": [ids]})[0] == 200
    arrays = served.asked[1].arrays
    assert arrays is not None
    assert np.asarray(arrays["ids"]).tolist() == [[1, 2, 3], [4, 5, 6]]


def test_the_largest_classes_of_an_output() -> None:
    def answer(asked: Inquiry) -> Answered:
        return Answered([], {"output": np.array([[0.1, 0.7, 0.7, np.nan], [5, 1, 2, 3]], "f4")}, [])

    served = service(answer=answer)
    outputs = [{"name": "output", "parameters": {"classification": 2}}]
    request = {"inputs": [tensor(shape=[2, 4], data=[0] * 8)], "outputs": outputs}
    status, reply = asked(served, request)
    assert status == 200
    assert reply["outputs"][0] == {
        "name": "output", "datatype": "BYTES", "shape": [2, 2],
        "data": ["0.700000:1", "0.700000:2", "5.000000:0", "3.000000:3"],
    }  # fmt: skip
    outputs[0]["parameters"] = {"classification": 9, "binary_data": True}
    reply = replied(
        inference, [served], "POST", "/v2/models/mlp/infer", json.dumps(request).encode()
    )
    head = json.loads(bytes(reply.body[0]))["outputs"][0]
    assert (head["shape"], head["datatype"]) == ([2, 4], "BYTES")
    first = struct.pack("<I", 10) + b"0.700000:1"
    assert bytes(reply.body[1])[: len(first)] == first


def test_timeout_priority_and_unknown_parameters() -> None:
    served = service()
    parameters = {"timeout": 250_000.0, "priority": 3, "mine": {"a": [1]}}
    assert asked(served, {"inputs": [tensor()], "parameters": parameters, "more": 1})[0] == 200
    assert asked(served, {"inputs": [tensor()], "parameters": {"priority": 0}})[0] == 200
    assert [(i.timeout_seconds, i.priority) for i in served.asked] == [(0.25, -2), (None, 0)]


def test_metadata_and_config_agree_on_the_batch() -> None:
    served = StandIn(
        about(
            "ids: i64[batch tokens=1..128] pad 0",
            "mask: i64[batch tokens] = valid(tokens)",
            "more?: f32[7 batch]",
            outputs=["hidden: f32[batch tokens 384]", "time: f32[9 batch]"],
        )
    )
    status, told = answered(inference, [served], "GET", "/v2/models/mlp")
    assert (status, told["versions"]) == (200, ["1"])
    assert told["inputs"] == [
        {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "more", "datatype": "FP32", "shape": [-1, 7]},
    ]
    assert told["outputs"] == [
        {"name": "hidden", "datatype": "FP32", "shape": [-1, -1, 384]},
        {"name": "time", "datatype": "FP32", "shape": [-1, 9]},
    ]
    status, told = answered(inference, [served], "GET", "/v2/models/mlp/versions/1/config")
    assert told["max_batch_size"] > 0
    assert told["input"][1] == {
        "name": "more", "data_type": "TYPE_FP32", "dims": [7], "optional": True,
    }  # fmt: skip
    text = StandIn(about(encodes=True, tensors=False, columns=("text",), outputs=[]))
    status, told = answered(inference, [text], "GET", "/v2/models/mlp")
    assert told["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]


def test_what_is_there_and_what_is_not() -> None:
    loading = StandIn(None)
    for path in ("/v2/models/mlp", "/v2/models/mlp/ready", "/v2/health/ready"):
        assert answered(inference, [loading], "GET", path)[0] == 400, path
    assert asked(loading, {"inputs": [tensor()]})[0] == 400
    assert answered(inference, [loading], "GET", "/v2/health/live")[0] == 200
    index = answered(inference, [loading, service()], "POST", "/v2/repository/index")
    assert [(m["name"], m["state"]) for m in index[1]] == [("mlp", "READY")]
    index = answered(inference, [loading], "POST", "/v2/repository/index", {"ready": True})
    assert index == (200, [])
    assert answered(inference, [loading], "POST", "/v2/repository/index", b"[")[0] == 400
    status, told = answered(inference, [service()], "GET", "/v2/models/mpl")
    assert (status, "did you mean 'mlp'?" in told["error"]) == (404, True)
    assert answered(inference, [service()], "GET", "/v2/models/mlp/versions/2")[0] == 404
    assert answered(inference, [service()], "GET", "/v2/models/mlp/versions/1/ready")[0] == 200
    assert answered(inference, [service()], "POST", "/v2/repository/models/mlp/unload")[0] == 403


REFUSED: list[tuple[Any, str]] = [
    ({"inputs": [tensor(data=[1, 2, 3])]}, "expected [1, 4], got [3]"),
    ({"inputs": [tensor(data=[1, 2, 3, 1e39])]}, "beyond the largest FP32"),
    ({"inputs": [tensor(data=[[1, 2], [3, 4]])]}, "expected [1, 4], got [2, 2]"),
    ({"inputs": [tensor(data=[[1, 2, 3], [4]])]}, "data: "),
    ({"inputs": [tensor(data="abcd")]}, "expected a list"),
    ({"inputs": [tensor(data=[True, 1, 2, 3])]}, "got `bool`"),
    ({"inputs": [tensor(data=None)]}, "expected a list"),
    ({"inputs": [tensor(shape=[1, 5])]}, "`x: FP32[batch, 4]`: got the shape [1, 5]"),
    ({"inputs": [tensor(shape=[4])]}, "the first axis is the batch"),
    ({"inputs": [tensor(shape=[-1, 4])]}, "$.inputs[0].shape[0]"),
    ({"inputs": [tensor(shape=[0, 4], data=[])]}, "0 rows"),
    ({"inputs": [tensor(shape=[True, 4])]}, "got `bool`"),
    ({"inputs": [tensor(shape=[2**62, 2**62])]}, "got the shape"),
    ({"inputs": [tensor(shape=[int("9" * 300), 4])]}, "not the JSON"),
    ({"inputs": [tensor(datatype="FP64")]}, "expected FP32, got 'FP64'"),
    ({"inputs": [tensor(datatype="BYTES")]}, "expected FP32, got 'BYTES'"),
    ({"inputs": [tensor(name="z")]}, "known: x"),
    ({"inputs": [tensor(), tensor()]}, "there twice"),
    ({"inputs": []}, "`x: FP32[batch, 4]` is not there"),
    ({"inputs": None}, "got `null`"),
    ({"inputs": [tensor()], "id": None}, "got `null`"),
    ({"inputs": [tensor()], "outputs": [{"name": "outputs"}]}, "did you mean 'output'?"),
    ({"inputs": [tensor()], "outputs": [{"name": "output"}] * 2}, "asked for twice"),
    ({"inputs": [tensor()], "parameters": {"sequence_id": 7}}, "sequences are not served"),
    ({"inputs": [tensor()], "parameters": {"timeout": -1}}, "expected microseconds"),
    ({"inputs": [tensor()], "parameters": {"timeout": True}}, "expected microseconds"),
    ({"inputs": [tensor()], "parameters": {"priority": "1"}}, "priority"),
    ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "true or false"),
    ({"inputs": [tensor(parameters={"shared_memory_region": "a"})]}, "shared memory"),
    ({"inputs": [tensor(parameters={"binary_data_size": 16})]}, "both `data` and"),
    ({"inputs": [{**tensor(), "data": []}]}, "got [0]"),
    (b"", "not the JSON"),
    (b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[NaN,1,2,3]}]}', "JSON"),
    (b'{"inputs":[],"u":"\xff"}', "utf-8"),
    (b'{"inputs":[],"u":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
]


@pytest.mark.parametrize(("body", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_and_why(body: Any, said: str) -> None:
    served = service()
    status, told = asked(served, body)
    assert status == 400
    assert said in told["error"]
    assert not served.asked


def test_numbers_that_json_cannot_hold_are_refused_and_not_changed() -> None:
    served = service(answer=lambda asked: Answered([], {"output": np.full((1, 4), np.inf)}, []))
    status, told = asked(served, {"inputs": [tensor()]})
    assert (status, "binary_data: true" in told["error"]) == (400, True)


def test_rows_of_several_shapes_are_no_tensor() -> None:
    ragged = [np.zeros((1, 2), "f4"), np.zeros((3, 2), "f4")]
    served = service(
        output="output: f32[batch 2]",
        answer=lambda asked: Answered([], {"output": ragged, "other": np.zeros((2, 1))}, []),
    )
    status, told = asked(served, {"inputs": [tensor(shape=[2, 4], data=[0] * 8)]})
    assert status == 400
    assert "one row at a time, or only for other" in told["error"]


def test_axes_that_vary_have_one_size_in_all_inputs() -> None:
    served = service("ids: i64[batch t=2..8%2] pad 0", "kinds: i64[batch t] pad 0")

    def sent(a: int, b: int) -> Any:
        return asked(
            served,
            {
                "inputs": [
                    {"name": "ids", "shape": [1, a], "datatype": "INT64", "data": [1] * a},
                    {"name": "kinds", "shape": [1, b], "datatype": "INT64", "data": [1] * b},
                ]
            },
        )

    assert sent(3, 3)[0] == 200
    assert "is 4 here and 3 in another" in sent(3, 4)[1]["error"]
    assert "cannot be 9" in sent(9, 9)[1]["error"]
    fixed = service("ids: i64[batch t=2..8%2]")
    odd = {"name": "ids", "shape": [1, 3], "datatype": "INT64", "data": [1] * 3}
    assert "cannot be 3" in asked(fixed, {"inputs": [odd]})[1]["error"]


def test_complex_numbers_are_not_of_this_protocol() -> None:
    status, told = asked(service("x: c64[batch 4]"), {"inputs": [tensor()]})
    assert (status, "no c64; ask at POST /models/" in told["error"]) == (400, True)
    both = StandIn(about("x: f32[batch 4]", outputs=["y: f32[batch 4]", "z: c64[batch 4]"]))
    row = np.ones((1, 4))
    both._answer = lambda inquiry: Answered((), {"y": row, "z": row * 1j}, [])
    status, told = asked(both, {"inputs": [tensor()]})
    assert (status, [output["name"] for output in told["outputs"]]) == (200, ["y"])
    assert asked(both, {"inputs": [tensor()], "outputs": [{"name": "y"}]})[0] == 200
    status, told = asked(both, {"inputs": [tensor()], "outputs": [{"name": "z"}]})
    assert (status, "`z: c64[batch 4]`: this protocol has no" in told["error"]) == (400, True)


def test_a_model_may_be_called_as_a_path_is() -> None:
    served = service()
    served.name = "stats"
    body = {"inputs": [tensor()]}
    for version in ("", "/versions/1"):
        path = f"/v2/models/stats{version}"
        assert answered(inference, [served], "POST", f"{path}/infer", body)[0] == 200
        assert answered(inference, [served], "GET", f"{path}/ready")[1]["name"] == "stats"
    assert answered(inference, [served], "GET", "/v2/models/stats/versions/1")[1]["inputs"]
    assert "model_stats" in answered(inference, [served], "GET", "/v2/models/stats")[1]
    told = inference.paths({"stats": served}, options())
    assert told["/v2/models/stats"] == inference.paths({}, options())["/v2/models/stats"]
    assert "post" in told["/v2/models/stats/infer"]


def test_inputs_are_in_the_order_of_the_model_whatever_that_of_a_client() -> None:
    served = service("x: f32[batch 4]", "z: f32[batch 4]")
    told = [tensor(data=[1, 1, 1, 1]), tensor(name="z", data=[2, 2, 2, 2])]
    for inputs in (told, told[::-1]):
        assert asked(served, {"inputs": inputs})[0] == 200
    for inquiry in served.asked:
        assert inquiry.arrays is not None
        assert [(name, np.max(value)) for name, value in inquiry.arrays.items()] == [
            ("x", 1), ("z", 2),
        ]  # fmt: skip


def test_other_parameters_are_let_pass_and_not_read() -> None:
    served = service()
    others = {f"p{number}": [] for number in range(200_000)}
    sent = {"inputs": [tensor(parameters={"a": others})], "parameters": {**others, "timeout": 5}}
    header = json.dumps(sent).encode()
    tracemalloc.start()
    try:
        assert asked(served, header)[0] == 200
        assert tracemalloc.get_traced_memory()[1] < 2 * len(header)
    finally:
        tracemalloc.stop()
    (inquiry,) = served.asked
    assert inquiry.timeout_seconds == 5e-6


def test_statistics_are_those_of_the_metrics() -> None:
    name = "a model that only this test counts"
    gauges = Gauges(name)
    gauges.request.observe(0.25)
    gauges.queue.observe(0.125)
    gauges.dispatched("full", 3, 3, 4)
    gauges.answered.inc(3)
    gauges.refused(RefusedError(429, "the queue is full", reason="full"))
    gauges.refused(RefusedError(503, "it would be late", reason="late"))
    served = service()
    served.name = name
    status, told = answered(inference, [served], "GET", "/v2/models/stats")
    (stats,) = told["model_stats"]
    assert (status, stats["inference_count"], stats["execution_count"]) == (200, 3, 1)
    assert stats["inference_stats"]["success"] == {"count": 1, "ns": 250_000_000}
    assert stats["inference_stats"]["queue"] == {"count": 1, "ns": 125_000_000}
    assert stats["inference_stats"]["compute_infer"] == {"count": 0, "ns": 0}
    assert stats["inference_stats"]["fail"]["count"] == 2
