"""Batch and What if in a browser: what stands there is what the server says, and torch."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import models
import pytest
import torch
from browsing import answers
from conftest import Opens
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from torch import nn

from forwardpass import Forward, Model
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions import batch
from forwardpass.exploring.rows import given

PATIENCE_MS = 60_000


def told(tab: Tab, of: str) -> Any:
    """What the server answers, which it keeps: the same as the page has."""
    base, _, fragment = tab.url.partition("#")
    token = parse_qs(fragment)["t"][0]
    request = Request(
        f"{base}ask",
        json.dumps({"of": of, "arguments": {}}).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    with urlopen(request, timeout=60) as reply:
        return json.loads(reply.read().decode().rpartition("event: answer\ndata: ")[2])


def test_the_curve_is_what_the_server_says(live: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_CURVE_SECONDS", 0.3)
    monkeypatch.setattr(batch, "_RACE_SECONDS", 0.2)
    exploration = Exploration("mlp", given(Forward(models.mlp())))
    tab = live(exploration, view=7)
    tab.set_default_timeout(PATIENCE_MS)
    tab.locator(".ask li button").first.wait_for()
    points = told(tab, "batch.curves")["points"]
    assert tab.locator("table.curve").count() == 0
    assert tab.locator("[data-value]").count() == 0
    tab.locator(".ask li button").nth(1).click()
    rows = tab.locator("table.curve tbody tr")
    rows.first.wait_for(state="attached")
    said = [
        (int(row.get_attribute("data-rows") or 0), row.get_attribute("data-seconds"))
        for row in rows.all()
    ]
    medians = [one["seconds"]["median"] for one in points]
    assert [rows for rows, _ in said] == [one["rows"] for one in points]
    assert [float(took or 0) for _, took in said] == medians
    drawn = tab.locator("figure").first.locator("circle")
    values = [float(one.get_attribute("data-value") or 0) for one in drawn.all()]
    assert values == medians
    answers(tab)
    lanes = tab.eval_on_selector_all(
        ".lane .parts",
        """lanes => lanes.map(lane => [lane.getBoundingClientRect().width,
          [...lane.children].reduce((sum, one) => sum + one.getBoundingClientRect().width, 0)])""",
    )
    assert all(drawn > 0.5 * wide > 0 for wide, drawn in lanes), "the rows fill their lane"


def test_without_a_relu_is_what_torch_computes_and_a_form_adds_a_row(live: Opens) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    x = torch.randn(20, 8)
    model = Model(module, "x: f32[batch 8]", decode=lambda out: {"class": out["output"].argmax(-1)})
    exploration = Exploration("scores", given(Forward(model), {"x": x.numpy()}))
    with torch.no_grad():
        bent, flat = module(x), module[2](module[0](x))
    assert len(set(bent.argmax(-1).tolist())) > 1
    same = (bent.argmax(-1) == flat.argmax(-1)).double().mean().item()
    tab = live(exploration, view=8)
    tab.set_default_timeout(PATIENCE_MS)
    row = tab.locator("tr[data-change='without ReLU 1']")
    row.wait_for()
    assert row.get_attribute("data-same") is None
    assert row.locator("td").nth(1).inner_text() == "?"
    tab.locator(".ask li button").first.click()
    expect(row).to_have_attribute("data-same", str(same), timeout=PATIENCE_MS)
    tab.get_by_role("button", name="Prune…").focus()
    tab.keyboard.press("Enter")
    tab.get_by_label("% of the smallest").fill("40")
    tab.keyboard.press("Enter")
    added = tab.locator("tbody tr").last
    expect(added).to_contain_text("40\u2009% of the weights pruned")
    hashes = tab.locator(".head .num").all_inner_texts()
    assert len(hashes) == 2
    assert hashes[1] in (hashes[0], "?")
