"""Bodies for `POST /models/{name}` that no model may take, by the hundred, from its signature.

`CLASSES` has a function a class: `make(chance, about) -> body`. Each makes a body that is right,
and then one thing wrong. What concerns framing and headers is not made here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.serving.messages import About
from forwardpass.tensors.arrays import NUMPY

Make = Callable[[random.Random, About], bytes]
CLASSES: dict[str, Make] = {}
Place = tuple[Any, Any]
"""A container, and the key or index in it."""


def malformed(make: Make) -> Make:
    CLASSES[make.__name__] = make
    return make


def row(chance: random.Random, signature: Signature) -> dict[str, Any]:
    """A row that the signature takes."""
    sizes = {
        name: axis.multiple * max(1, -(-axis.low // axis.multiple))
        for name, axis in signature.variable.items()
    }

    def nested(item: Input, axes: tuple[Axis, ...]) -> Any:
        if axes:
            size = sizes[axes[0].name] if axes[0].is_variable else axes[0].size
            return [nested(item, axes[1:]) for _ in range(size)]
        kind = NUMPY[item.dtype].kind
        if kind == "c":
            return [chance.random(), chance.random()]
        return chance.random() if kind == "f" else kind == "b" or chance.randrange(40)

    return {item.path: nested(item, item.row_axes) for item in signature.given}


def right(chance: random.Random, about: About) -> dict[str, Any]:
    """A body that the model takes."""
    signature = Signature.parse(about.inputs)
    if about.encodes:
        return {"rows": ["a text", {"text": "another, äöü"}, "and one more"]}
    return {"rows": [row(chance, signature) for _ in range(chance.randint(1, 3))]}


def places(value: Any) -> Iterator[Place]:
    """Each place in a body, its root last."""
    items: Any = ()
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
    elif isinstance(value, list):
        items = enumerate(cast("list[Any]", value))
    for key, one in items:
        yield from places(one)
        yield value, key


def leaves(body: Any) -> list[Place]:
    """Where numbers of rows stand."""
    return [
        (container, key)
        for container, key in places(body["rows"])
        if not isinstance(container[key], list | dict)
    ]


def lists(body: Any) -> list[list[Any]]:
    """The lists of the rows, which have a size to keep."""
    return [
        container[key]
        for container, key in places(body["rows"])
        if isinstance(container[key], list)
    ]


def encoded(body: Any) -> bytes:
    return msgspec.json.encode(body)


@malformed
def not_json(chance: random.Random, about: About) -> bytes:
    body = encoded(right(chance, about))
    wrong = [
        body.replace(b"[", b"[NaN,", 1), body.replace(b"[", b"[-Infinity,", 1),
        body.replace(b'"', b"'"), body.replace(b"]", b",]", 1), body + b"}", b"\xef\xbb\xbf" + body,
        body.decode().encode("utf-16"), b"// rows\n" + body, b"rows=" + body, body[1:], b"", b"{",
        body.replace(b":", b"=", 1), body + body, bytes(chance.randrange(256) for _ in range(40)),
    ]  # fmt: skip
    return chance.choice(wrong)


@malformed
def truncated(chance: random.Random, about: About) -> bytes:
    body = encoded(right(chance, about))
    return body[: chance.randrange(len(body))]


@malformed
def not_utf8(chance: random.Random, about: About) -> bytes:
    body = encoded(right(chance, about))
    at = chance.randrange(len(body))
    odd = chance.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80"])
    return body[:at] + odd + body[at:]


@malformed
def nested_deeply(chance: random.Random, about: About) -> bytes:
    body = right(chance, about)
    depth = chance.choice([129, 200, 900, 1_100, 5_000, 100_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    bomb = opening * depth + b"1" + closing * chance.choice([depth, depth, depth - 1, 0])
    container, key = chance.choice([*places(body)])
    container[key] = "BOMB"
    return encoded(body).replace(b'"BOMB"', bomb) if chance.random() < 0.9 else bomb


@malformed
def nulls(chance: random.Random, about: About) -> bytes:
    body = right(chance, about)
    container, key = (body, "rows") if about.encodes else chance.choice([*places(body)])
    container[key] = None
    return encoded(body)


@malformed
def other_kinds(chance: random.Random, about: About) -> bytes:
    """A number is text, a boolean, an object, or a list; the rows are no list."""
    body = right(chance, about)
    if about.encodes or chance.random() < 0.1:
        body["rows"] = chance.choice(["a", 1, True, {}, {"0": 1}, 1.5])
        return encoded(body)
    container, key = chance.choice(leaves(body))
    was = container[key]
    others: list[Any] = ["1", "", {}, {"a": 1}, [], [[]]]
    others += [1, 0] if isinstance(was, bool) else [True, False]
    others += [] if isinstance(was, float) else [1.5, 1e300, -0.5]
    container[key] = chance.choice(others)
    return encoded(body)


@malformed
def other_sizes(chance: random.Random, about: About) -> bytes:
    """A list of a fixed size has one more, one less, none, or a thousand more."""
    body = right(chance, about)
    fixed = [one for one in lists(body) if one]
    if about.encodes or not fixed:
        return encoded(body["rows"])
    one = chance.choice(fixed)
    how = chance.randrange(4)
    if how == 0:
        one += one[:1] * 100_000
    elif how == 1:
        one.clear()
    elif how == 2:
        one[:] = [one[:]]
    else:
        one.append([one[0]])
    return encoded(body)


@malformed
def out_of_range(chance: random.Random, about: About) -> bytes:
    body = right(chance, about)
    large = chance.choice([b"1e400", b"-1e400", b"9" * 400, b"-" + b"9" * 5_000, b"1e99999"])
    container, key = (body["rows"], 0) if about.encodes else chance.choice(leaves(body))
    if not about.encodes and isinstance(container[key], int) and chance.random() < 0.7:
        large = chance.choice([b"9223372036854775808", b"-9223372036854775809", b"1" + b"0" * 30])
    container[key] = "LARGE"
    return encoded(body).replace(b'"LARGE"', large)


@malformed
def other_fields(chance: random.Random, about: About) -> bytes:
    """A field or an input is missing, has another name, or is one too many."""
    body = right(chance, about)
    objects = [body] if about.encodes else [body, *body["rows"]]
    one = chance.choice(objects)
    name = chance.choice([*one])
    other = chance.choice([name + "s", "", "row", "x" * 10_000, "ä\u0000", "__class__", "rows.0"])
    how = chance.randrange(3)
    if how == 0 and len(one) > 0:
        del one[name]
    elif how == 1:
        one[other] = one.pop(name)
    else:
        one[other] = one[name]
    return encoded(body)


@malformed
def other_options(chance: random.Random, about: About) -> bytes:
    """A timeout or a priority that is none."""
    body = right(chance, about)
    if chance.random() < 0.5:
        body["timeout_ms"] = chance.choice([0, -1, "1", True, [], 1e12, -0.0, {}])
    else:
        body["priority"] = chance.choice([1.5, "1", None, 2**70, -1_000, [], True, 1e3])
    return encoded(body)
