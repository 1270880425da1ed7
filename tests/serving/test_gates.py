"""Who may ask: tokens, names of the host, pages of other sites."""

from __future__ import annotations

from typing import Any

import pytest
from front import Answer, request, serving
from standing_in import StandIn, about

from forwardpass.serving.protocols import health, openapi, rows

ROWS = b'{"rows":[[1,2,3]]}'
FILES = (rows, health, openapi)
SITE = "https://example.org"


def asked(options: dict[str, Any], *sent: bytes) -> list[Answer]:
    service = StandIn(about("features: f32[batch 3]"))
    with serving(*FILES, services={"mlp": service}, **options) as front:
        return [front.ask(one) for one in sent]


def test_without_the_token_only_probes_and_the_empty_page_are_answered() -> None:
    open_to_all = ("/healthz", "/readyz", "/docs", "/")
    told = ("/models", "/models/mlp", "/openapi.json", "/nowhere", "/metrics")
    answers = asked(
        {"token": "s3cret", "host": "0.0.0.0"},
        *(request(path, method="GET") for path in open_to_all + told),
        request("/models/mlp", ROWS),
    )
    for path, answer in zip(open_to_all + told, answers, strict=False):
        assert (answer.status == 401) == (path in told), path
    assert answers[-1].status == 401
    assert "Bearer" in answers[-1].json["error"]
    assert answers[-1].headers["www-authenticate"] == "bearer"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("Bearer s3cret", 200), ("bearer  s3cret", 200), ("Bearer s3cre", 401), ("Bearer", 401),
        ("Bearer s3cretX", 401), ("Basic s3cret", 401), ("s3cret", 401), ("Bearer \xff", 401),
    ],
)  # fmt: skip
def test_the_token_must_be_the_same(given: str, status: int) -> None:
    sent = request("/models/mlp", ROWS, Authorization=given)
    (answer,) = asked({"token": "s3cret"}, sent)
    assert answer.status == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8000", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200),
        ("a.localhost", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("", 403),
    ],
)  # fmt: skip
def test_on_loopback_it_is_called_by_names_of_this_machine(host: str, status: int) -> None:
    """A page can give its own name to 127.0.0.1, and ask under it."""
    sent = request("/models", method="GET").replace(b"localhost", host.encode())
    (answer,) = asked({}, sent)
    assert answer.status == status
    bearing = sent.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer s3cret\r\n\r\n")
    assert asked({"token": "s3cret"}, bearing)[0].status == 200
    assert asked({"token": "s3cret", "is_local": True}, bearing)[0].status == status


def test_pages_of_other_sites_ask_only_where_they_are_allowed_to() -> None:
    sent = [
        request("/models/mlp", ROWS),
        request("/models/mlp", ROWS, Origin=SITE),
        request("/models/mlp", ROWS, Origin="http://localhost"),  # the page of this server
        request("/models/mlp", ROWS, Origin="null"),
    ]
    closed = asked({}, *sent)
    assert [answer.status for answer in closed] == [200, 403, 200, 403]
    assert all("access-control-allow-origin" not in answer.headers for answer in closed)
    opened = asked({"cors": (SITE,)}, *sent)
    assert [answer.status for answer in opened] == [200, 200, 200, 403]
    assert opened[1].headers["access-control-allow-origin"] == SITE
    everyone = asked({"cors": ("*",)}, *sent)
    assert [answer.status for answer in everyone] == [200, 200, 200, 200]


def test_a_browser_that_asks_first_is_told_what_it_may_send() -> None:
    preflight = request(
        "/models/mlp", method="OPTIONS", Origin=SITE, Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type",
    )  # fmt: skip
    (answer,) = asked({"cors": (SITE,), "token": "s3cret"}, preflight)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "post" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    refused = asked({"cors": (SITE,)}, preflight.replace(b"example.org", b"example.com"))
    assert "access-control-allow-origin" not in refused[0].headers
    (error,) = asked(
        {"cors": (SITE,), "token": "s3cret"}, request("/models/mlp", ROWS, Origin=SITE)
    )
    assert (error.status, error.headers["access-control-allow-origin"]) == (401, SITE)


def test_the_error_of_a_handler_tells_nothing_of_the_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(inquiry: object) -> Any:
        raise KeyError("/a/path/of/this/machine.py")

    service = StandIn(about("features: f32[batch 3]"), fail)
    with serving(*FILES, services={"mlp": service}) as front:
        answer = front.ask(request("/models/mlp", ROWS, X_Request_Id="find-me"))
        assert answer.status == 500
        assert "machine.py" not in answer.body.decode()
        assert "find-me" in answer.json["error"]
    assert "machine.py" in caplog.text
    assert "find-me" in caplog.text
