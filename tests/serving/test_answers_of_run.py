"""`POST /models/{name}` answers rows as `fwd.run` does, through JSON both ways."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch
from engine_ends import FarEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers
from standing_in import exchange, options
from test_engine import digits, texts

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.executing.encoding import checked
from forwardpass.executing.examples import drawn
from forwardpass.nouns.signatures import Signature
from forwardpass.running.columns import to_python
from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.exchanges import RefusedError, Reply
from forwardpass.serving.messages import About, RowsComputed
from forwardpass.serving.protocols import rows
from tests import models


class FarService:
    """A Service whose engine is real, and which asks for each row alone."""

    ready = True

    def __init__(self, engine: FarEngine, name: str = "far", example: str = "") -> None:
        self.name, self.engine = name, engine
        self.about: About = msgspec.structs.replace(engine.about, example=example)
        self.sizes: list[tuple[int, ...]] = []

    async def ask(self, inquiry: Inquiry) -> Answered:
        if inquiry.decoded:
            each = [self._computed(inquiry, place) for place in range(inquiry.count)]
            return Answered([bytes(row) for done in each for row in done.rows if row], {}, [])
        outputs: dict[str, list[Any]] = {}
        for place in range(inquiry.count):
            self._computed(inquiry, place)
            for path, value in self.engine.arrays.items():
                outputs.setdefault(path, []).append(value[0])
        return Answered([], outputs, self.sizes)

    def _computed(self, inquiry: Inquiry, place: int) -> RowsComputed:
        if inquiry.values is not None:
            ids, said = self.engine.encode([inquiry.values[place]])
            for _, why in said.failures:
                raise RefusedError(400, why, row=place)
            self.sizes = [*self.sizes[:place], said.sizes[0]]
            return self.engine.compute(ids, said.sizes[0], raw=[not inquiry.decoded])
        assert inquiry.arrays is not None
        arrays = {path: value[place : place + 1] for path, value in inquiry.arrays.items()}
        block, cut = checked(Signature.parse(self.about.inputs), arrays, 1)
        assert not cut
        pieces = {path: [np.asarray(value)] for path, value in arrays.items()}
        return self.engine.compute([place + 1], tuple(block.sizes[0].tolist()), arrays=pieces)


def posted(engine: FarEngine, given: list[Any]) -> list[dict[str, Any]]:
    """What the route answers."""
    (ask, *_) = rows.routes({"far": FarService(engine)}, options())
    body = msgspec.json.encode({"rows": given})
    asked = ask.handler(exchange("POST", "/", body, parts={"name": "far"}))
    reply = asyncio.run(cast("Coroutine[Any, Any, Reply]", asked))
    return msgspec.json.decode(cast("bytes", reply.body))["rows"]


def ran(model: Model, given: list[Any]) -> list[dict[str, Any]]:
    """What `run` gives, as plain values."""
    columns = {name: to_python(values) for name, values in fwd.run(model, given)[0].items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def agree(one: Any, other: Any) -> None:
    """Numbers within a tolerance, all else the same."""
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for name, value in cast("Mapping[str, Any]", one).items():
            agree(value, other[name])
    elif isinstance(one, str):
        assert one == other
    else:
        np.testing.assert_allclose(
            np.array(one, float), np.array(other, float), rtol=1e-4, atol=1e-6
        )


def rows_of(model: Model, count: int) -> list[dict[str, Any]]:
    """Rows drawn by the signature, of several sizes."""
    signature = cast("Signature", model.signature)
    found: list[dict[str, Any]] = []
    for place in range(count):
        axes = signature.variable.items()
        sizes = {name: axis.rounded(axis.low + 7 * place) for name, axis in axes}
        arrays = drawn(Forward(model), batch=1, axes=sizes, seed=place)
        given = {item.path: item for item in signature.given}
        found.append({path: arrays[path][0].tolist() for path in given})
    return found


@pytest.mark.parametrize(
    "name", ["mlp", "cnn", "integers", "masked_mean", "strided", "bert", "gpt2_left"]
)
def test_arrays_are_answered_as_run_does(name: str) -> None:
    model = models.MODELS[name]()
    given = rows_of(model, 3)
    bare = [next(iter(row.values())) if len(row) == 1 else row for row in given]
    with FarEngine(model, given) as engine:
        for came, wanted in zip(posted(engine, bare), ran(model, given), strict=True):
            agree(came, wanted)


@pytest.mark.parametrize("make", [digits, texts])
def test_what_a_model_encodes_and_decodes_is_as_of_run(
    make: Callable[[], Model],
) -> None:
    model = make()
    given = rows_of(model, 3) if make is digits else [{"text": t} for t in ("a", "äöü", "b c d")]
    with FarEngine(model, given) as engine:
        bare = [next(iter(row.values())) for row in given]
        for came, wanted in zip(posted(engine, bare), ran(model, given), strict=True):
            agree(came, wanted)
        assert posted(engine, bare) == posted(engine, given)


def test_any_float32_goes_through_json_as_it_is() -> None:
    model = models.mlp()
    module = copy.deepcopy(model.module).eval()
    elements = st.floats(-(2.0**99), 2.0**99, width=32)
    with FarEngine(model, rows_of(model, 3)) as engine:

        @settings(max_examples=60, deadline=None)
        @given(numbers.arrays(np.float32, (2, 16), elements=elements))
        def holds(features: np.ndarray[Any, Any]) -> None:
            with torch.inference_mode():
                wanted = module(torch.from_numpy(features)).numpy()
            came = posted(engine, features.tolist())
            told = np.array([row["output"] for row in came])
            scale = max(float(np.abs(features).max()), 1.0)
            np.testing.assert_allclose(told, wanted, rtol=1e-4, atol=1e-6 * scale)

        holds()
