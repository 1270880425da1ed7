"""Which way a request goes, and what is said where there is none."""

from __future__ import annotations

import pytest
from front import echo, protocol, request, serving

from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.routing import MethodRefusedError, Router, told

ROUTER = Router(
    (Route(method, pattern, echo), told)
    for method, pattern in (
        ("GET", "/"), ("GET", "/models"), ("POST", "/models/{name}"), ("GET", "/models/{name}"),
        ("POST", "/v2/models/{name}/versions/{version}/infer"), ("GET", "/v2/models/stats"),
        ("GET", "/v2/models/{name}"), ("GET", "/v2/models/{name}/versions/{version}"),
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "parts"),
    [
        ("GET", b"/", {}),
        ("HEAD", b"/models", {}),
        ("POST", b"/models/a%2Fb", {"name": "a/b"}),
        ("POST", b"/models/%C3%A4", {"name": "ä"}),
        ("GET", b"/v2/models/stats", {}),
        ("POST", b"/v2/models/m/versions/1/infer", {"name": "m", "version": "1"}),
        ("POST", b"/v2/models/stats/versions/1/infer", {"name": "stats", "version": "1"}),
        ("GET", b"/v2/models/stats/versions/1", {"name": "stats", "version": "1"}),
    ],
)
def test_what_is_in_braces_is_one_segment(method: str, path: bytes, parts: dict[str, str]) -> None:
    for _ in range(2):  # the second time it is remembered
        assert [*ROUTER.way(method, path).parts.items()] == [*parts.items()]


@pytest.mark.parametrize(
    "path", [b"/model", b"/models/", b"/models//", b"//models", b"*", b"/models/a/b", b"/v2"]
)
def test_elsewhere_nothing_is(path: bytes) -> None:
    with pytest.raises(RefusedError) as raised:
        ROUTER.way("GET", path)
    assert raised.value.status == 404
    assert "POST /models/{name}" in str(raised.value)


def test_another_method_is_told_which_there_are() -> None:
    with pytest.raises(MethodRefusedError) as raised:
        ROUTER.way("DELETE", b"/models/a")
    assert raised.value.allow == "GET, HEAD, OPTIONS, POST"
    with pytest.raises(RefusedError, match="UTF-8"):
        ROUTER.way("GET", b"/models/%ff")


def test_many_paths_are_not_all_remembered() -> None:
    for number in range(5_000):
        ROUTER.way("GET", b"/models/%d" % number)
    assert len(ROUTER._ways) <= 1_024  # pyright: ignore[reportPrivateUsage]


def test_a_client_is_answered_though_a_protocol_has_no_words_for_an_error() -> None:
    async def refuse(exchange: Exchange) -> Reply:
        raise RefusedError(422, "this row cannot be")

    def errors(error: RefusedError) -> Reply:
        raise KeyError(error.status)

    file = protocol(refuse=refuse, echo=echo)
    vars(file)["errors"] = errors
    with serving(file) as front:
        answer = front.ask(request("/refuse"))
        assert (answer.status, answer.json["error"]) == (422, "this row cannot be")
        assert front.ask(request("/echo", b"next")).status == 200


def test_head_and_options_over_a_socket() -> None:
    with serving() as front, front.client() as client:
        client.send(request("/echo", method="HEAD") + request("/echo", method="OPTIONS"))
        head = client.answer(body=False)
        assert (head.status, head.headers["content-length"]) == (200, "11")
        options = client.answer()
        assert (options.status, options.headers["allow"]) == (204, "get, head, options, post")
        client.send(request("http://localhost/echo?a=b", b"x"))
        assert client.answer().json == [1, "x", "a=b"]
