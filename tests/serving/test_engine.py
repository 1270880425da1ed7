"""An engine answers as `run` does: rows by themselves, whatever comes beside them."""

from __future__ import annotations

import os
import threading
from collections import UserList, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.errors import PassError
from forwardpass.executing.batches import Result
from forwardpass.executing.decoding import Decoder
from forwardpass.loading import load
from forwardpass.nouns.models import Model
from forwardpass.serving.channels import Channel
from forwardpass.serving.controls import (
    Control,
    EngineJoined,
    EngineReady,
    FromEngineProcess,
    Post,
    connected,
)
from forwardpass.serving.ends import pair
from forwardpass.serving.engine_processes import engine
from forwardpass.serving.messages import (
    About,
    ComputeRows,
    EncodeRows,
    ForgetRows,
    FromEngine,
    RowsComputed,
)
from forwardpass.serving.options import ServedModel
from forwardpass.serving.replies import Replies
from forwardpass.serving.wording import for_clients
from tests import models
from tests.serving.engine_ends import FarEngine, made

FEATURES = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)


def rows_of(features: Any) -> list[dict[str, Any]]:
    return [{"features": row} for row in np.asarray(features).tolist()]


def ran(model: Model, rows: list[Any]) -> list[dict[str, Any]]:
    """What `run` gives for these rows."""
    outputs, _ = fwd.run(model, rows)
    columns = {name: value.tolist() for name, value in outputs.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def digits() -> Model:
    """A classifier of which each row becomes a label and its score."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10)).eval()

    def decode(outputs: dict[str, Tensor]) -> dict[str, Any]:
        (logits,) = outputs.values()
        return {"label": logits.argmax(1), "score": logits.max(1).values}

    return Model(net, "features: f32[batch 16]", decode=decode)


def texts(tokens: str = "1..64") -> Model:
    """Bytes of a text, through an embedding of which the padding is masked."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(256, 8)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return (self.embed(ids) * mask[..., None]).sum(1)

    def encode(rows: Any) -> dict[str, Any]:
        given = [list(text.encode()) for text in rows["text"]]
        if any(not text for text in given):
            raise ValueError("an empty text")
        return {"ids": [np.array(text) for text in given]}

    return Model(
        Net().eval(),
        f"ids: i64[batch tokens={tokens}] pad 0\nmask: bool[batch tokens] = valid(tokens)",
        encode=encode,
    )


def test_rows_that_came_as_tensors_are_answered_raw_and_decoded() -> None:
    model = digits()
    with FarEngine(model, rows_of(FEATURES)) as engine:
        assert engine.about.outputs == ("output: f32[batch 10]",)
        said = engine.compute(
            range(5),
            raw=[True, False, True, False, False],
            arrays={"features": [FEATURES[:2], FEATURES[2:5]]},
        )
        with torch.inference_mode():
            logits = model.module(torch.from_numpy(FEATURES[:5])).numpy()
        np.testing.assert_allclose(engine.arrays["output"], logits[[0, 2]], rtol=1e-5)
        assert [row is None for row in said.rows] == [True, False, True, False, False]
        assert said.failures == []
        lines = [msgspec.json.decode(row) for row in said.rows if row]
        assert [line["label"] for line in lines] == logits[[1, 3, 4]].argmax(1).tolist()


def test_answers_are_those_of_a_run() -> None:
    rows = rows_of(FEATURES)
    with FarEngine(digits(), rows) as engine:
        found = engine.asked(rows)
    for one, other in zip(found, ran(digits(), rows), strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], rel=1e-5)


def test_texts_of_several_lengths_and_a_bad_one() -> None:
    given = ["a", "some words", "ä", "", "another text that is longer"]
    with FarEngine(texts(), given[:3]) as engine:
        assert engine.about.paddable == (True,)
        found = engine.asked(given)
        assert found[3] == "ValueError: an empty text"
        _, said = engine.encode(given)
        assert [size for (size,) in said.sizes] == [1, 10, 2, 27]
        assert said.lengths == {}
    expected = ran(texts(), [text for text in given if text])
    for one, other in zip([found[n] for n in (0, 1, 2, 4)], expected, strict=True):
        np.testing.assert_allclose(one["output"], other["output"], rtol=1e-4, atol=1e-5)


def test_sizes_that_are_rounded_up_are_said_with_the_lengths_that_rows_have() -> None:
    with FarEngine(texts("8..64%8"), ["a", "some words"]) as engine:
        ids, said = engine.encode(["abc", "12345678", "some words"])
    assert said.sizes == [(8,), (8,), (16,)]
    assert said.lengths == {ids[0]: (3,), ids[2]: (10,)}


def test_rows_that_may_not_be_padded_are_computed_at_equal_sizes() -> None:
    ids = [(np.arange(size) % 10)[None] for size in (3, 5, 2)]
    with FarEngine(models.bilstm(), [{"ids": row[0].tolist()} for row in ids]) as engine:
        assert engine.about.paddable == (False,), "its backward direction begins in the padding"
        alone = engine.compute([0], (3,), arrays={"ids": [ids[0]]})
        both = engine.compute([0, 1], (3,), arrays={"ids": [ids[0], ids[0]]})
    np.testing.assert_allclose(*_outputs(alone.rows[0], both.rows[1]), atol=1e-5)


def test_raw_outputs_of_several_lengths_come_without_padding() -> None:
    torch.manual_seed(0)
    model = Model(nn.Embedding(50, 8), "ids: i64[batch tokens=1..64] pad 0")
    rows = [np.arange(size, dtype=np.int64) for size in (3, 5, 1, 5)]
    with FarEngine(model, [{"ids": row.tolist()} for row in rows]) as engine:
        engine.compute(
            range(4), (5,), raw=[True, True, False, True], arrays={"ids": [r[None] for r in rows]}
        )
        (values,) = engine.arrays.values()
    weight = model.module.get_parameter("weight").detach().numpy()
    assert [len(value) for value in values] == [3, 5, 5]
    for value, row in zip(values, (rows[0], rows[1], rows[3]), strict=True):
        np.testing.assert_array_equal(value, weight[row])


def test_padded_rows_as_tensors_come_back_without_padding() -> None:
    model = models.masked_mean()
    assert model.signature is not None
    path = model.signature.given[0].path
    rows = [np.arange(1, 1 + size).astype(np.int64) for size in (2, 7, 4)]
    with FarEngine(model, [{path: row.tolist()} for row in rows]) as engine:
        together = engine.compute(range(3), (7,), arrays={path: [row[None] for row in rows]})
        alone = [engine.compute([0], (len(row),), arrays={path: [row[None]]}) for row in rows]
    for one, other in zip(together.rows, alone, strict=True):
        a, b = (msgspec.json.decode(line or b"") for line in (one, other.rows[0]))
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6)


def test_a_row_that_raises_fails_alone_at_every_place() -> None:
    poison = FEATURES[:6].copy()
    with FarEngine(models.poisoned(), rows_of(FEATURES)) as engine:
        clean = engine.compute(range(6), arrays={"features": [FEATURES[:6]]})
        for place in range(6):
            poison[:] = FEATURES[:6]
            poison[place] = 1e7
            said = engine.compute(range(6), arrays={"features": [poison]})
            assert said.failures == [(place, "ValueError: poison: a feature is above 1e6")]
            for one, other in zip(said.rows, clean.rows, strict=True):
                if one is not None:
                    np.testing.assert_allclose(*_outputs(one, other), rtol=1e-5)


def _outputs(*lines: bytes | None) -> list[Any]:
    return [next(iter(msgspec.json.decode(line or b"").values())) for line in lines]


@pytest.mark.parametrize("make", [models.counter_buffer, models.counter_attribute])
def test_what_a_pass_changes_is_put_back_between_batches(make: Any) -> None:
    with FarEngine(make(), rows_of(FEATURES)) as engine:
        said = [engine.compute([0], arrays={"features": [FEATURES[:1]]}).rows for _ in range(5)]
    assert all(rows == said[0] for rows in said)


def test_generators_are_seeded_by_what_is_asked() -> None:
    with FarEngine(models.always_dropout(), rows_of(FEATURES)) as engine:
        lines = [
            engine.compute([0], seed=seed, arrays={"features": [FEATURES[:1]]}).rows[0]
            for seed in (3, 4, 3)
        ]
    assert lines[0] == lines[2] != lines[1]


def test_no_number_is_null_and_travels_in_arrays() -> None:
    torch.manual_seed(0)
    model = Model(models.Function(lambda x, y: y / 0 * x[:, :4]), "features: f32[batch 16]")
    features = np.zeros((1, 16), np.float32)
    with FarEngine(model, rows_of(FEATURES)) as engine:
        said = engine.compute([0, 1], raw=[False, True], arrays={"features": [features, features]})
        assert _outputs(said.rows[0]) == [[None] * 4]
        (value,) = engine.arrays.values()
        assert np.isnan(value).all()


def test_a_model_that_collates() -> None:
    class Total(nn.Module):
        def forward(self, values: Tensor, owner: Tensor, count: int) -> Tensor:
            return torch.zeros(count).index_add(0, owner, values)

    def collate(items: Sequence[Any]) -> dict[str, Any]:
        owners = [n for n, item in enumerate(items) for _ in item["values"]]
        values = [float(value) for item in items for value in item["values"]]
        return {
            "values": torch.tensor(values), "owner": torch.tensor(owners), "count": len(items),
        }  # fmt: skip

    model = Model(
        Total(),
        collate=collate,
        uncollate=lambda outputs, count: {"total": outputs, "said": ["ok"] * count},
        size=lambda item: len(item["values"]),
    )
    given = [{"values": [1.0, 2.0]}, {"values": [4.0]}, {"values": "no"}, {"values": [0.5] * 3}]
    with FarEngine(model, given[:2]) as engine:
        assert not engine.about.tensors
        _, said = engine.encode(given[:2])
        assert said.sizes == [(2,), (1,)]
        found = engine.asked(given)
        raw = engine.compute(engine.encode(given[:1])[1].ids, (2,), raw=[True])
        assert "no array" in raw.failures[0][1]
        refused = engine.compute([1], arrays={"values": [np.ones((1, 2))]})
        assert "do not come as tensors" in refused.failures[0][1]
    assert found[0] == {"total": 3.0, "said": "ok"}
    assert found[1]["total"] == 4
    assert found[2].startswith("ValueError")
    assert found[3]["total"] == 1.5


def collating(columns: Callable[[Tensor, int], dict[str, Any]]) -> Model:
    """A model that adds up each row, and of which uncollate makes these columns."""
    return Model(
        models.Function(lambda x, y: x.sum(1)),
        collate=lambda items: torch.tensor(np.array([i["features"] for i in items], "f4")),
        uncollate=columns,
    )


@pytest.mark.parametrize("kind", [tuple, deque, UserList])
def test_columns_of_any_sequence_are_answered(kind: Callable[[list[str]], Any]) -> None:
    """Of decode as of uncollate: a run takes them, too."""

    def columns(sums: Tensor, count: int) -> dict[str, Any]:
        return {"by": kind(["me"] * count)}

    def decode(outputs: dict[str, Tensor]) -> dict[str, Any]:
        return columns(outputs["output"], len(outputs["output"]))

    rows = rows_of(FEATURES[:3])
    for model in (
        collating(columns),
        Model(digits().module, "features: f32[batch 16]", decode=decode),
    ):
        with FarEngine(model, rows) as engine:
            assert engine.asked(rows) == [{"by": "me"}] * 3
        outputs, _ = fwd.run(model, rows)
        assert list(outputs["by"]) == ["me"] * 3


NO_NUMBERS = {
    "text": np.array("a text"),
    "date": np.array("2026-01-01", "M8[D]"),
    "object": np.array({"a": 1}, object),
    "wide": np.array(1, np.longdouble),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_arrays_that_hold_no_numbers_fail_the_rows_that_are_wanted_raw(kind: str) -> None:
    """And nothing else: their mates are answered as JSON, and the engine goes on."""

    def columns(sums: Tensor, count: int) -> dict[str, Any]:
        return {"sum": sums, "of": NO_NUMBERS[kind][None].repeat(count), "by": ["me"] * count}

    rows = rows_of(FEATURES[:3])
    with FarEngine(collating(columns), rows) as engine:
        ids, _ = engine.encode(rows)
        said = engine.compute(ids, (1,), raw=[False, True, False])
        assert [place for place, _ in said.failures] == [1]
        assert "'of'" in said.failures[0][1]
        assert "ask for rows as JSON" in said.failures[0][1]
        assert said.large == []
        assert engine.arrays == {}
        found = [msgspec.json.decode(said.rows[place] or b"") for place in (0, 2)]
        sums = FEATURES[[0, 2]].sum(1)
        np.testing.assert_allclose([row["sum"] for row in found], sums, rtol=1e-4, atol=1e-5)
        assert [row["by"] for row in found] == ["me", "me"]
        assert engine.compute(engine.encode(rows[:1])[0], (1,)).failures == []
    assert engine.error is None


def test_outputs_of_rows_that_failed_do_not_take_the_places_of_others() -> None:
    """A batch that was halved has columns of several kinds, and each row keeps its own numbers."""
    asked = ComputeRows(
        batch=1, ids=[0, 1, 2], tensors=False, sizes=(), cells=1, seed=0, raw=[True] * 3
    )
    numbers = np.arange(3, dtype="f4")
    pieces = (
        (0, 1, {"a": numbers[:1], "b": np.array(["text"])}),
        (1, 3, {"a": numbers[1:], "b": numbers[1:]}),
    )
    said, outputs = Replies(Decoder(digits()))(asked, Result(pieces))
    assert [place for place, _ in said.failures] == [0]
    assert {path: np.concatenate(found).tolist() for path, found in outputs.items()} == {
        "a": [1.0, 2.0], "b": [1.0, 2.0],
    }  # fmt: skip


def test_rows_that_came_together_do_not_decide_what_columns_hold() -> None:
    """A column has the form that it has if the row comes alone."""
    seen: list[str] = []

    def encode(rows: Any) -> dict[str, Any]:
        value = rows["x"]
        seen.append(str(getattr(value, "dtype", type(value).__name__)))
        return {"features": np.zeros((len(value), 16), np.float32)}

    model = Model(nn.Linear(16, 4).eval(), "features: f32[batch 16]", encode=encode)
    with FarEngine(model, [{"x": 1}]) as engine:
        seen.clear()
        values = [{"x": 1}, {"x": "t"}, {"x": 2.5}, {"x": [1, 2]}, {"x": 3}, {"y": 1}, {"x": []}]
        ids, said = engine.encode(values)
        assert sorted(said.ids) == [n for n in ids if n != ids[5]]
        assert said.failures == [
            (ids[5], "MissingColumn: there is no column 'x'; the columns are y")
        ]
    assert "int64" in seen
    assert "float64" in seen
    assert "list" in seen


def test_a_row_that_is_no_object_is_the_value_of_the_only_column() -> None:
    model = texts()
    assert model.encode is not None
    model.encode.text_columns = ("text",)  # type: ignore[attr-defined]
    with FarEngine(model, ["a text"]) as engine:
        found = engine.asked(["ab", {"text": "ab"}, 5])
        assert found[0] == found[1]
        assert "AttributeError" in found[2]
        assert "--types" not in found[2], "a client has no command line"


def test_rows_are_kept_until_they_are_computed_or_forgotten() -> None:
    with FarEngine(texts(), ["a text"]) as engine:
        ids, _ = engine.encode(["a", "b"])
        engine.channel.send(ForgetRows(ids[:1]))
        engine.encode(["c"])  # so that it is forgotten
        said = engine.compute(ids, (1,))
        assert [why for _, why in said.failures] == ["a row of this batch is not here any more"] * 2
        assert engine.compute(ids[1:], (1,)).failures == []
        assert len(engine.compute(ids[1:], (1,)).failures) == 1


def test_what_is_kept_of_encoded_rows_is_said_and_how_long_they_took() -> None:
    with FarEngine(texts(), ["a text"]) as engine:
        assert engine.encode(["ab", "", "abcd"])[1].bytes == 6 * np.dtype(np.int64).itemsize
        assert engine.encode([""])[1].bytes == 0
        assert 0 < engine.encode(["ab"] * 8)[1].seconds < 1


def test_a_batch_is_not_late_since_rows_are_encoded() -> None:
    """Encoding has a thread of its own: what was encoded before is computed beside it."""
    go_on, own = threading.Event(), texts()
    assert own.encode is not None
    encode = own.encode

    def slow(rows: Any) -> Any:
        if "slow" in list(rows["text"]):
            assert go_on.wait(20)
        return encode(rows)

    with FarEngine(Model(own.module, own.signature, encode=slow), ["a text"]) as engine:
        known, _ = engine.encode(["a"])
        engine.channel.send(EncodeRows([99], ["slow"]))
        assert engine.compute(known, (1,)).failures == []
        go_on.set()
        assert engine.next().ids == [99]


def test_several_batches_at_once_are_all_answered() -> None:
    with FarEngine(digits(), rows_of(FEATURES)) as engine:
        for batch in range(20):
            engine.channel.send(
                ComputeRows(
                    batch=100 + batch, ids=[batch], tensors=True, sizes=(), cells=1, seed=0,
                    raw=[False],
                ),
                {"features": [FEATURES[:1]]},
            )  # fmt: skip
        said = [engine.next() for _ in range(20)]
    assert sorted(one.batch for one in said) == list(range(100, 120))
    assert all(isinstance(one, RowsComputed) and one.rows == said[0].rows for one in said)


def test_memory_that_does_not_suffice_is_said() -> None:
    with FarEngine(models.memory_bound(4), rows_of(FEATURES[:4])) as engine:
        said = engine.compute(range(8), arrays={"features": [FEATURES[:8]]})
        assert said.failures == []
        assert said.refused_cells == 8


def test_a_slow_decode_runs_beside_the_next_batch() -> None:
    threads: list[str] = []

    def decode(outputs: dict[str, Tensor]) -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        threading.Event().wait(0.02)
        return {"n": [1] * len(outputs["output"])}

    model = Model(nn.Linear(16, 4).eval(), "features: f32[batch 16]", decode=decode)
    with FarEngine(model, rows_of(FEATURES)) as engine:
        for _ in range(3):
            assert engine.compute([0], arrays={"features": [FEATURES[:1]]}).rows == [b'{"n":1}']
    assert threads[-1] == "forwardpass-decode" != threads[0]


def test_outputs_that_do_not_fit_into_the_channel_come_in_parts() -> None:
    """Only a row whose outputs are too large alone is refused, and so is it in a batch of others,
    of which some are wanted as JSON."""

    class Wide(nn.Module):
        def forward(self, x: Tensor, width: Tensor) -> dict[str, Tensor]:
            return {"y": x.repeat(1, 1_000), "width": width.long()}

    def decode(outputs: dict[str, Tensor]) -> dict[str, Any]:
        return {"text": ["a" * width for width in outputs["width"].tolist()]}

    model = Model(Wide(), ["x: f32[batch 1]", "width: f32[batch]"], decode=decode)
    given = [{"x": np.full(1, n, "f4"), "width": np.float32(3)} for n in range(3)]
    with FarEngine(model, given, memory_bytes=1 << 17) as engine:
        widths = np.array([4, 30_000, 4, 99_000, 20_000, 40_000, *[4] * 26], "f4")
        raw = [n >= 6 for n in range(32)]
        x = np.arange(32, dtype="f4")[:, None]
        arrays = {"x": [x], "width": [widths]}
        parts = [engine.compute(range(32), raw=raw, arrays=arrays)]
        rows, failures = list(parts[0].rows), dict(parts[0].failures)
        outputs = [np.asarray(engine.arrays["y"])] if engine.arrays else []
        while parts[-1].more:
            parts.append(engine.next())
            failures |= {len(rows) + place: why for place, why in parts[-1].failures}
            rows += parts[-1].rows
            outputs += [np.asarray(engine.arrays["y"])] if engine.arrays else []
        assert len(parts) > 2
        assert len({part.batch for part in parts}) == 1
        assert list(failures) == [3]
        assert "does not fit" in failures[3]
        assert [len(row or b"") for row in rows[:6]] == [15, 30_011, 15, 0, 20_011, 40_011]
        np.testing.assert_array_equal(np.concatenate(outputs), np.repeat(x[6:], 1_000, axis=1))
        assert engine.compute([0], arrays={"x": [x[:1]], "width": [widths[:1]]}).failures == []


def test_a_client_that_is_slow_to_read_loses_nothing() -> None:
    """While there is no room for an answer, the engine waits with it."""
    model = Model(models.Function(lambda x, y: y.repeat(1, 1_000)), "features: f32[batch 16]")
    with FarEngine(model, rows_of(FEATURES), memory_bytes=1 << 17) as engine:
        for batch in range(12):
            asked = ComputeRows(
                batch=batch, ids=[batch], tensors=True, sizes=(), cells=1, seed=0, raw=[True]
            )
            engine.channel.send(asked, {"features": [FEATURES[:1]]})
        found = [engine.next().batch for _ in range(12)]
    assert found == list(range(12))


def test_state_that_cannot_be_put_back_ends_the_engine() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 4)

        def forward(self, features: Tensor) -> Tensor:
            if bool((features > 100).any()):
                with torch.no_grad():
                    self.linear.weight.add_(1)
            return self.linear(features)

    model = Model(Writes().eval(), "features: f32[batch 16]")
    with FarEngine(model, rows_of(FEATURES)) as engine:
        loud = np.full((1, 16), 200, np.float32)
        engine.compute([0], arrays={"features": [loud]})

        def go_on() -> None:
            while True:
                engine.compute([0], arrays={"features": [FEATURES[:1]]})

        with pytest.raises(fwd.ForwardpassError):
            go_on()
    assert isinstance(engine.error, PassError)


def test_clients_are_told_no_folders() -> None:
    path = "FileNotFoundError: [Errno 2] No such file or directory: '/srv/data/own/list.txt'"
    assert for_clients(path).endswith("'…/list.txt'")
    for text in ("a/b/c", "1/2", "expected /v2", "see https://example.org/a/b", "x: f32[a / b]"):
        assert for_clients(text) == text


def test_a_lost_channel_ends_the_session_and_the_next_one_begins_anew() -> None:
    served = made(digits(), rows_of(FEATURES))
    for turn in range(2):
        ends = pair(1 << 20)
        http: Channel[FromEngine] = Channel(ends[0], engine=False)
        asked = ComputeRows(
            batch=turn, ids=[1], tensors=True, sizes=(), cells=1, seed=0, raw=[True]
        )
        http.send(asked, {"features": [FEATURES[:1]]})
        threading.Timer(0.3, http.close).start()
        served.serve(Channel(ends[1], engine=True))


def test_an_engine_process_serves_until_its_supervisor_is_gone(tmp_path: Path) -> None:
    """It says when it is ready, serves over each channel that it is given, and ends."""
    ours, theirs = connected()
    child = os.fork()
    if not child:
        os.close(ours)
        try:
            torch.set_num_threads(1)  # a team of threads is not there after a fork
            forward: Any = load(models.mlp())
            served = ServedModel(name="mlp", forward="mlp")
            engine(forward, served, Control(theirs, EngineJoined), tmp_path, tmp_path / "lock")
        finally:
            os._exit(7)
    os.close(theirs)
    control: Control[Any] = Control(ours, FromEngineProcess)
    said: list[Any] = []
    while not said or not isinstance(said[-1], EngineReady):
        said += [heard.message for heard in control.receive()]
    assert said[-1].batch_seconds >= said[-1].row_seconds > 0
    for turn in range(2):
        ends = pair(1 << 20)
        control.send(EngineJoined(Post("mlp"), turn), *ends[1])
        ends[1].close()
        http: Channel[FromEngine] = Channel(ends[0], engine=False)
        (about,) = http.receive(30)
        assert isinstance(about.message, About)
        http.close()
    control.close()
    assert os.waitpid(child, 0)[1] == 0
