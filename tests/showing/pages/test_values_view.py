"""Values in the browser: it stays readable where no number is finite."""

from __future__ import annotations

import torch
from browsing import answers
from conftest import Opens
from playwright.sync_api import expect
from torch import nn

from forwardpass import Forward, Model
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import given

VALUES = 4


def test_an_activation_that_reads_nothing_finite_is_shown_after_its_prediction(live: Opens) -> None:
    net = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    with torch.no_grad():
        net[0].weight.fill_(3e38)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    rows = torch.full((3, 2), 10.0)
    tab = live(Exploration("overflows", given(Forward(Model(net)), rows)), view=VALUES)
    assert answers(tab) == 1
    vital = tab.locator(".vital").first
    expect(vital.locator("svg").first).to_have_attribute(
        "aria-label", "1 Sigmoid: no finite number before, 0.0\u2009% exactly zero after"
    )
    expect(vital.locator(".kv")).to_contain_text("before: minnone")
    expect(tab.locator(".finding")).to_contain_text("F.linear in 0 Linear")
