"""Modes in the browser: eval twice is equal, and train mode changes buffers and no parameter."""

from __future__ import annotations

import copy

import models
import torch
from browsing import answers
from conftest import Opens
from playwright.sync_api import expect
from torch import Tensor, nn

from forwardpass import Forward, Model, record
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import PassGiven, given
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


class Learner(nn.Module):
    """Raises in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise RuntimeError("made for training")
        return self.layer(x)


def test_a_mode_in_which_the_pass_raises_is_beside_the_one_that_came(live: Opens) -> None:
    recorded = record(Learner(), torch.ones(2, 3), mode="train")
    tab = live(Exploration("learner", PassGiven(recorded)), view=MODES)
    still, train = tab.locator(".cols2 section").all()
    expect(still).to_contain_text("The pass raises in this mode")
    expect(still).to_contain_text("made for training")
    expect(train.locator("svg.dots circle").first).to_be_visible()
    answers(tab)
    expect(tab.locator(".ledger .warn")).to_have_text(
        "forward, eval: RuntimeError: made for training"
    )
    expect(tab.locator(".ledger thead")).to_contain_text("optimizer.step")


def test_numbers_that_are_not_finite_are_called_what_they_are(live: Opens) -> None:
    class Roots(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.sqrt(), 1 / x, -1 / x], -1)

    rows = torch.tensor([[-4.0, 0.0]])
    tab = live(Exploration("roots", given(Forward(Model(Roots())), rows)), view=MODES)
    figure = tab.locator("figure").first
    figure.locator("summary").press("Enter")
    numbers = figure.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert numbers == ["NaN", "0.000000", "−0.250000", "Inf", "0.250000", "−Inf"]
    assert figure.locator("svg text:not(.f)").all_text_contents() == ["NaN", "Inf", "−Inf"]
    assert figure.locator("svg circle").count() == 3
