"""However the bytes of requests are cut on their way, the same requests arrive."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import malformed_http
import pytest
from front import echo, protocol
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed_http import Asked

from forwardpass.serving.applications import Application
from forwardpass.serving.arrivals import Arrivals
from forwardpass.serving.identities import Identities
from forwardpass.serving.options import RequestLimits, ServeOptions

OPTIONS = ServeOptions(models=())


class House:
    """What connections share, without connections."""

    draining = False
    arriving_bytes = 0
    limits = RequestLimits(body_bytes=malformed_http.BODY_BYTES)

    def __init__(self) -> None:
        self.application = Application({}, OPTIONS, [protocol(echo=echo)])
        self.identities = Identities()


def arrived(data: bytes, cuts: list[int]) -> tuple[list[Any], bool]:
    """What became whole, and whether nothing more is read."""
    house = House()
    arrivals = Arrivals(house)
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for begin, end in pairwise(ends):
        arrivals.feed(data[begin:end], 0.0)
    turns = [
        (turn.exchange.method, turn.exchange.path, turn.exchange.query, turn.exchange.body,
         dict(turn.exchange.headers), turn.way.refuses, turn.last, turn.cut)
        for turn in arrivals.waiting
    ]  # fmt: skip
    for turn in arrivals.waiting:
        turn.exchange.let_go()
    assert arrivals.arriving or not house.arriving_bytes
    return turns, arrivals.deaf


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Some requests that are right, one after the other."""
    whole = b""
    for _ in range(draw(st.integers(1, 4))):
        body = draw(st.binary(max_size=300))
        asked = Asked(draw(st.sampled_from(["/echo", "/echo?a=b", "/nowhere"])), body)
        kind = draw(st.integers(0, 3))
        chance = random.Random(draw(st.integers(0, 99)))
        if kind == 0 and len(body) > 1:
            head = malformed_http.head(asked, "Transfer-Encoding: chunked")
            whole += head + b"".join(malformed_http.chunked(chance, body)) + b"0\r\nT: x\r\n\r\n"
        elif kind == 1:
            upgrade = ("Connection: Upgrade", "Upgrade: h2c")
            whole += malformed_http.whole(asked, *upgrade)
        else:
            whole += b"\r\n" * (kind - 2) + malformed_http.whole(asked, "X: " + "y" * len(body))
    return whole


@given(requests(), st.lists(st.integers(0, 5_000), max_size=12))
@settings(deadline=None)
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    turns, deaf = arrived(data, cuts)
    assert (turns, deaf) == arrived(data, [])
    assert not deaf
    assert arrived(data, list(range(len(data)))) == (turns, deaf)


SMALL = sorted(malformed_http.CLASSES.keys() - {"too_large", "compression_bombs"})


@pytest.mark.parametrize("kind", SMALL)
def test_what_is_refused_is_so_however_it_is_cut(kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(40):
        sent = malformed_http.CLASSES[kind](chance, Asked("/echo", b'{"rows":[[1,2,3]]}')).bytes
        if len(sent) > 4_000:
            continue
        cuts = [chance.randrange(len(sent) + 1) for _ in range(5)]
        assert told(*arrived(sent, cuts)) == told(*arrived(sent, [])), (sent, cuts)


def told(turns: list[Any], deaf: bool) -> list[Any]:
    """What is known of them all, also of one that was refused before it was whole."""
    return [turn[3:4] + turn[5:] for turn in turns] + [deaf]
