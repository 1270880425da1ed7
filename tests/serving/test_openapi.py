"""`/openapi.json` says what the signatures say; the page needs nothing but this server."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import jsonschema_rs
import numpy as np
from standing_in import StandIn, about, answered, replied

from forwardpass.serving.asking import Answered, Inquiry
from forwardpass.serving.protocols import inference, openapi, rows

VECTOR = StandIn(about("features: f32[batch 3]", example="[1.0,2.0,3.0]"))
TEXTS = StandIn(
    about(
        "ids: i64[batch tokens=1..8] pad 0",
        encodes=True,
        columns=("text",),
        decodes=True,
        example='"a text"',
        forward="/home/me/models/texts.py:model @ eager",
    ),
    name="a text/model",
)


def test_each_model_has_a_path_with_its_signature() -> None:
    services = [VECTOR, TEXTS, StandIn(None, name="bert")]
    status, told = answered(openapi, services, "GET", "/openapi.json")
    assert status == 200
    assert told["openapi"] == "3.1.0"
    wanted = {"/models", "/models/mlp", "/models/a%20text%2Fmodel", "/models/bert"}
    wanted |= {"/v2", "/v2/models/mlp", "/v2/models/mlp/infer", "/v2/models/a%20text%2Fmodel/infer"}
    assert wanted | {"/v1/embeddings", "/healthz", "/readyz"} <= set(told["paths"])
    content = told["paths"]["/models/mlp"]["post"]["requestBody"]["content"]["application/json"]
    schema = {**content["schema"], "components": told["components"]}
    fits = jsonschema_rs.validator_for(schema).is_valid
    assert fits(content["example"])
    assert answered(rows, [VECTOR], "POST", "/models/mlp", content["example"])[0] == 200
    for row in ([1, 2], [1, 2, 3, 4], [1, 2, True], [1, 2, 1e39], {"feature": [1, 2, 3]}, "a"):
        assert not fits({"rows": [row]})
        assert answered(rows, [VECTOR], "POST", "/models/mlp", {"rows": [row]})[0] == 400


def test_what_it_shows_of_the_inference_protocol_is_answered() -> None:
    _, told = answered(openapi, [VECTOR, TEXTS], "GET", "/openapi.json")
    for path, values in (("mlp", [0, 0, 0]), ("a%20text%2Fmodel", [0])):
        operation = told["paths"][f"/v2/models/{path}/infer"]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        schema = {**content["schema"], "components": told["components"]}
        example = content["example"]
        assert jsonschema_rs.validator_for(schema).is_valid(example)
        assert example["inputs"][0]["data"] == values
        asked: list[Inquiry] = []

        def answer(inquiry: Inquiry) -> Answered:
            asked.append(inquiry)  # noqa: B023
            return Answered((), {"output": np.zeros((1, 4), np.float32)}, [()])

        served = [StandIn(VECTOR.about, answer), StandIn(TEXTS.about, answer, TEXTS.name)]
        status, said = answered(inference, served, "POST", f"/v2/models/{path}/infer", example)
        assert (status, said["model_version"], len(asked)) == (200, "1", 1)
        example["inputs"][0]["name"] = "another"
        assert not jsonschema_rs.validator_for(schema).is_valid(example)


def test_no_folder_of_this_machine_is_told() -> None:
    for protocol, path in ((openapi, "/openapi.json"), (rows, "/models")):
        told = json.dumps(answered(protocol, [TEXTS], "GET", path)[1], ensure_ascii=False)
        assert "…/texts.py:model" in told
        assert "/home/me" not in told


def test_all_references_lead_somewhere() -> None:
    _, told = answered(openapi, [VECTOR, TEXTS], "GET", "/openapi.json")
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(told)):
        assert name in told["components"]["schemas"]


def test_the_page_runs_its_own_script_and_fetches_from_here_alone() -> None:
    reply = replied(openapi, [VECTOR], "GET", "/docs")
    assert isinstance(reply.body, bytes)
    html, policy = reply.body.decode(), dict(reply.headers)[b"content-security-policy"].decode()
    for name in ("style", "script"):
        (text,) = re.findall(f"<{name}>(.*?)</{name}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?://|innerHTML|\bon[a-z]+=|style=", html)
    assert dict(replied(openapi, [VECTOR], "GET", "/").headers)[b"location"] == b"/docs"
