"""The desk: one question after the other, each once; what nobody waits for is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import models
import msgspec
import pytest

from forwardpass import Forward
from forwardpass.exploring.asking import Answerable, PageQuestion, asked
from forwardpass.exploring.desks import Desk, NoAnswer
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import given
from forwardpass.exploring.tiles import Tile
from forwardpass.nouns.progress import Steps


class Number(msgspec.Struct):
    value: int


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(Exploration("mlp", given(Forward(models.mlp()))))
    yield made
    made.close()


def test_a_question_is_answered_once(desk: Desk) -> None:
    times: list[int] = []

    def counted(exploration: Exploration, steps: Steps) -> Number:
        times.append(1)
        return Number(len(times))

    assert desk.answer(Answerable("once", counted)) == b'{"value":1}'
    assert desk.answer(Answerable("once", counted)) == b'{"value":1}'
    assert len(times) == 1


def test_what_fails_is_said_and_may_be_asked_again(desk: Desk) -> None:
    fails = [True]

    def sometimes(exploration: Exploration, steps: Steps) -> Number:
        if fails.pop() if fails else False:
            raise ZeroDivisionError("no rows")
        return Number(0)

    assert desk.answer(Answerable("sometimes", sometimes)) == NoAnswer(
        "ZeroDivisionError", "ZeroDivisionError: no rows"
    )
    assert desk.answer(Answerable("sometimes", sometimes)) == b'{"value":0}'


class Panic(BaseException):
    """As a library written in Rust has it."""


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (SystemExit("inference only"), NoAnswer("SystemExit", "SystemExit: inference only")),
        (Panic("index out of bounds"), NoAnswer("Panic", "Panic: index out of bounds")),
    ],
)
def test_what_would_end_the_process_ends_a_question(
    desk: Desk, raised: BaseException, told: NoAnswer
) -> None:
    def leaves(exploration: Exploration, steps: Steps) -> Number:
        raise raised

    def stays(exploration: Exploration, steps: Steps) -> Number:
        return Number(1)

    work = desk.ask(Answerable("leaves", leaves))
    assert work.wait() == told
    assert desk.ask(Answerable("stays", stays)).wait() == b'{"value":1}'


_INTERRUPTED = """
import os, signal, threading, torch
import forwardpass as fwd
from forwardpass.exploring.asking import Answerable
from forwardpass.exploring.desks import Desk
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import given

ended = threading.Event()

def endless(exploration, steps):
    os.kill(os.getpid(), signal.SIGINT)
    try:
        while True:
            steps.advance()
    finally:
        ended.set()

signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests may ignore it
model = fwd.Model(torch.nn.Linear(4, 4), "x: f32[batch 4]")
desk = Desk(Exploration("linear", given(fwd.Forward(model))))
for number in range(100):
    try:
        desk.answer(Answerable(f"endless {number}", endless))
    except KeyboardInterrupt:
        assert ended.wait(10), "the question goes on"
        ended.clear()
    else:
        raise AssertionError("it was answered")
desk.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_who_is_interrupted_does_not_wait_for_the_answer() -> None:
    """In a process of its own, of which the tests are no part."""
    subprocess.run([sys.executable, "-c", _INTERRUPTED], check=True, timeout=120)


def test_work_that_nobody_waits_for_ends_at_its_next_step(desk: Desk) -> None:
    begun = threading.Event()

    def endless(exploration: Exploration, steps: Steps) -> Number:
        steps.begin("turning", 1_000_000_000)
        begun.set()
        while True:
            try:
                steps.advance()
            except Exception:  # noqa: BLE001 - as a rule of check catches what a pass raises
                raise AssertionError("it was caught on its way") from None

    work = desk.ask(Answerable("endless", endless))
    assert begun.wait(10)
    work.stop()
    assert isinstance(work.wait(), NoAnswer)
    assert isinstance(desk.answer(asked(PageQuestion("page.shown"))), bytes)


def test_numbers_come_as_tiles(desk: Desk) -> None:
    assert isinstance(desk.answer(asked(PageQuestion("values.cells", {"value": 0}))), Tile)
    beyond = desk.answer(asked(PageQuestion("values.cells", {"value": 10_000})))
    assert isinstance(beyond, NoAnswer)
    assert "10000" in beyond.error


def test_what_is_asked_again_is_measured_again(desk: Desk) -> None:
    times: list[int] = []

    def measured(exploration: Exploration, steps: Steps) -> Number:
        return Number(exploration.once("seconds", 0, lambda: times.append(1) or len(times)))

    assert desk.answer(Answerable("measured", measured)) == b'{"value":1}'
    assert desk.answer(Answerable("other", measured)) == b'{"value":1}'
    assert desk.answer(Answerable("measured", measured, True)) == b'{"value":2}'
