"""What one client may do to a server over real sockets, and what it is told."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from front import Client, Front, echo, protocol, request, serving

from forwardpass.serving.exchanges import Exchange, Reply
from forwardpass.serving.gauges import REGISTRY


def until(what: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)


class Held:
    """A handler that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Exchange] = []
        self.left: list[Exchange] = []
        self._futures: list[asyncio.Future[None]] = []

    async def __call__(self, exchange: Exchange) -> Reply:
        future = asyncio.get_running_loop().create_future()
        self.asked.append(exchange)
        self._futures.append(future)
        exchange.gone = lambda: self.left.append(exchange)
        await future
        return Reply(200, b'"%b"' % exchange.body)

    def release(self, front: Front) -> None:
        def each() -> None:
            for future in self._futures:
                if not future.done():
                    future.set_result(None)

        front.do(each)


def test_requests_on_one_connection_are_answered_in_their_order() -> None:
    held = Held()
    with serving(protocol(echo=echo, held=held)) as front, front.client() as client:
        client.send(
            request("/held", b"1") + request("/echo", b"2") + request("/nowhere") + request("/held")
        )
        until(lambda: len(held.asked) == 1)
        held.release(front)
        assert client.answer().json == "1"
        assert client.answer().json[0] == 1
        assert client.answer().status == 404
        until(lambda: len(held.asked) == 2)
        held.release(front)
        assert client.answer().status == 200
        client.send(request(body=b"still open"))
        assert client.answer().json[1] == "still open"


def test_only_so_many_requests_may_wait_for_each_other() -> None:
    with serving() as front, front.client() as client:
        client.send(request() * 3_000)
        statuses: list[int] = []
        while 429 not in statuses:
            answer = client.answer()
            statuses.append(answer.status)
        assert answer.headers["connection"] == "close"
        assert set(statuses[:-1]) == {200}
        assert len(statuses) > 100


def test_a_request_that_comes_byte_by_byte_is_the_same() -> None:
    with serving() as front, front.client() as client:
        whole = request("/echo?a=b", b"body", X_Request_Id="mine")
        for at in range(len(whole)):
            client.send(whole[at : at + 1])
        answer = client.answer()
        assert answer.json == [4, "body", "a=b"]
        assert answer.headers["x-request-id"] == "mine"


def test_a_body_in_chunks_is_joined_and_its_trailers_are_nobodys_headers() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving() as front, front.client() as client:
        client.send(head + b"3\r\nabc\r\n", b"2;why=not\r\nde\r\n0\r\nX-Request-Id: no\r\n\r\n")
        first = client.answer()
        assert first.json[:2] == [5, "abcde"]
        assert first.headers["x-request-id"] != "no"
        client.send(request())
        assert client.answer().headers["x-request-id"] != "no"


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (request(X="a" * 5_000), 431, "headers"),
        (request(target="/echo?" + "a" * 3_000), 414, "2,048"),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n", 413, "8,192"),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
         + b"1000\r\n%b\r\n" % (b"a" * 4_096) * 3, 413, "8,192"),
        (request(Expect="a miracle"), 417, "100-continue"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400, "Host"),
        (request(Transfer_Encoding="gzip, chunked"), 400, "Transfer-Encoding"),
        (request(host="other"), 400, "host came twice"),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "CONNECT"),
        (request(Connection="Upgrade", Upgrade="websocket"), 400, "WebSocket"),
        (b"GET /echo HTTP/2.0\r\nHost: localhost\r\n\r\n", 400, "HTTP/2.0"),
        (b"GET /echo\r\n\r\n", 400, "HTTP/0.9"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "not an HTTP request"),
    ],
)  # fmt: skip
def test_what_may_not_come_is_refused_in_json(sent: bytes, status: int, said: str) -> None:
    limits = {"header_bytes": 4_096, "target_bytes": 2_048, "body_bytes": 8_192}
    with serving(limits=limits) as front:
        with front.client() as client:
            client.send(sent)
            answer = client.answer()
            assert (answer.status, said in answer.json["error"]) == (status, True), answer
        assert front.ask(request(body=b"fine")).json[1] == "fine"


def test_chunks_that_are_more_framing_than_body_are_not_read_on() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for sent in (b"1;%b" % (b"x" * 600_000), b"0\r\nX: %b" % (b"x" * 600_000)):
        with serving() as front, front.client() as client:
            client.send(head, sent)
            answer = client.answer()
            assert (answer.status, "framing" in answer.json["error"]) == (400, True)


@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nX: "])
def test_a_head_without_end_is_not_kept(head: bytes) -> None:
    with serving() as front, front.client() as client:
        client.send(head)
        for _ in range(1_000):
            try:
                client.send(b"a" * 65_536)
            except OSError:
                break
            time.sleep(0.001)
        else:
            raise AssertionError("64 MB of a head were read")
        assert front.do(lambda: front.connections.arriving_bytes) == 0


def test_a_body_that_is_refused_by_its_length_is_answered_before_it_is_sent() -> None:
    with serving(limits={"body_bytes": 100}) as front, front.client() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000\r\n\r\n")
        assert client.answer().status == 413
        assert client.is_closed()


def test_a_client_that_is_still_sending_reads_why_it_was_refused() -> None:
    with serving(limits={"body_bytes": 1_000}) as front, front.client() as client:
        client.send(request(body=b"a" * 20_000_000))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_an_old_client_is_answered_and_its_connection_ends() -> None:
    with serving() as front:
        for line in (b"", b"Host: localhost\r\n"):
            with front.client() as client:
                client.send(b"GET /echo HTTP/1.0\r\n" + line + b"\r\n")
                answer = client.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert client.is_closed()


def test_an_old_client_that_would_keep_its_connection_sees_it_end() -> None:
    old = b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    with serving() as front:
        for behind in (b"", request()):
            with front.client() as client:
                client.send(old + behind)
                answer = client.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert client.is_closed()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_head_that_is_refused_is_of_its_own_method(method: str) -> None:
    other = "HEAD" if method == "GET" else "GET"
    long = request("/echo?" + "a" * 3_000, method=method)
    with serving(limits={"target_bytes": 2_048}) as front, front.client() as client:
        client.send(request(method=other))
        assert client.answer(body=other != "HEAD").status == 200
        client.send(long)
        answer = client.answer(body=method != "HEAD")
        assert answer.status == 414
        assert int(answer.headers["content-length"]) > 0
        assert (b"2,048" in answer.body) == (method == "GET")
        assert client.is_closed()


def test_expect_100_continue() -> None:
    with serving(limits={"body_bytes": 100}) as front:
        head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        with front.client() as client:
            client.send(head + b"Content-Length: 4\r\n\r\n")
            assert client.line() == b"HTTP/1.1 100 Continue"
            client.send(b"body")
            assert client.answer().json[1] == "body"
        assert front.ask(head + b"Content-Length: 400\r\n\r\n").status == 413


def test_an_offer_to_upgrade_is_not_heeded() -> None:
    with serving() as front, front.client() as client:
        sent = request(
            body=b"body", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AA"
        )
        client.send(sent + request(body=b"next"))
        assert client.answer().json[1] == "body"
        assert client.answer().json[1] == "next"


def test_slow_clients_are_told_and_silent_ones_are_not_kept() -> None:
    limits = {"arrival_seconds": 0.3, "idle_seconds": 0.3}
    with serving(limits=limits) as front:
        for sent in (b"", request(), b"\r\n"):
            with front.client() as client:
                client.send(sent)
                if sent == request():
                    assert client.answer().status == 200
                assert client.is_closed()
        whole = request(body=b"a" * 100)
        for part in (whole[:5], whole[:40], whole[:-5]):
            with front.client() as client:
                client.send(part)
                answer = client.answer()
                assert (answer.status, answer.headers["connection"]) == (408, "close")
                assert client.is_closed()
        until(lambda: front.do(lambda: len(front.connections.all)) == 0)


def test_drops_of_a_slow_request_win_no_time() -> None:
    with serving(limits={"arrival_seconds": 0.4}) as front, front.client() as client:
        began = time.monotonic()
        client.send(b"POST /echo HTTP/1.1\r\n")
        while time.monotonic() - began < 4:
            try:
                client.send(b"X: y\r\n")
            except OSError:
                return
            time.sleep(0.05)
        raise AssertionError("it still sends its headers")


def test_a_client_that_does_not_read_is_let_go() -> None:
    async def large(exchange: Exchange) -> Reply:
        pieces: list[bytes | memoryview] = [b"a" * 1_000_000] * 30
        return Reply(200, pieces)

    limits = {"reply_seconds": 0.3}
    with serving(protocol(large=large), limits=limits) as front, front.client() as client:
        client.send(request("/large") * 3)
        until(lambda: front.do(lambda: len(front.connections.all)) == 1)
        until(lambda: front.do(lambda: len(front.connections.all)) == 0)


def test_of_a_client_that_leaves_nothing_is_left() -> None:
    held = Held()
    with serving(protocol(held=held)) as front:
        for closes in (True, False):
            client = front.client()
            client.send(request("/held"))
            until(lambda: len(held.asked) > len(held.left))
            if closes:
                client.socket.close()
            else:
                client.socket.shutdown(socket.SHUT_WR)
            until(lambda: len(held.asked) == len(held.left))
            client.socket.close()
        until(lambda: not front.do(lambda: front.connections.all))
        held.release(front)


def test_connections_above_the_cap_are_told_so() -> None:
    with serving(limits={"connections": 3}) as front:
        clients = [front.client() for _ in range(3)]
        for client in clients:
            client.send(request())
            assert client.answer().status == 200
        with front.client() as client:
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert "retry-after" in answer.headers
            assert "connections" in answer.json["error"]
        clients.pop().socket.close()

        def comes_in() -> bool:
            with front.client() as client:
                client.send(request())
                return client.answer().status == 200

        until(comes_in)
        for client in clients:
            client.socket.close()


def test_bodies_that_arrive_are_bounded_together() -> None:
    limits = {"body_bytes": 1_000_000, "queue_bytes": 1_500_000}
    with serving(limits=limits) as front:
        clients = [front.client() for _ in range(2)]
        for client in clients:
            client.send(request(body=b"a" * 900_000)[:-1])
        statuses: list[int] = []

        def read(client: Client) -> None:
            statuses.append(client.answer().status)

        threads = [threading.Thread(target=read, args=[client]) for client in clients]
        for thread in threads:
            thread.start()
        until(lambda: len(statuses) == 1)
        for client in clients:
            try:
                client.send(b"a")
            except OSError:
                continue
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 503]
        for client in clients:
            client.socket.close()
        until(lambda: front.do(lambda: front.connections.arriving_bytes) == 0)


def test_a_body_that_is_decompressed_is_bounded_with_all_others() -> None:
    """Few bytes that arrive may be many that are held."""
    held = Held()
    limits = {"body_bytes": 8_000_000, "queue_bytes": 12_000_000}
    sent = request("/held", gzip.compress(bytes(7_000_000)), Content_Encoding="gzip")
    with serving(protocol(held=held, echo=echo), limits=limits) as front:
        with front.client() as first, front.client() as other:
            first.send(sent)
            until(lambda: len(held.asked) == 1)
            assert front.do(lambda: front.connections.arriving_bytes) == 7_000_000
            other.send(sent)
            answer = other.answer()
            assert (answer.status, "held" in answer.json["error"]) == (503, True)
            assert "retry-after" in answer.headers
            front.do(held.asked[0].let_go)  # as who counts it otherwise does
            other.send(sent)
            until(lambda: len(held.asked) == 2)
            assert front.do(lambda: front.connections.arriving_bytes) == 7_000_000
            held.release(front)
            assert {first.answer().status, other.answer().status} == {200}
        assert front.do(lambda: front.connections.arriving_bytes) == 0


def test_bodies_that_wait_for_their_turn_are_bounded_with_those_that_arrive() -> None:
    held = Held()
    with serving(protocol(held=held), limits={"queue_bytes": 1_500_000}) as front:
        first, other = front.client(), front.client()
        first.send(request("/held", b"1") + request("/held", bytes(900_000)))
        until(lambda: front.do(lambda: front.connections.arriving_bytes) == 900_001)
        other.send(request("/held", bytes(900_000)))
        assert other.answer().status == 503
        first.socket.close()
        held.release(front)
        until(lambda: front.do(lambda: front.connections.arriving_bytes) == 0)
        other.socket.close()


def test_a_drain_answers_what_was_received_whole_and_refuses_the_rest() -> None:
    held = Held()
    with serving(protocol(held=held)) as front:
        asking, between, late = front.client(), front.client(), front.client()
        asking.send(request("/held", b"1") + request("/held", b"2"))
        between.send(request("/held", b"half")[:-1])
        until(lambda: len(held.asked) == 1)
        until(lambda: front.do(lambda: len(front.connections.all)) == 3)
        drained = front.drain(10.0)
        until(lambda: front.do(lambda: front.connections.draining))
        late.send(request("/held"))
        answer = late.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert late.is_closed()
        for said in ("1", "2"):
            until(lambda said=said: len(held.asked) == int(said))
            held.release(front)
            assert asking.answer().json == said
        assert asking.is_closed()
        assert between.answer().status == 503
        drained.result(5)
        assert not front.do(lambda: front.connections.all)
        for client in (asking, between, late):
            client.socket.close()


def test_a_drain_has_an_end() -> None:
    held, before = Held(), replied()
    with serving(protocol(held=held)) as front, front.client() as client:
        client.send(request("/held"))
        until(lambda: len(held.asked) == 1)
        front.drain(0.2).result(5)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        (left,) = held.left
        assert left.refusal is not None
        assert left.refusal.reason == "draining"
    assert replied() - before == {"503": 1}  # and none that the client left


def test_a_drain_waits_for_a_reply_that_is_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwardpass.serving.connections._LINGER_SECONDS", 0.05)
    size = 30_000_000

    async def large(exchange: Exchange) -> Reply:
        return Reply(200, bytes(size))

    with serving(protocol(large=large)) as front:
        for reads in (True, False):
            with front.client() as client:
                before = replied()
                client.send(request("/large"))
                until(lambda before=before: replied() != before)
                assert front.do(lambda: any(one.busy for one in front.connections.all))
                drained = front.drain(10.0 if reads else 0.3)
                time.sleep(0.3)  # as long as a drain takes that waits for nothing
                if reads:
                    assert len(client.answer().body) == size
                drained.result(5)
                assert not front.do(lambda: front.connections.all)
            front.do(lambda: setattr(front.connections, "draining", False))


def replied() -> Counter[str]:
    """Replies that were counted, by status."""
    (family,) = (f for f in REGISTRY.collect() if f.name == "forwardpass_replies")
    return Counter(
        {
            sample.labels["status"]: int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        }
    )


def test_a_truncated_request_is_told_what_is_missing() -> None:
    with serving() as front:
        whole = request(body=b"a" * 100)
        assert front.ask(whole[:20], half_close=True).status == 400
        answer = front.ask(whole[:-5], half_close=True)
        assert answer.status == 400
        assert "Content-Length is 100, and 95 bytes came" in answer.json["error"]


def test_what_is_refused_before_a_model_has_it_is_counted_by_reason() -> None:
    """By words of this server alone: nothing that a client sends becomes a label."""
    limits = {"header_bytes": 400, "body_bytes": 50, "arrival_seconds": 0.2, "connections": 3}

    def counts() -> Counter[str]:
        (family,) = (f for f in REGISTRY.collect() if f.name == "forwardpass_refused")
        return Counter(
            {
                sample.labels["reason"]: int(sample.value)
                for sample in family.samples
                if sample.name.endswith("_total") and not sample.labels["model"]
            }
        )

    before = counts()
    with serving(limits=limits, token="secret") as front:
        bearer: Any = {"Authorization": "Bearer secret"}
        for sent in (
            request("/echo"),
            request("/echo", Authorization="Bearer other"),
            request("/nowhere", **bearer),
            request("/one-more-place", **bearer),
            request(method="PUT", **bearer),
            request(x="y" * 500),
            request(body=b"z" * 60, **bearer),
            b"what is this\r\n\r\n",
            request(body=b"slow", **bearer)[:-2],
            request(body=b"no gzip", Content_Encoding="gzip", **bearer),
        ):
            assert 400 <= front.ask(sent).status < 500
        with front.client(), front.client(), front.client():
            until(lambda: len(front.connections.all) == 3)
            assert front.ask(request()).status == 503
    assert counts() - before == {
        "token": 2, "path": 2, "method": 1, "headers": 1, "body": 1, "malformed": 1, "slow": 1,
        "invalid": 1, "connections": 1,
    }  # fmt: skip
