"""The doorway: many may stand in it, in any order and on any thread, and nothing of it is left."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import permutations
from typing import Any, cast

import pytest
import torch
from torch import nn
from untouched import untouched

import forwardpass as fwd
from forwardpass.errors import PassError, UsageError
from forwardpass.recording.doorway import Calling, Doorway

METHODS = ("numpy", "tolist")


@pytest.fixture(autouse=True)
def _very_original() -> Iterator[None]:
    called = vars(nn.Module)["__call__"]
    yield
    assert vars(nn.Module)["__call__"] is called
    assert not set(METHODS) & set(vars(torch.Tensor)), "they are inherited, as they were"


class Thing:
    def said(self, *words: str, mark: str = "") -> list[str]:
        return [*words, mark]


def saying(name: str, callers: list[str] | None = None) -> Callable[[Calling], Calling]:
    """A visitor that adds its name to what comes back."""

    def around(beneath: Calling) -> Calling:
        def call(caller: Any, thing: Any, args: Any, kwargs: Any) -> Any:
            if callers is not None:
                callers.append(caller.f_code.co_name)
            return [name, *beneath(caller, thing, args, kwargs)]

        return call

    return around


@pytest.mark.parametrize("order", list(permutations("abc")), ids="".join)
def test_visitors_leave_in_any_order(order: tuple[str, ...]) -> None:
    before = Thing.said
    doorway = Doorway(Thing, "said")
    blocks = {name: doorway.visited(saying(name)) for name in "abc"}
    for block in blocks.values():
        block.__enter__()
    inside = ["c", "b", "a"]
    for name in order:
        assert Thing().said("x", mark="!") == [*inside, "x", "!"]
        blocks[name].__exit__(None, None, None)
        inside.remove(name)
    assert Thing.said is before


def test_a_visitor_is_told_who_calls_whoever_stands_before_it() -> None:
    doorway, callers = Doorway(Thing, "said"), list[str]()
    with doorway.visited(saying("a", callers)), doorway.visited(saying("b", callers)):
        Thing().said()
    assert callers == ["test_a_visitor_is_told_who_calls_whoever_stands_before_it"] * 2


def test_other_threads_pass_by() -> None:
    doorway = Doorway(Thing, "said")
    with doorway.visited(saying("a")), ThreadPoolExecutor(1) as pool:
        assert pool.submit(Thing().said, "x").result() == ["x", ""]
        assert Thing().said("x") == ["a", "x", ""]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), GeneratorExit()])
def test_nothing_is_left_after_an_error(error: BaseException) -> None:
    before = Thing.said
    with pytest.raises(type(error)), Doorway(Thing, "said").visited(saying("a")):
        raise error
    assert Thing.said is before


def test_a_generator_may_be_closed_on_another_thread() -> None:
    before = Thing.said
    doorway = Doorway(Thing, "said")

    def visiting() -> Generator[list[str]]:
        with doorway.visited(saying("a")):
            yield Thing().said()

    one, other = visiting(), visiting()
    assert next(one) == ["a", ""]
    assert next(other) == ["a", "a", ""]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(one.close).result()
    assert Thing().said() == ["a", ""]
    del other
    assert Thing.said is before


def test_who_replaces_the_method_over_us_is_left_in_place() -> None:
    before = Thing.said
    doorway = Doorway(Thing, "said")
    with doorway.visited(saying("a")):
        door = Thing.said

        def over(self: Thing, *args: str, **kwargs: Any) -> list[str]:
            return ["over", *door(self, *args, **kwargs)]

        setattr(Thing, "said", over)  # noqa: B010
        assert Thing().said() == ["over", "a", ""]
    assert Thing.said is over
    assert Thing().said() == ["over", ""]
    with doorway.visited(saying("b")):
        assert Thing().said() == ["b", "over", ""]
    assert Thing.said is over
    setattr(Thing, "said", before)  # noqa: B010


def test_the_class_and_who_holds_the_method_see_the_same_object() -> None:
    class Counted:
        pass

    def counting(start: int) -> Callable[..., int]:
        def count(self: Counted, more: int = 1, *, twice: bool = False) -> int:
            return start + more * (1 + twice)

        return count

    setattr(Counted, "count", counting(40))  # noqa: B010
    before = vars(Counted)["count"]
    held, code = Counted().count, before.__code__

    def doubled(beneath: Calling) -> Calling:
        return lambda caller, thing, args, kwargs: 2 * beneath(caller, thing, args, kwargs)

    with Doorway(Counted, "count").visited(doubled):
        assert vars(Counted)["count"] is before
        assert held() == 2 * 41
        assert held(3, twice=True) == 2 * 46
        with pytest.raises(TypeError, match="thrice"):
            held(thrice=True)
    assert held(twice=True) == 42
    assert before.__code__ is code


def test_a_method_that_was_inherited_is_inherited_again() -> None:
    class Child(Thing):
        pass

    with Doorway(Child, "said").visited(saying("a")):
        assert Child().said() == ["a", ""]
        assert Thing().said() == [""]
    assert "said" not in vars(Child)


def test_visitors_come_and_go_on_many_threads() -> None:
    before, doorway, count = Thing.said, Doorway(Thing, "said"), 6
    ready = threading.Barrier(count)

    def visit(name: str) -> None:
        chance = random.Random(name)
        ready.wait()
        for _ in range(200):
            blocks = [doorway.visited(saying(name)) for _ in range(chance.randint(1, 3))]
            for block in blocks:
                block.__enter__()
            assert Thing().said("x") == [*[name] * len(blocks), "x", ""]
            chance.shuffle(blocks)
            for block in blocks:
                block.__exit__(None, None, None)

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(visit, str(number)) for number in range(count)]:
            done.result()
    assert Thing.said is before


# What stands in it: watch and record


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("first", [0, 1])
def test_two_watch_blocks_closed_in_either_order(first: int) -> None:
    models = [mlp(), mlp()]
    blocks = [fwd.watch(model) for model in models]
    records = [block.__enter__() for block in blocks]
    for model in models:
        model(torch.ones(1, 4))
    blocks[first].__exit__(None, None, None)
    for model in models:
        model(torch.ones(1, 4))
    blocks[1 - first].__exit__(None, None, None)
    for model in models:
        model(torch.ones(1, 4))
    assert len(records[first]) == 1
    assert len(records[1 - first]) == 2


def test_threads_that_watch_see_their_own_passes() -> None:
    shared, count = mlp(), 3
    ready = threading.Barrier(count)

    def watching(passes: int) -> int:
        with ExitStack() as stack:
            own = mlp()
            mine = stack.enter_context(fwd.watch(own))
            all_of_mine = stack.enter_context(fwd.watch(shared))
            ready.wait()
            for _ in range(passes):
                own(torch.ones(1, 4))
                shared(torch.ones(passes, 4))
            ready.wait()
            assert len(mine) == len(all_of_mine) == passes
            shapes = {one.values[one.inputs["input"]].shape for one in all_of_mine}
            assert shapes == {(passes, 4)}
            return sum(one.totals.calls for one in all_of_mine)

    with ThreadPoolExecutor(count) as pool:
        came = [pool.submit(watching, passes) for passes in (2, 3, 5)]
        calls = [done.result() for done in came]
    assert calls[0] * 3 == calls[1] * 2
    assert calls[0] * 5 == calls[2] * 2


class Drawing(nn.Module):
    """Draws, writes a buffer, counts in an attribute, goes to Python and has modes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.times = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.times += 1
        y = self.drop(self.norm(self.fc(x)))
        return y * len(y.detach().sum(-1).tolist())


def test_threads_that_record_one_module() -> None:
    model, count, times = Drawing(), 3, 4
    x = torch.randn(5, 4)
    ready = threading.Barrier(count)
    modes: tuple[Any, ...] = ("train", "eval", None)

    def recording(mode: Any) -> list[Any]:
        ready.wait()
        done = [fwd.record(model, x, mode=mode, grad="on") for _ in range(times)]
        assert {one.validate("e").verdict for one in done} == {"valid"}
        explained = done[0].explain("fc.weight[0, 0]", gradient=True)
        assert explained.gradient is not None
        return [
            (one.mode, one.path, one.totals, one.changes, len(one.modules), one.calls)
            for one in done
        ]

    alone = [fwd.record(model, x, mode=mode, grad="on") for mode in modes]
    with untouched(model, x), ThreadPoolExecutor(count) as pool:
        came = [pool.submit(recording, mode) for mode in modes]
        for done, expected in zip(came, alone, strict=True):
            for found in done.result():
                assert found[0] == expected.mode
                assert found[1:4] == (expected.path, expected.totals, expected.changes)
                assert found[4] == len(expected.modules)
                assert [c.operator for c in found[5]] == [c.operator for c in expected.calls]


def test_a_thread_records_what_another_watches() -> None:
    model, x = Drawing(), torch.randn(5, 4)
    stop = threading.Event()

    def recording() -> int:
        done = 0
        while not stop.is_set() or not done:
            assert fwd.record(model, x).totals.calls
            done += 1
        return done

    with ThreadPoolExecutor(1) as pool, fwd.watch(model) as records:
        other = pool.submit(recording)
        for _ in range(20):
            model(x)
        stop.set()
        assert other.result()
    assert len(records) == 20
    assert model.times == 20, "what the passes of another thread changed was put back alone"
    assert cast("torch.Tensor", model.norm.num_batches_tracked).item() == 20


@pytest.mark.parametrize("how", ["join", "future", "pool"])
def test_a_pass_that_waits_for_a_thread_that_would_record_is_told(how: str) -> None:
    inner, x, met = mlp(), torch.ones(1, 4), list[BaseException]()

    def work() -> None:
        try:
            fwd.record(inner, x)
        except BaseException as error:
            met.append(error)
            raise

    class Waiting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if how == "join":
                thread = threading.Thread(target=work)
                threading.excepthook, before = lambda _: None, threading.excepthook
                thread.start()
                thread.join()
                threading.excepthook = before
            else:
                with ThreadPoolExecutor(1) as pool:
                    done = pool.submit(work)
                    if how == "future":
                        done.result()
            return x * 2

    told = "would record while another thread records a pass, and that waits for this one"
    if how == "future":
        with pytest.raises(PassError, match=told):
            fwd.record(Waiting(), x)
    else:
        assert fwd.record(Waiting(), x).totals.calls == 1
    assert {type(error) for error in met} == {UsageError}
    assert told in str(met[0])
    assert fwd.record(inner, x).totals.calls, "the next pass has its turn"
