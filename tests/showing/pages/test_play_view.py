"""Play and Values in the browser: what they show is what PyTorch computes, and nothing before."""

from __future__ import annotations

import base64
import math
import re

import numpy as np
import pytest
import torch
from browsing import answers, at, settled
from conftest import Opens
from playwright.sync_api import Page, expect
from torch import nn

import forwardpass as fwd
from forwardpass.exploring import explorations
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions import play, values
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.nouns.progress import Steps

PLAY, VALUES = 2, 4


def heading(page: Page) -> str:
    return page.locator(".head p").inner_text()


def called(page: Page, call: int) -> None:
    expect(page.locator(".head p")).to_contain_text(re.compile(f"^Call {call:,}:"))


def tile(page: Page, of: str, given: dict[str, object]) -> np.ndarray:
    """The numbers of a tile as the page gets them."""
    text = page.evaluate(
        """async ([of, given]) => {
          const { tile } = await import("fwd/source.js");
          const { numbers } = await tile(of, given);
          return btoa(String.fromCharCode(...new Uint8Array(numbers.buffer)));
        }""",
        [of, given],
    )
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_play_visits_exactly_the_recorded_calls_in_order(live: Opens, digits: Exploration) -> None:
    record = digits.record()
    page = live(digits, view=PLAY)
    names = play.score(digits, Steps()).names
    for call in range(len(record.calls)):
        called(page, call)
        assert names[call] in heading(page)
        page.keyboard.press(".")
    called(page, len(record.calls) - 1)
    assert "The pass is done" in heading(page)
    for call in reversed(range(len(record.calls))):
        called(page, call)
        page.keyboard.press(",")
    called(page, 0)


def test_space_plays_and_stops(live: Opens, digits: Exploration) -> None:
    page = live(digits, view=PLAY)
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="pause")).to_be_visible()
    called(page, 1)
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="play", exact=True)).to_be_visible()
    settled(page)


def test_tiles_are_what_torch_computes(live: Opens, digits: Exploration) -> None:
    page = live(digits, view=PLAY)
    probe = digits.probe()
    whole = probe.whole
    for call in whole.calls:
        for serial in call.outputs:
            tensor = whole.tensors[serial]
            came = tile(page, "values.fit", {"row": 0, "value": serial})
            assert np.array_equal(came, tensor.float().flatten().numpy(), equal_nan=True)
    serial = whole.calls[0].outputs[0]
    part = tile(page, "values.cells", {"row": 0, "value": serial, "plane": 3, "top": 2, "left": 1,
                                       "height": 4, "width": 5})  # fmt: skip
    assert np.array_equal(part.reshape(4, 5), whole.tensors[serial][0, 3, 2:6, 1:6].numpy())


def test_a_canvas_says_what_it_shows(live: Opens, digits: Exploration) -> None:
    page = live(digits, view=PLAY)
    step = play.step(digits, Steps(), call=0)
    made = digits.probe().whole.tensors[step.gives[0].value]
    labels = [c.get_attribute("aria-label") or "" for c in page.locator("canvas[role=img]").all()]
    (out,) = [label for label in labels if label.startswith("out")]
    assert "16 planes of 8 × 8" in out
    low, high = (f"{n.item():.2f}".replace("-", "−") for n in torch.aminmax(made))
    assert f"from {low} to {high}" in out


def test_times_stand_nowhere_before_the_prediction(live: Opens, digits: Exploration) -> None:
    page = live(digits, view=PLAY)
    expect(page.locator(".cost")).to_have_count(0)
    assert not re.search(r"\d\s*(µs|ms)", page.locator("body").inner_text())
    assert "graph node" not in page.locator(".io").inner_text()
    answers(page)
    expect(page.locator(".cost")).to_have_count(len(play.score(digits, Steps()).legs))
    expect(page.locator(".io")).to_contain_text("graph node")
    settled_now = play.settle(digits, Steps(), id="nodes")
    assert settled_now.answer == "0"


def test_zeros_are_told_after_the_prediction_and_are_those_of_torch(
    live: Opens, digits: Exploration
) -> None:
    page = live(digits, view=VALUES)
    first = values.health(digits, Steps()).first
    assert first.after is not None
    share = f"{first.after.zeros / first.after.count:.1%}"[:-1]
    assert share not in page.locator("body").inner_text()
    assert "exactly zero, in one bar" not in page.locator("body").inner_text()
    answers(page)
    zeros = count = 0
    relu = next(c for c in digits.record().calls if c.short == "relu")
    for row in range(digits.count):
        made = digits.probe((row,)).whole.tensors[relu.outputs[0]]
        zeros, count = zeros + int((made == 0).sum()), count + made.numel()
    assert (zeros, count) == (first.after.zeros, first.after.count)
    expect(page.locator(".ask .big")).to_contain_text(share)
    expect(page.locator(".vital").first).to_contain_text("exactly zero, in one bar")


def test_a_nan_is_named_by_its_call(live: Opens) -> None:
    class Logs(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).log().relu()

    bad = Exploration("logs", PassGiven(fwd.record(Logs(), torch.tensor([[1.0, -1.0]]))))
    page = live(bad, view=VALUES)
    expect(page.locator(".rail")).to_contain_text("The first NaN comes from call 1")
    page.get_by_role("button", name="Look at this call in Play").click()
    settled(page)
    called(page, 1)
    expect(page.locator(".io")).to_contain_text("1 NaN")


def test_a_failing_pass_is_played_as_far_as_it_came(live: Opens) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(4, 1))
    broken = Exploration("broken", given(fwd.Forward(fwd.Model(net, "x: f32[batch 4]"))))
    page = live(broken, view=PLAY)
    for _ in broken.record().calls:
        page.keyboard.press(".")
    expect(page.locator(".body")).to_contain_text("Here the pass raised")
    settled(page)


def test_long_passes_stay_small(live: Opens, long: Exploration) -> None:
    page = live(long, view=PLAY, call=7_000)
    called(page, 7_000)
    assert page.locator(".scrub button").count() <= 40
    assert page.evaluate("document.querySelectorAll('*').length") < 3_000
    page.keyboard.press(".")
    called(page, 7_001)
    settled(page)


def test_numbers_can_be_read_one_by_one_by_keyboard(live: Opens) -> None:
    tensor = torch.arange(4096.0).reshape(1, 64, 64) / 100
    one = Exploration("one", PassGiven(fwd.record(nn.ReLU(), tensor)))
    page = live(one, view=PLAY)
    page.locator("summary", has_text="Magnify a part").last.press("Enter")
    row = page.get_by_label("row", exact=True)
    row.fill("10")
    cells = page.locator("[role=group] canvas").last
    expect(cells).to_have_attribute("aria-label", re.compile("rows from 10"))
    wanted = f"{tensor[0, 10, 0].item():.2f}"
    assert wanted in (cells.get_attribute("aria-label") or "")
    assert math.isclose(float(wanted), 6.4)


def test_values_that_take_much_are_recorded_when_somebody_asks(
    live: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explorations, "_VALUE_BYTES", 1_000)
    net = nn.Sequential(nn.Linear(4, 600), nn.ReLU())
    made = Exploration("large", given(fwd.Forward(fwd.Model(net.eval(), "x: f32[batch 4]"))))
    page = live(made, view=PLAY)
    told = page.locator(".io")
    expect(told).to_contain_text("was not recorded: the values of this pass take")
    told.get_by_role("button", name="Record this").last.press("Enter")
    expect(told).not_to_contain_text("was not recorded")
    probe = made.probe()
    (serial,) = probe.whole.calls[0].outputs
    assert made.value_bytes >= probe.whole.values[serial].nbytes
    low, high = (f"{n:.2f}".replace("-", "−") for n in torch.aminmax(probe.whole.tensors[serial]))
    canvas = told.locator("canvas[aria-label^=out]")
    expect(canvas).to_have_attribute("aria-label", re.compile(f"from {low} to {high}"))


def test_views_fit_a_narrow_screen(live: Opens, digits: Exploration) -> None:
    page = live(digits, view=PLAY)
    page.set_viewport_size({"width": 360, "height": 740})
    for place in (PLAY, VALUES):
        at(page, place)
        answers(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360
