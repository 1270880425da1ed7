"""Neuron in the browser: 20 elements of each layer; a prediction hides; a number is set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import torch
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from torch import nn

from forwardpass import Forward, Model
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions import neuron
from forwardpass.exploring.rows import given
from forwardpass.nouns.progress import Steps
from forwardpass.recording.recordings import Recording

MINUS = "\u2212"


def recorded(exploration: Exploration) -> Recording:
    record = exploration.record()
    assert isinstance(record, Recording)
    return record


def elements(record: Recording, owner: str, count: int) -> Iterator[str]:
    draw = torch.Generator().manual_seed(0)
    shape = record.values[next(record.of_module(owner)).outputs[0]].shape
    for _ in range(count):
        at = [int(torch.randint(size, (1,), generator=draw)) for size in shape]
        yield f"{owner}[{', '.join(map(str, at))}]"


def cells(tab: Tab) -> list[list[str]]:
    return tab.eval_on_selector_all(
        ".terms tbody tr",
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))",
    )


def number(text: str) -> float:
    return float(text.replace(MINUS, "-"))


def skip(tab: Tab) -> None:
    while tab.locator(".ask li button:enabled").count():
        tab.get_by_role("button", name="Skip").click()
        tab.wait_for_selector(".ask .big")


def show(tab: Tab, element: str) -> None:
    tab.fill("#pickname", element)
    tab.get_by_role("button", name="Show", exact=True).click()
    expect(tab.locator(".trail b")).to_have_text(element)
    tab.wait_for_selector("[aria-busy=false] .terms")


def test_the_sum_of_what_is_shown_is_what_was_recorded(live: Any, digits: Exploration) -> None:
    record = recorded(digits)
    tab: Tab = live(digits, view=3)
    skip(tab)
    tab.get_by_text("Pick another element").click()
    tab.get_by_role("button", name="16 digits").click()
    for owner in ("0", "4", "8"):
        for element in elements(record, owner, 20):
            show(tab, element)
            skip(tab)
            part = record.explain(element).parts[0]
            rows = cells(tab)
            terms = [number(row[-2]) for row in rows if len(row) == 8 or "smaller terms" in row[0]]
            y = next(number(row[1]) for row in rows if row[0].startswith("= y"))
            told, said = next(
                (number(row[1]), row[2]) for row in rows if row[0].startswith("what the pass")
            )
            total = next(number(row[1]) for row in rows if row[0].startswith("sum of"))
            assert sum(terms) == pytest.approx(total, abs=1e-12), element
            assert y == pytest.approx(part.value, abs=1e-12)
            assert told == pytest.approx(part.recorded, abs=1e-12)
            assert said.endswith(("rounding", "none"))


def test_before_the_prediction_the_sum_is_not_in_the_page(live: Any, digits: Exploration) -> None:
    record = recorded(digits)
    element = "0[0, 9, 2, 3]"
    tab: Tab = live(digits, view=3, element=quote(element))
    tab.wait_for_selector(".terms")
    parts = record.explain(element).parts
    after = [f"{part.recorded:.4f}".replace("-", MINUS) for part in parts[:2]]
    assert not any(text in tab.content() for text in after)
    skip(tab)
    assert all(text in tab.content() for text in after)


def test_a_weight_that_is_set_moves_the_outputs_as_in_python(
    live: Any, digits: Exploration
) -> None:
    record = recorded(digits)
    tab: Tab = live(digits, view=3, element=quote("0[0, 9, 2, 3]"))
    skip(tab)
    tab.get_by_role("button", name="set 0.weight[9, 0, 0, 2]").click()
    tab.fill("#setn", "1.2")
    tab.wait_for_selector("text=On a copy.")
    module, x = record.this.module, record.this.arguments or tuple(record.this.keywords.values())
    weight = dict(module.named_parameters())["0.weight"]
    before, held = weight.detach().clone(), weight.data
    weight.data = before.clone()
    weight.data[9, 0, 0, 2] = 1.2
    now = module(*x)[0].tolist()
    weight.data = held
    tab.locator(".rail details summary").click()
    tab.locator(".rail details tbody tr").last.wait_for()  # visible: until then its text is empty
    shown: list[float] = []
    for _ in range(100):  # until then those of the number that stood there
        texts = tab.eval_on_selector_all(
            ".rail details tbody tr", "rows => rows.map(row => row.cells[2].innerText)"
        )
        shown = [number(text) for text in texts]
        if shown == pytest.approx(now, abs=1e-3):
            break
        tab.wait_for_timeout(100)
    assert shown == pytest.approx(now, abs=1e-3)
    assert tab.locator("tr.changed").count() == 1


def test_a_term_leads_back_and_the_trail_forth(live: Any, digits: Exploration) -> None:
    tab: Tab = live(digits, view=3, element=quote("output[0, 3]"))
    skip(tab)
    tab.locator(".terms button.go").first.press("Enter")
    expect(tab.locator(".trail b")).to_have_text(re.compile(r"^5\["))
    tab.locator(".terms button.go").first.press("Enter")
    expect(tab.locator(".trail b")).to_have_text(re.compile(r"^4\["))
    tab.locator(".trail button").first.press("Enter")
    expect(tab.locator(".trail b")).to_have_text("output[0, 3]")


def test_numbers_of_several_positions_are_named_alike(live: Any) -> None:
    torch.manual_seed(0)
    model = Model(nn.Linear(4, 30), "x: f32[batch 3 4]")
    tab: Tab = live(Exploration("tokens", given(Forward(model))), view=3)
    skip(tab)
    tab.wait_for_selector("aside [aria-busy=false] svg text")
    named: list[str] = tab.eval_on_selector_all(
        "aside svg text[x='0']", "all => all.map(one => one.textContent)"
    )
    places = [text.split() for text in named]
    assert {len(place) for place in places} == {2}, "position and feature; the row is 0 in all"
    shown = {(0, *map(int, place)) for place in places}
    told = neuron.moved(Exploration("tokens", given(Forward(model))), Steps())
    assert shown == set(told.index)
