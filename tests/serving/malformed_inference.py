"""Requests for `POST /v2/models/{name}/infer` that no model may take, by the hundred.

`CLASSES` has a function a class: `make(chance, about) -> (body, headers)`. Each makes a request
that is right, with JSON and binary inputs mixed, and then one thing wrong.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from malformed import places

from forwardpass.nouns.signatures import Signature
from forwardpass.serving.inference_tensors import DATATYPES, NUMBERS
from forwardpass.serving.messages import About

LENGTH = b"inference-header-content-length"
Request = tuple[bytes, dict[bytes, bytes]]
Make = Callable[[random.Random, About], Request]
CLASSES: dict[str, Make] = {}


def malformed(make: Make) -> Make:
    CLASSES[make.__name__] = make
    return make


def right(chance: random.Random, about: About) -> tuple[dict[str, Any], list[bytes]]:
    """The JSON of a request that the model takes, and the binary data of its inputs."""
    rows = chance.randint(1, 3)
    inputs: list[dict[str, Any]] = []
    pieces: list[bytes] = []

    def add(name: str, datatype: str, shape: list[int], data: list[Any], piece: bytes) -> None:
        tensor: dict[str, Any] = {"name": name, "shape": shape, "datatype": datatype}
        if datatype == "BF16" or chance.random() < 0.7:
            tensor["parameters"] = {"binary_data_size": len(piece)}
            pieces.append(piece)
        else:
            tensor["data"] = data
        inputs.append(tensor)

    if about.encodes:
        for name in about.columns:
            texts = [chance.choice(["a", "text", "äöü", ""]) for _ in range(rows)]
            packed = [struct.pack("<I", len(t.encode())) + t.encode() for t in texts]
            add(name, "BYTES", [rows], [*texts], b"".join(packed))
    else:
        signature = Signature.parse(about.inputs)
        for item in signature.given:
            sizes = [
                signature.variable[axis.name].rounded(1) if axis.is_variable else axis.size
                for axis in item.row_axes
            ]
            shape = [rows, *sizes]
            dtype = NUMBERS[DATATYPES[item.dtype]]
            array = np.array(chance.choices([0, 1], k=int(np.prod(shape))), dtype)
            add(item.path, DATATYPES[item.dtype], shape, array.tolist(), array.tobytes())
    body: dict[str, Any] = {"inputs": inputs, "id": "right", "parameters": {"timeout": 10**7}}
    if about.outputs:
        body["outputs"] = [{"name": about.outputs[0].split(":")[0], "parameters": {}}]
    return body, pieces


def sent(body: Any, pieces: list[bytes]) -> Request:
    head = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head + b"".join(pieces), {LENGTH: b"%d" % len(head)}


def one(chance: random.Random, body: dict[str, Any], kind: str | None = None) -> dict[str, Any]:
    """Any of the inputs; where `kind` says so, "binary" or "json", one whose data are that."""
    inputs = body["inputs"]
    if kind is not None:
        inputs = [i for i in inputs if ("data" in i) == (kind == "json")] or inputs
    return chance.choice(inputs)


@malformed
def lying_header_lengths(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    whole, headers = sent(body, pieces)
    size = int(headers[LENGTH])
    wrong = [
        b"%d" % n for n in (-1, 1, size - 1, len(whole) + 1, 2**31, 2**64, chance.randrange(size))
    ]
    wrong += [b"+%d" % size, b"%d.0" % size, b"0x%x" % size, b"", b"all", b"9" * 5_000, b"\xb2"]
    wrong += [b"%d, %d" % (size, size), b"-%d" % size]
    return whole, {LENGTH: chance.choice(wrong)}


@malformed
def overflowing_shapes(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    shape = one(chance, body)["shape"]
    large = [2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 2**64 + shape[0], 10**30, 10**4_000]
    shape[chance.randrange(len(shape))] = chance.choice([*large, -1, -(2**63), -(2**64), 65_536])
    return sent(body, pieces)


@malformed
def other_shapes(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    tensor = one(chance, body)
    shape = tensor["shape"]
    shape[0] += 1
    tensor["shape"] = chance.choice(
        [
            [], [*shape, *shape], shape, [*map(str, shape)], [*map(float, shape)], {"0": 1},
            [True, *shape[1:]], [0, *shape[1:]], [shape], [None], shape[0], "1", [1] * 100,
            [[], *shape], [0.5, *shape[1:]],
        ]
    )  # fmt: skip
    return sent(body, pieces)


@malformed
def other_datatypes(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    tensor = one(chance, body)
    was = tensor["datatype"]
    odd: list[Any] = [
        *NUMBERS,
        "BYTES",
        "UINT16",
        "UINT64",
        "FP8",
        "",
        was.lower(),
        was + " ",
        1,
        None,
    ]
    tensor["datatype"] = chance.choice([name for name in [*odd, "x" * 9_999, []] if name != was])
    return sent(body, pieces)


@malformed
def other_sizes(chance: random.Random, about: About) -> Request:
    """binary_data_size is not that of the tensor, or no size; or there are more or fewer bytes."""
    body, pieces = right(chance, about)
    tensor = one(chance, body, "binary")
    size = tensor.get("parameters", {}).get("binary_data_size", 0)
    how = chance.randrange(3)
    if how == 0 and any(pieces):
        pieces[-1] = pieces[-1][:-1] if pieces[-1] else b"abc"
    elif how == 1:
        pieces.append(bytes(chance.randint(1, 9)))
    else:
        odd: list[Any] = [
            size + 1,
            size - 1,
            size + 4,
            2**31,
            2**63,
            2**64,
            10**40,
            -size - 1,
            True,
        ]
        odd += [f"{size}", size + 0.5, None, [size], {}]
        tensor["parameters"] = {"binary_data_size": chance.choice(odd)}
    return sent(body, pieces)


@malformed
def truncated(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    whole, headers = sent(body, pieces)
    if len(whole) > int(headers[LENGTH]) and chance.random() < 0.2:
        return whole, {}
    return whole[: chance.randrange(len(whole))], chance.choice([headers, {}])


@malformed
def lying_elements(chance: random.Random, about: About) -> Request:
    """Bytes that are no elements of the datatype: lengths of texts that lie, and no UTF-8; bools
    that are neither; numbers of JSON beyond the type or of another kind."""
    body, pieces = right(chance, about)
    tensor = one(chance, body)
    datatype, count = tensor["datatype"], int(np.prod(tensor["shape"]))
    if datatype == "BYTES":
        good = [struct.pack("<I", 2) + b"ab"] * count
        bad = chance.choice(
            [
                struct.pack("<I", 2**32 - 1) + b"ab", struct.pack("<I", 3) + b"ab", b"\x02\x00\x00",
                struct.pack("<I", 1) + b"ab", struct.pack("<I", 2) + b"\xff\xfe", b"", b"ab" * 9,
                struct.pack("<I", 2) + b"abcd", bytes(8), struct.pack(">I", 2) + b"ab",
            ]
        )  # fmt: skip
        piece = b"".join([*good[1:], bad])
    elif datatype == "BOOL":
        piece = bytes([chance.randint(2, 255)] * count)
    else:
        odd: list[Any] = ["1", True, {}, None, [[]]]
        odd += [1e300, 1e39] if datatype in ("FP16", "FP32") else []
        odd += [1.5, 2**63, -(2**63) - 1, 10**30] if "INT" in datatype else [10**400]
        data: list[Any] = [1] * count
        data[chance.randrange(count)] = chance.choice(odd)
        tensor["data"] = chance.choice(
            [data, data, data, [data, [1]], [[data]], {}, "a", [1] * (count + 1)]
        )
        if tensor.pop("parameters", None) is None:
            return sent(body, pieces)
        return sent(body, [])
    tensor.pop("data", None)
    others = [item for item in body["inputs"] if item is not tensor]
    body["inputs"] = [tensor]
    tensor["parameters"] = {"binary_data_size": len(piece)}
    return sent({**body, "inputs": [tensor, *[o for o in others if "data" in o]]}, [piece])


@malformed
def other_names(chance: random.Random, about: About) -> Request:
    """An input is missing, unknown or there twice; an output is unknown."""
    body, pieces = right(chance, about)
    tensor = one(chance, body)
    name = chance.choice(
        [tensor["name"] + "s", "", "ä\0", "x" * 9_999, None, 1, tensor["name"].upper()]
    )
    how = chance.randrange(3 if about.encodes else 4)  # encode knows which columns it needs
    if how == 0:
        tensor["name"] = name
    elif how == 1:
        body["inputs"].append(tensor)
        pieces += pieces
    elif how == 2:
        body["outputs"] = [{"name": name}]
    else:
        body["inputs"] = [item for item in body["inputs"] if item is not tensor]
        if not body["inputs"]:
            body.pop("inputs")
    return sent(body, pieces)


@malformed
def other_parameters(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    numbers: list[Any] = [-1, 1.5, "1", True, None, [], {}, 2**64, 10**400]
    how = chance.randrange(4)
    if how == 0:
        body["parameters"] = {chance.choice(["timeout", "priority"]): chance.choice(numbers)}
    elif how == 1:
        body["parameters"] = chance.choice(
            [
                {"sequence_id": 1}, {"sequence_id": "a"}, {"sequence_start": True}, [], None, 1,
                "a", {"sequence_end": True}, {"binary_data_output": 1},
                {"binary_data_output": None},
            ]
        )  # fmt: skip
    elif how == 2:
        odd: list[Any] = [{"classification": n} for n in numbers if n not in (2**64, 10**400)]
        odd += [{"binary_data": "true"}, {"shared_memory_region": "a"}, [], 1]
        name = about.outputs[0].split(":")[0]
        body["outputs"] = [{"name": name, "parameters": chance.choice(odd)}]
    else:
        one(chance, body)["parameters"] = chance.choice(
            [{"shared_memory_region": "a", "shared_memory_byte_size": 4}, None, [], 1, "a"]
        )
    return sent(body, pieces)


@malformed
def nulls(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    container, key = chance.choice([*places(body)])
    container[key] = None
    return sent(body, pieces)


@malformed
def nested_deeply(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    depth = chance.choice([1_100, 5_000, 100_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    bomb = opening * depth + b"1" + closing * chance.choice([depth, depth - 1, 0])
    container, key = chance.choice([*places(body), (body["parameters"], "mine"), (body, "mine")])
    container[key] = "BOMB"
    return sent(json.dumps(body).encode().replace(b'"BOMB"', bomb), pieces)


@malformed
def not_utf8(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    body["mine"] = body["parameters"]["mine"] = "anything"
    head = json.dumps(body).encode()
    at = chance.randrange(len(head))
    odd = chance.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"])
    return sent(head[:at] + odd + head[at:], pieces)


@malformed
def not_json(chance: random.Random, about: About) -> Request:
    body, pieces = right(chance, about)
    head = json.dumps(body).encode()
    wrong = [
        head.replace(b"[", b"[NaN,", 1), head.replace(b"[", b"[-Infinity,", 1),
        head.replace(b'"', b"'"), head.replace(b"]", b",]", 1), head + b"}", b"\xef\xbb\xbf" + head,
        head.decode().encode("utf-16"), b"// rows\n" + head, b"rows=" + head, head[1:], b"", b"{",
        head.replace(b":", b"=", 1), head + head, bytes(chance.randrange(256) for _ in range(40)),
        b"null", b"[]", b"1", b'"a"', b"{}",
    ]  # fmt: skip
    return sent(chance.choice(wrong), pieces)
