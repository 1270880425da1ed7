"""Modes in the browser: eval twice is equal, and train mode changes buffers and no parameter."""

from __future__ import annotations

import copy

import models
import torch
from browsing import answers
from conftest import Opens
from playwright.sync_api import expect

from forwardpass import Forward
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import given
from forwardpass.tensors.modules import held_by

MODES = 6


def test_the_ledger_says_what_torch_changes(live: Opens) -> None:
    model = models.cnn()
    made = Exploration("cnn", given(Forward(model)))
    tab = live(made, view=MODES)
    expect(tab.locator(".told")).to_contain_text("Eval twice is equal, bit for bit.")
    expect(tab.locator(".told")).to_contain_text("Train twice differs by")
    assert tab.locator("table", has_text="hash of its bytes").count() == 0
    answers(tab)
    table = tab.locator("table", has_text="hash of its bytes")
    head, *rows = table.evaluate(
        "table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    moments = {
        moment: {row[0].split()[0] for row in rows if "changed" in row[at]}
        for at, moment in enumerate(head)
    }

    assert made.given is not None
    this = made.given.passed(range(8))
    network = copy.deepcopy(this.module)
    before = {name: tensor.clone() for name, tensor in held_by(network).items()}
    assert isinstance(network, torch.nn.Module)
    with torch.no_grad():
        network.train()(*this.arguments, **this.keywords)
    buffers = {n for n, t in held_by(network).items() if not torch.equal(before[n], t)}
    parameters = {name for name, _ in network.named_parameters()}
    assert buffers
    assert not buffers & parameters
    assert moments["forward, eval"] == set()
    assert moments["forward, train"] == buffers
    assert moments["optimizer.step"] <= parameters
    assert moments["optimizer.step"]
    tab.get_by_label("only what changed").press("Space")
    kept = table.locator("tbody tr")
    expect(kept).to_have_count(len(buffers | moments["optimizer.step"]))
    assert "has the bytes that it had" in tab.inner_text(".ledger >> nth=0")


def test_the_mask_of_a_dropout_is_drawn_and_counted(live: Opens) -> None:
    tab = live(Exploration("cnn", given(Forward(models.cnn()))), view=MODES)
    mask = tab.locator(".rail svg.mask")
    said = mask.get_attribute("aria-label") or ""
    dropped = int(said.split(": ")[1].split()[0])
    assert mask.locator("path").count() == dropped > 0
