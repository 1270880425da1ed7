"""The map in a browser: what it draws, by keyboard, around its prediction, at 10,000 calls."""

from __future__ import annotations

from copy import deepcopy

import torch
from browsing import holding
from conftest import Opens
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from torch import Tensor, nn

import forwardpass as fwd
from benchmarks.page_times import FRAMES
from forwardpass.errors import PassError
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import PassGiven
from forwardpass.recording.recordings import Recording


def mapped(live: Opens, module: nn.Module, *inputs: Tensor) -> Tab:
    """The map of a pass, open."""
    with torch.no_grad():
        try:
            record = fwd.record(module.eval(), *inputs)
        except PassError as error:
            record = error.record
    assert isinstance(record, Recording)
    tab = live(Exploration("model", PassGiven(record)), view=1)
    tab.wait_for_selector("[role=treeitem]")
    tab.wait_for_selector("section[aria-label=selected]")
    return tab


def lines(tab: Tab) -> list[str]:
    return [
        one.get_attribute("aria-label") or "" for one in tab.query_selector_all("[role=treeitem]")
    ]


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(6) for _ in range(5)))
        self.unused, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        self.unused(x)
        return self.head(x)


def test_repeats_are_folded_and_one_of_them_shown_beside(live: Opens) -> None:
    tab = mapped(live, Net(), torch.randn(1, 6))
    told = "\n".join(lines(tab))
    assert "5 × Block" in told
    assert told.count("up Linear") == 1
    assert "two ways are added" in told
    assert "unused Linear" in told
    assert told.count("no output depends on it") == 1
    tab.click("section.ask >> text=Skip, just show me")
    tab.click("text=all drawn")
    tab.wait_for_selector("[role=treeitem] >> nth=7")
    assert "5 × Block" not in "\n".join(lines(tab))


class Pairs(nn.Module):
    """Layers of two that no module holds together, as they are written by hand."""

    def __init__(self) -> None:
        super().__init__()
        pair = (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)), Block(6))
        self.layers = nn.ModuleList(nn.ModuleList(deepcopy(one) for one in pair) for _ in range(4))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for mixer, block in self.layers:
            x = mixer(x) + x
            x = block(x) + x
        return self.head(x)


def test_repeats_of_several_parts_are_folded_as_one(live: Opens) -> None:
    tab = mapped(live, Pairs(), torch.randn(1, 6))
    told = lines(tab)
    assert sum("4 × (Sequential, Block)" in line for line in told) == 1
    assert sum("layers.0.0.1 Linear" in line for line in told) == 1
    assert not any("layers.1.0" in line for line in told)
    assert sum("two ways are added" in line for line in told) >= 2
    tab.click("section.ask >> text=Skip, just show me")
    tab.click("[role=treeitem][aria-label*='4 × (Sequential, Block)']")
    tab.wait_for_selector("section[aria-label=selected] >> text=4 × (Sequential, Block)")
    tab.click("text=Unfold all 4")
    tab.wait_for_selector("[role=treeitem][aria-label*='layers.3.1 Block']")
    assert not any("4 ×" in line for line in lines(tab))


def test_a_loop_without_modules_is_folded_among_operators(live: Opens) -> None:
    tab = mapped(live, Sequence(), torch.randn(1, 9, 5))
    tab.click("text=operators")
    tab.wait_for_selector("[role=treeitem][aria-label*='8 × ']")
    assert len(lines(tab)) < 20
    tab.click("text=all drawn")
    tab.wait_for_selector("[role=treeitem] >> nth=20")
    assert not any("8 × " in line for line in lines(tab))


class Sequence(nn.Module):
    """A recurrence by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.read = nn.Parameter(torch.randn(5, 5)), nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x[:, 0])
        for at in range(8):
            state = torch.tanh(x[:, at] @ self.read + state @ self.kept)
        return state


def test_it_is_walked_and_opened_by_keyboard(live: Opens) -> None:
    tab = mapped(live, Net(), torch.randn(1, 6))
    tab.focus("[role=treeitem][tabindex='0']")
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowDown")
    tab.wait_for_selector("[role=treeitem]:focus[aria-label*='5 × Block']")
    assert tab.evaluate("document.activeElement.ariaExpanded") == "true"
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_selector("[role=treeitem]:focus[aria-expanded=false]")
    assert not any("up Linear" in line for line in lines(tab))
    tab.keyboard.press("Enter")
    tab.wait_for_selector("[role=treeitem]:focus[aria-expanded=true]")
    tab.keyboard.press("End")
    tab.wait_for_selector("[role=treeitem]:focus[aria-label^=output]")
    assert "output" in tab.inner_text("section[aria-label=selected]")


def test_esc_goes_out_of_what_enter_went_into_and_else_cancels(live: Opens) -> None:
    inner = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    module = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), inner, nn.Linear(6, 5), nn.Tanh())
    tab = mapped(live, module, torch.randn(1, 6))
    tab.click("[role=treeitem][aria-label*='2 Sequential']")
    escapes = """() => !document.activeElement.dispatchEvent(new KeyboardEvent(
        'keydown', { key: 'Escape', bubbles: true, cancelable: true }))"""
    assert not tab.evaluate(escapes), "there is nothing to go out of"
    tab.keyboard.press("Enter")
    tab.wait_for_selector("[role=treeitem]:focus[aria-label*='2.0 Linear']")
    tab.keyboard.press("ArrowDown")
    tab.wait_for_selector("[role=treeitem]:focus[aria-label*='2.1 ReLU']")
    assert tab.evaluate(escapes)
    tab.wait_for_selector("[role=treeitem]:focus[aria-label*='2 Sequential']")
    assert not any("2.0 Linear" in line for line in lines(tab))


def test_esc_goes_out_of_one_of_several_alike(live: Opens) -> None:
    tab = mapped(live, Net(), torch.randn(1, 6))
    tab.click("[role=treeitem][aria-label*='up Linear']")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("[role=treeitem]:focus[aria-label*='5 × Block'][aria-expanded=true]")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("[role=treeitem]:focus[aria-label*='5 × Block'][aria-expanded=false]")


def test_the_shape_is_not_there_before_the_prediction_and_is_what_torch_says_after(
    live: Opens,
) -> None:
    layer = nn.Conv2d(1, 7, 3)
    given = torch.randn(1, 1, 9, 9)
    true = " ".join(map(str, layer(given).shape))
    tab = mapped(live, nn.Sequential(layer, nn.ReLU()), given)
    tab.wait_for_selector("section.ask")
    tab.wait_for_selector("[role=treeitem][aria-label*='output ?']")
    without = tab.evaluate("""() => {
        const there = document.querySelector('main').cloneNode(true);
        there.querySelector('section.ask').remove();
        return there.outerHTML; }""")
    assert true not in without
    tab.click(f"section.ask button:has-text('{true}')")
    tab.wait_for_selector(f".big:has-text('{true}')")
    assert any(f"output {true}" in line for line in lines(tab))


def test_no_shape_is_there_before_it_is_known_which_one_is_asked_for(live: Opens, tab: Tab) -> None:
    layer = nn.Conv2d(1, 7, 3)
    given = torch.randn(1, 1, 9, 9)
    true = " ".join(map(str, layer(given).shape))
    held = holding(tab, "map.predictions")
    record = fwd.record(nn.Sequential(layer, nn.ReLU()).eval(), given)
    live(Exploration("model", PassGiven(record)), wait=False)
    expect(tab.locator(".pick.model")).to_contain_text("parameters")
    tab.wait_for_timeout(300)
    assert held
    assert true not in tab.locator("main").inner_html()
    assert tab.locator("main canvas").count() == 0
    for route in held:
        route.continue_()
    tab.wait_for_selector("[role=treeitem][aria-label*='output ?']")
    assert not any(true in line for line in lines(tab))


def test_a_pass_that_raised_is_drawn_up_to_there(live: Opens) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(100, 10))
    tab = mapped(live, module, torch.randn(1, 1, 8, 8))
    tab.wait_for_selector("h1:has-text('The pass failed at call')")
    assert any("Conv2d" in line for line in lines(tab))
    assert any("the pass failed here" in line for line in lines(tab))
    text = tab.inner_text("main")
    assert "mat1 and mat2 shapes cannot be multiplied" in text
    assert "f32[1 100] in place of f32[1 144]" in text


class Sharp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x - 10).softmax(-1)


def test_the_call_that_made_the_first_nan_is_marked(live: Opens) -> None:
    tab = mapped(live, Sharp(), torch.rand(1, 4))
    tab.click("text=operators")
    tab.wait_for_selector("[role=treeitem][aria-label*='first NaN']")
    (marked,) = [line for line in lines(tab) if "first NaN" in line]
    assert "log" in marked


def test_a_pass_of_10_000_calls_opens_and_pans_in_few_elements(live: Opens) -> None:
    one = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(34)]
    module = nn.Sequential(*(nn.Sequential(*one) for _ in range(100)))
    tab = mapped(live, module, torch.rand(1, 4))
    tab.click("text=operators")
    tab.click("text=all drawn")
    tab.wait_for_selector("[role=treeitem][aria-setsize='10202']")
    frames = tab.evaluate(FRAMES)
    assert sorted(frames)[len(frames) * 95 // 100] < 250  # a machine at rest: 50
    assert tab.evaluate("document.querySelectorAll('*').length") < 3000
    assert any(line.startswith("#") for line in lines(tab))


def test_it_fits_a_phone_and_the_search_finds(live: Opens) -> None:
    tab = mapped(live, Net(), torch.randn(1, 6))
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.wait_for_timeout(200)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    found = tab.evaluate("""async () => {
        const { find } = await import('fwd/map/finding.js');
        const { ask } = await import('fwd/source.js');
        return find(await ask('structure.graph', { row: 0 }), 'head'); }""")
    assert found[0]["title"] == "head"
    assert found[0]["kind"] == "module"
