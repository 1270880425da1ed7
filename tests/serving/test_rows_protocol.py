"""`POST /models/{name}` and what is told of models and their health."""

from __future__ import annotations

import numpy as np
from standing_in import StandIn, about, answered

from forwardpass.serving.asking import Answered
from forwardpass.serving.protocols import health, rows

VECTOR = "features: f32[batch 3]"
ROWS = {"rows": [[1, 2, 3], [4, 5, 6]]}


def test_rows_come_back_in_order_and_are_not_written_anew() -> None:
    service = StandIn(about(VECTOR), lambda _: Answered([b'{"y":1.0}', b'{"y":[2]}'], {}, []))
    assert answered(rows, [service], "POST", "/models/mlp", ROWS) == (
        200,
        {"rows": [{"y": 1.0}, {"y": [2]}]},
    )
    (asked,) = service.asked
    assert asked.decoded
    assert asked.arrays is not None
    np.testing.assert_array_equal(asked.arrays["features"], np.array(ROWS["rows"], "f4"))


def test_rows_that_were_cut_are_named() -> None:
    service = StandIn(about(VECTOR), lambda _: Answered([b"1", b"2"], {}, [], [1]))
    told = answered(rows, [service], "POST", "/models/mlp", ROWS)
    assert told == (200, {"rows": [1, 2], "truncated": [1]})


def test_no_rows_ask_nothing() -> None:
    service = StandIn(about(VECTOR))
    assert answered(rows, [service], "POST", "/models/mlp", {"rows": []}) == (200, {"rows": []})
    assert not service.asked


def test_an_unknown_model_and_one_that_is_not_ready() -> None:
    services = [StandIn(about(VECTOR)), StandIn(None, name="bert")]
    status, told = answered(rows, services, "POST", "/models/mpl", ROWS)
    assert status == 404
    assert "did you mean 'mlp'?" in told["error"]
    assert answered(rows, services, "POST", "/models/bert", ROWS)[0] == 503


def test_what_is_served_is_told() -> None:
    services = [StandIn(about(VECTOR)), StandIn(None, name="bert")]
    status, told = answered(rows, services, "GET", "/models")
    assert status == 200
    assert [model["name"] for model in told["models"]] == ["mlp", "bert"]
    assert answered(rows, services, "GET", "/models/mlp")[1]["inputs"] == [VECTOR]
    assert answered(rows, services, "GET", "/models/bert")[1] == {"name": "bert", "ready": False}


def test_health_is_of_the_process_and_readiness_of_its_models() -> None:
    services = [StandIn(about(VECTOR)), StandIn(None, name="bert")]
    assert answered(health, services, "GET", "/healthz") == (200, {"live": True})
    assert answered(health, services, "GET", "/readyz") == (503, {"ready": False})
    assert answered(health, services[:1], "GET", "/readyz")[0] == 200
