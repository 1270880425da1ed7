"""Ship in the browser: what the rules find, what was saved beside it, and a server that runs."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from browsing import answers
from commands import serving
from conftest import Opens
from playwright.sync_api import expect
from torch import Tensor, nn
from tunings import tuning

import forwardpass as fwd
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import given
from forwardpass.exploring.shipping import plans
from forwardpass.exploring.watched_servers import WatchedServer

SHIP = 9
FEATURES = "features: f32[batch 16]"


class Leaking(nn.Module):
    """Each row is told beside the mean of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 4)

    def forward(self, features: Tensor) -> Tensor:
        h = self.fc(features)
        return h - h.mean(0)


def test_what_is_found_stands_there_after_the_prediction(live: Opens) -> None:
    model = fwd.Model(Leaking().eval(), FEATURES)
    tab = live(Exploration("leaking", given(fwd.Forward(model))), view=SHIP)
    assert "After your prediction" in tab.inner_text("main")
    assert "batch-leak" not in tab.inner_text("main")
    answers(tab)
    findings = fwd.check(model, torch.randn(8, 16), mode="eval", grad="off")
    rules = tab.locator(".finds li.error b, .finds li.warning b, .finds li.note b")
    assert set(rules.all_inner_texts()) == {one.rule for one in findings}
    leak = next(one for one in findings if one.rule == "batch-leak")
    told = tab.locator(".finds li", has_text="batch-leak").first
    expect(told).to_contain_text(leak.remedy)
    assert "you" in tab.inner_text(".ask li >> nth=0")
    assert "measured" in tab.inner_text(".ask li >> nth=0")
    told.get_by_role("button", name="See the call").press("Enter")
    expect(tab.locator("#tab-2")).to_have_attribute("aria-selected", "true")


def test_a_tuning_stands_beside_it_as_a_table_and_a_picture(live: Opens) -> None:
    model = fwd.Model(Leaking().eval(), FEATURES)
    saved = tuning()
    tab = live(Exploration("tuned", given(fwd.Forward(model)), [saved]), view=SHIP)
    told = plans(saved).plans
    rows = tab.locator("section[aria-label=plans] table.plain tbody tr")
    expect(rows).to_have_count(len(told))
    said = {row.locator("td").first.inner_text(): row.inner_text() for row in rows.all()}
    for one in told:
        assert one.verdict in said[one.plan]
    drawn = [one for one in told if one.value is not None and one.error is not None]
    expect(tab.locator("section[aria-label=plans] svg title")).to_have_count(len(drawn))


class Served(NamedTuple):
    url: str
    rows: list[dict[str, list[float]]]


@pytest.fixture
def served(workplace: Path) -> Iterator[Served]:
    """A real server of `fwd serve`, of which three rows were asked together."""
    (workplace / "net.py").write_text(
        "import torch\nfrom torch import nn\nfrom forwardpass import Model\n\n"
        'model = Model(nn.Linear(4, 2), "features: f32[batch 4]")\n'
    )
    process, lines = serving("net.py", "--no-access-log")
    pasted = re.fullmatch(r"curl (\S+) -d '(.*)'", lines[-1])
    assert pasted, lines
    rows = json.loads(pasted[2])["rows"] * 3
    with urllib.request.urlopen(pasted[1], json.dumps({"rows": rows}).encode()) as reply:
        answered = json.load(reply)["rows"]
    yield Served(pasted[1].partition("/models/")[0], answered)
    process.terminate()
    assert process.wait(60) == 0
    assert process.stderr is not None
    process.stderr.close()


def test_the_batches_and_the_queue_of_a_server_are_seen(live: Opens, served: Served) -> None:
    model = fwd.Model(Leaking().eval(), FEATURES)
    watched = WatchedServer.at(served.url)
    made = Exploration("leaking", given(fwd.Forward(model)), served=watched)
    tab = live(made, view=SHIP)
    rail = tab.locator(".rail")
    expect(rail).to_contain_text(served.url)
    expect(rail).to_contain_text(re.compile(r"answered\s*1"))
    expect(rail).to_contain_text("rows that wait")
    (now,) = watched.now().models
    bars = tab.locator("table.bars tbody tr")
    assert now.rows == len(served.rows) == 3
    expect(bars).to_have_count(len(now.batches))
