"""What two processes say to each other comes whole and in order, with what belongs to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from forwardpass.errors import BuildError, Escaped, ForwardpassError, GrammarError, LoadError
from forwardpass.serving import controls
from forwardpass.serving.controls import (
    Control,
    ControlClosedError,
    EngineJoined,
    EngineReady,
    FromEngineProcess,
    FromHttp,
    Heard,
    Learning,
    Post,
    ProcessFailed,
    StartServing,
    ToHttp,
    connected,
)
from forwardpass.serving.options import ServedModel, ServeOptions

OPTIONS = ServeOptions(models=(ServedModel(name="digits", forward="digits.py"),), token="secret")


@pytest.fixture
def ends() -> Iterator[tuple[Control[FromHttp], Control[ToHttp]]]:
    one, other = connected()
    supervisor, http = Control[FromHttp](one, FromHttp), Control[ToHttp](other, ToHttp)
    yield supervisor, http
    supervisor.close()
    http.close()


def heard(control: Control[ToHttp], count: int) -> list[Heard[ToHttp]]:
    found: list[Heard[ToHttp]] = []
    while len(found) < count:
        found += control.receive()
    return found


def test_descriptors_come_with_the_message_that_they_were_sent_with(
    ends: tuple[Control[FromHttp], Control[ToHttp]],
) -> None:
    supervisor, http = ends
    pipes = [os.pipe() for _ in range(3)]
    supervisor.send(StartServing(OPTIONS), pipes[0][1])
    supervisor.send(EngineJoined(Post("digits"), 1), pipes[1][1], pipes[2][1])
    first, second = heard(http, 2)
    assert first.message == StartServing(OPTIONS)
    assert second.message == EngineJoined(Post("digits"), 1)
    sent = [*first.descriptors, *second.descriptors]
    assert len(first.descriptors) == 1
    for (read, write), received in zip(pipes, sent, strict=True):
        assert not os.get_inheritable(received)
        os.write(received, b"it is this one")
        assert os.read(read, 64) == b"it is this one"
        for descriptor in (read, write, received):
            os.close(descriptor)


@pytest.mark.parametrize("said", [b"0 {}\n", b"garbage\n", b'0 {"type":"Drain"}\n', b"0 \xff\n"])
def test_who_says_what_nobody_says_is_as_good_as_gone(said: bytes) -> None:
    one, other = connected()
    supervisor = Control[FromHttp](other, FromHttp)
    os.write(one, said)
    with pytest.raises(ControlClosedError):
        supervisor.receive()
    os.close(one)
    supervisor.close()


def test_a_message_longer_than_a_read_comes_whole() -> None:
    one, other = connected()
    engine = Control[object](one, object)
    supervisor = Control[FromEngineProcess](other, FromEngineProcess)
    long = EngineReady(said=("x" * 100_000,), example="")
    engine.send(long)
    engine.send(Learning("costs"))
    found: list[FromEngineProcess] = []
    while len(found) < 2:
        found += [each.message for each in supervisor.receive()]
    assert found == [long, Learning("costs")]
    engine.close()
    with pytest.raises(ControlClosedError):
        supervisor.receive()
    with pytest.raises(ControlClosedError):
        supervisor.send(EngineJoined(Post("x"), 1))
    supervisor.close()


def test_who_does_not_read_is_as_good_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "_UNHEARD_SECONDS", 1)
    one, other = connected()
    engine, supervisor = Control[object](one, object), Control[Any](other, FromEngineProcess)
    long = Learning("x" * 100_000)

    def say() -> None:
        while True:
            engine.send(long)

    with pytest.raises(ControlClosedError):
        say()
    came: list[bool] = []

    def hear() -> None:
        while True:
            came.extend(heard.message == long for heard in supervisor.receive())

    with pytest.raises(ControlClosedError):
        hear()
    assert came
    assert all(came), "what came is whole"
    with pytest.raises(ControlClosedError):
        engine.receive()
    engine.close()
    supervisor.close()


class _Subclass(LoadError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GrammarError("no"), GrammarError),
        (BuildError("no"), BuildError),
        (_Subclass("no"), LoadError),
        (Escaped("no"), LoadError),
        (ValueError("no"), ForwardpassError),
    ],
)
def test_an_error_is_the_same_in_another_process(
    error: Exception, kind: type[ForwardpassError]
) -> None:
    again = ProcessFailed.of(error).error()
    assert type(again) is kind
    assert "no" in str(again)
