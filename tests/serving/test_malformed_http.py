"""Whatever comes over a socket that is no request: a 4xx in JSON, and the next one is answered."""

from __future__ import annotations

import random
import socket
import threading

import malformed_http
import pytest
from front import Answer, Client, request, serving
from malformed_http import Asked, Sent
from standing_in import StandIn, about

from forwardpass.serving.protocols import rows

ROWS = b'{"rows":[[1,2,3],[4,5,6]]}'
COUNTS = [pytest.param(60), pytest.param(600, marks=pytest.mark.soak)]
LIMITS = {
    "body_bytes": malformed_http.BODY_BYTES, "header_bytes": malformed_http.HEADER_BYTES,
}  # fmt: skip


def answers(port: int, sent: Sent, seconds: float = 10.0) -> list[Answer]:
    """All that is said to it, each thing in so many seconds."""
    with Client(port, seconds=seconds) as client:
        try:
            client.send(sent.bytes)
            if sent.ends:
                client.socket.shutdown(socket.SHUT_WR)
        except OSError:  # it was refused before its end
            pass
        found = [client.answer()]
        while client.more() or (sent.ends and found[-1].headers.get("connection") != "close"):
            try:
                found.append(client.answer())
            except EOFError:
                break
        return found


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", list(malformed_http.CLASSES))
def test_it_is_refused_and_the_next_is_answered(kind: str, count: int) -> None:
    chance, service = random.Random(kind), StandIn(about("features: f32[batch 3]"))
    threads = threading.active_count()
    with serving(rows, services={"mlp": service}, limits=LIMITS) as front:
        for _ in range(count):
            sent = malformed_http.CLASSES[kind](chance, Asked("/models/mlp", ROWS))
            for answer in answers(front.port, sent):
                assert 400 <= answer.status < 500, (sent.bytes[:300], answer)
                assert len(answer.json["error"]) < 1_000, answer
        assert not service.asked
        assert front.ask(request("/models/mlp", ROWS)).status == 200
        assert front.do(lambda: front.connections.arriving_bytes) == 0
        assert front.do(lambda: not any(one.busy for one in front.connections.all))
    assert threading.active_count() <= threads + 8  # those that decompress
