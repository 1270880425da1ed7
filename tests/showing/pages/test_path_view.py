"""Path in the browser: two inputs that take other branches show other lines."""

from __future__ import annotations

import torch
from browsing import answers
from conftest import Opens
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from torch import Tensor, nn

from forwardpass import Forward, Model
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions import path
from forwardpass.exploring.rows import given
from forwardpass.nouns.progress import Steps

PATH = 5


class Unsure(nn.Module):
    """Goes on until it is sure: each row has as many rounds as it needs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.net(x)
        while x.abs().max() < 1:
            x = x * 2
        if x.sum() < 0:
            x = -x
        return x


def unsure() -> Exploration:
    module = Unsure()
    with torch.no_grad():
        module.net.weight.copy_(torch.eye(4))
        module.net.bias.zero_()
    rows = torch.tensor([[2.0, 0, 0, 0], [0.3, 0, 0, 0], [-3.0, 0, 0, 0], [5.0, 0, 0, 0]])
    return Exploration("unsure", given(Forward(Model(module)), rows))


def shown(tab: Tab) -> list[tuple[str, str, str, str]]:
    """Of the lines of the user's functions: text, counts of A and B, what is said of them."""
    rows = tab.eval_on_selector_all(
        "section.way:not(details section) tbody tr",
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))",
    )
    return [(src.strip(), a, b, what.strip()) for _, a, b, src, what in rows]


def count(cell: str) -> int:
    """As often as a cell says; -1 where it says nothing."""
    cell = cell.strip().removesuffix("×")
    return -1 if not cell else 0 if "not run" in cell else int(cell)


def test_two_inputs_with_different_branches_show_different_lines(live: Opens) -> None:
    made = unsure()
    tab = live(made, view=PATH)
    assert "not compared yet" in tab.inner_text(".ways")
    assert tab.locator("td.what").count() == 0
    answers(tab)
    expect(tab.locator(".told").first).to_contain_text("They part at line")
    found = path.lines(made, Steps(), row=0, other=1)
    (own,) = [code for code in found.functions if code.owner == "yours"]
    lines = shown(tab)
    assert [text for text, *_ in lines] == [line.strip() for line in own.lines]
    assert [count(a) for _, a, _, _ in lines] == list(own.a)
    assert [count(b) for _, _, b, _ in lines] == list(own.b)
    told = {text: what for text, _, _, what in lines}
    assert told["x = x * 2"] == "only B"
    assert told["while x.abs().max() < 1:"] == "other count"
    assert told["return x"] == ""
    parting = tab.locator(".told").first
    expect(parting).to_contain_text("is false for A, true for B")
    expect(parting.locator("tbody")).to_contain_text("0.3")


def test_another_row_is_compared_and_all_ways_are_found(live: Opens) -> None:
    tab = live(unsure(), view=PATH)
    answers(tab)
    tab.locator(".pickrow select").select_option("3")
    expect(tab.locator(".told").first).to_contain_text("A and B go the same way")
    tab.get_by_role("button", name="Look for rows that go another way").press("Enter")
    expect(tab.locator(".more h2")).to_have_text("3 ways through the code")
    tab.get_by_role("button", name="compare with row 2").press("Enter")
    expect(tab.locator(".told").first).to_contain_text("is false for A, true for B")
    assert {text: what for text, _, _, what in shown(tab)}["x = -x"] == "only B"
