"""The page around the views: what is said, where it goes, and what it says when it cannot."""

from __future__ import annotations

import re
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from browsing import Watch, answers, at, holding, places, settled
from conftest import Opens
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from torch import nn

import forwardpass as fwd
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.opening import of_pass
from forwardpass.exploring.rows import given
from forwardpass.loading import load
from forwardpass.showing.pages.opening import Page

NARROW = {"width": 360, "height": 740}


class Slow(nn.Module):
    """Many calls, each of which takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(400):
            time.sleep(0.02)
            x = torch.relu(self.layer(x))
        return x


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("evil.example", 403)])
def test_a_page_is_called_by_names_of_this_machine(host: str, status: int) -> None:
    """Another site can give its own name to 127.0.0.1, and ask under it."""
    page = Page(slow())
    try:
        connection = HTTPConnection("127.0.0.1", urlsplit(page.url).port or 0)
        connection.request("GET", "/", headers={"Host": host})
        assert connection.getresponse().status == status
    finally:
        page.close()


def slow() -> Exploration:
    return Exploration("slow", given(load(fwd.Model(Slow(), "x: f32[batch 4]"))))


@pytest.mark.long
@pytest.mark.parametrize("model", ["digits", "minilm"])
def test_no_view_asks_elsewhere_says_an_error_or_scrolls_sideways(
    model: str, live: Opens, request: pytest.FixtureRequest
) -> None:
    """The fixture asserts the first two; here every view is looked at, narrow and wide, and each
    prediction of one model is answered."""
    exploration: Exploration = request.getfixturevalue(model)
    page = live(exploration)
    wide = page.viewport_size
    assert wide is not None
    for place in places(page):
        page.set_viewport_size(NARROW)
        at(page, place)
        for _ in range(2):
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= NARROW["width"], f"view {place} is {width} px wide"
            if model != "digits" or not answers(page):
                break
        page.set_viewport_size(wide)
        settled(page)
        assert page.locator("#view h1").inner_text().endswith("?")
    assert page.locator(".live").inner_text() == "live"


@pytest.mark.long
def test_no_request_leaves_and_no_error_is_said_of_many_calls(
    live: Opens, long: Exploration
) -> None:
    """The fixture asserts that; here every view is looked at."""
    page = live(long)
    for place in places(page):
        at(page, place)
        assert page.locator("#view h1").inner_text().endswith("?")
    assert page.locator(".live").inner_text() == "live"


def test_the_top_says_what_is_looked_at(live: Opens, digits: Exploration) -> None:
    page = live(digits, row=1)
    expect(page.locator(".pick.model")).to_contain_text("Sequential · 9,962 parameters")
    expect(page.locator(".pick.chosen")).to_contain_text("label 3")
    assert page.locator(".pick.chosen canvas").count() == 1
    foot = page.locator("footer").inner_text()
    assert torch.__version__ in foot
    assert "the pass changed nothing of the module" in foot
    record = digits.record((1,))
    assert f"path {record.path[:8]}" in foot


def test_a_row_is_chosen_in_the_list_and_by_the_arrows(live: Opens, digits: Exploration) -> None:
    page = live(digits)
    page.get_by_role("button", name="next row").click()
    expect(page.locator(".pick.chosen")).to_contain_text("row 1")
    page.locator(".pick.chosen").click()
    page.locator(".rows button").nth(5).click()
    expect(page.locator(".pick.chosen")).to_contain_text("row 5")
    assert "row=5" in page.url
    expect(page.locator(".rows")).to_have_count(0)


def test_a_text_is_shown_as_its_text(live: Opens, minilm: Exploration) -> None:
    page = live(minilm)
    expect(page.locator(".pick.chosen")).to_contain_text("A forward pass.")


def test_search_finds_a_module_a_call_and_a_line(live: Opens, digits: Exploration) -> None:
    page = live(digits, view=4)
    page.keyboard.press("/")
    page.keyboard.type("maxpool2d")
    expect(page.locator("#found [role=option]").first).to_contain_text("module, MaxPool2d")
    page.keyboard.press("Enter")
    expect(page.locator("#tab-1")).to_have_attribute("aria-selected", "true")
    pool = next(m for m in digits.record((0,)).modules if m.kind == "MaxPool2d")
    assert f"call={pool.first}" in page.url
    page.keyboard.press("/")
    page.keyboard.type("conv.py:")
    expect(page.locator("#found [role=option]").first).to_contain_text("line")
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_have_count(0)


def test_predictions_come_one_after_the_other_and_survive_a_reload(
    live: Opens, digits: Exploration
) -> None:
    page = live(digits)
    at(page, 3)
    question = page.locator(".ask .q").inner_text()
    assert page.locator(".ask .big").count() == 0
    page.keyboard.press("b")
    expect(page.locator(".ask .big")).to_be_visible(timeout=60_000)
    expect(page.locator(".ask li.said")).to_contain_text("you")
    page.reload()
    settled(page)
    more = page.get_by_role("button", name="Next question")
    if page.locator(".ask .q").inner_text() != question:  # what was answered is not asked again
        assert page.locator(".ask li button").count()
    else:
        expect(page.locator(".ask .big")).to_be_visible(timeout=60_000)
        assert more.count() == 0
    assert page.evaluate("Object.keys(sessionStorage).length") == 1


def test_d_is_an_answer_where_there_are_four_and_else_digits(live: Opens) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    page = live(Exploration("net", given(load(fwd.Model(net.eval(), "x: f32[batch 4]")))), view=3)
    letters = page.locator(".ask li kbd")
    expect(letters).to_have_text(["a", "b", "c", "d"])
    page.keyboard.press("d")
    expect(page.locator(".ask li.said")).to_contain_text("I don\u2019t know")
    long = re.compile(r"\d\.\d{12}")
    expect(page.locator(".ask .big")).to_be_visible()
    expect(page.locator(".body")).not_to_contain_text(long)
    page.keyboard.press("d")
    expect(page.locator(".body")).to_contain_text(long)


def test_nothing_to_look_at_says_what_to_type_and_has_an_example(live: Opens) -> None:
    page = live(Exploration("nothing", None), wait=False)
    expect(page.locator("h1")).to_have_text("Nothing to look at yet")
    expect(page.locator(".cmd").first).to_have_text("fwd explain my_model.py --data rows.csv")
    page.get_by_role("button", name="Look at an example").click()
    settled(page)
    expect(page.locator(".banner")).to_contain_text("This is an example, not your model")
    expect(page.locator(".live")).to_have_text("live")


def test_a_pass_tells_its_calls_and_is_cancelled_within_a_second(live: Opens) -> None:
    exploration = slow()
    page = live(exploration, wait=False)
    bar = page.locator("#view .said")
    expect(bar).to_contain_text(re.compile(r"[Cc]all [1-9]"), timeout=20_000)
    assert live.served is not None
    page.keyboard.press("Escape")
    expect(page.locator("#view .state")).to_contain_text("You stopped it")
    pressed = time.monotonic()
    while exploration.steps.stopping is False:  # pyright: ignore[reportAttributeAccessIssue]
        assert time.monotonic() - pressed < 5, "the server went on"
        page.wait_for_timeout(20)
    done = exploration.steps.calls
    page.wait_for_timeout(300)
    assert exploration.steps.calls == done, "the pass went on after it was cancelled"


STOPPED = "You stopped it before it was there."


@pytest.mark.parametrize("view", [3, 8])
def test_a_run_that_settles_a_prediction_is_cancelled_by_esc(
    live: Opens, digits: Exploration, tab: Tab, view: int
) -> None:
    held = holding(tab, f"{'neuron' if view == 3 else 'what_if'}.settle")
    page = live(digits, view=view)
    page.keyboard.press("a")
    expect(page.locator(".ask .late")).to_contain_text("Cancel")
    with page.expect_event("requestfailed"):
        page.keyboard.press("Escape")
    expect(page.locator(".ask .say")).to_have_text(STOPPED)
    assert len(held) == 1
    page.unroute_all()
    page.get_by_role("button", name="Run it again").click()
    expect(page.locator(".ask .big")).to_be_visible(timeout=60_000)


def test_each_run_of_a_table_is_cancelled_by_itself_or_all_by_esc(
    live: Opens, digits: Exploration, tab: Tab
) -> None:
    held = holding(tab, "what_if.measured")
    page = live(digits, view=8, wait=False)
    page.get_by_role("button", name="Skip, just show me").click()
    rows = page.locator("table.changes tbody tr")
    cancels = rows.get_by_role("button", name="Cancel")
    expect(cancels).to_have_count(rows.count())
    with page.expect_event("requestfailed"):
        cancels.nth(1).click()
    expect(rows.nth(1)).to_contain_text(STOPPED)
    expect(cancels).to_have_count(rows.count() - 1)
    page.keyboard.press("Escape")
    expect(cancels).to_have_count(0)
    expect(rows.filter(has_text=STOPPED)).to_have_count(rows.count())
    assert len(held) == rows.count()
    page.unroute_all()
    rows.nth(1).get_by_role("button", name="Run it").click()
    expect(rows.nth(1)).not_to_contain_text(STOPPED)
    expect(rows.nth(1)).to_have_attribute("data-same", re.compile("."), timeout=60_000)


def test_an_export_is_cancelled_by_esc(live: Opens, tab: Tab) -> None:
    held = holding(tab, "path.export")
    one_row = of_pass(fwd.Forward(fwd.Model(nn.Linear(4, 3).eval())), torch.randn(1, 4))
    page = live(one_row, view=5, wait=False)
    told = page.locator(".rail section", has_text="What it means for export")
    page.get_by_role("button", name="Skip, just show me").click()
    expect(told).to_contain_text("Cancel")
    with page.expect_event("requestfailed"):
        page.keyboard.press("Escape")
    expect(told).to_contain_text(STOPPED)
    assert len(held) == 1
    page.unroute_all()
    told.get_by_role("button", name="Run it").click()
    expect(told).to_contain_text("became a graph", timeout=120_000)


def test_numbers_that_nobody_looks_at_any_more_are_not_waited_for(
    live: Opens, digits: Exploration, tab: Tab
) -> None:
    held = holding(tab, "values.fit")
    page = live(digits, view=2, wait=False)
    page.locator(".io [aria-busy]").first.wait_for()
    for row in (1, 2):
        before = len(held)
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/tile")):
            page.get_by_role("button", name="next row").click()
        while len(held) == before:
            page.wait_for_timeout(20)
        assert f'"row":{row}' in (held[-1].request.post_data or "")


def test_a_failed_pass_is_told_with_its_call_and_its_traceback(live: Opens) -> None:
    model = fwd.Model(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(5, 2)), "x: f32[batch 8]")
    exploration = Exploration("wrong", given(load(model)))
    page = live(exploration)
    banner = page.locator(".banner.err")
    ran = len(exploration.record().calls)
    expect(banner).to_contain_text(f"The pass failed at call {ran}")
    expect(banner).to_contain_text("mat1 and mat2 shapes cannot be multiplied")
    page.locator(".banner summary").click()
    expect(banner.locator(".cmd")).to_contain_text("linear.py")
    assert "_call_impl" not in banner.inner_text()
    assert "forwardpass/recording" not in banner.inner_text()


def test_a_file_that_changed_is_told(live: Opens, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\nimport forwardpass as fwd\n"
        "class Net(nn.Module):\n    def forward(self, x):\n        return x * 2\n"
        'model = fwd.Model(Net(), "x: f32[batch 4]")\n'
    )
    page = live(Exploration(str(file), given(load(file))))
    assert page.locator(".banner").count() == 0
    file.write_text(file.read_text().replace("* 2", "* 3"))
    expect(page.locator(".banner.warn")).to_contain_text(
        "has changed since this pass", timeout=9000
    )


def test_keys_and_words_are_a_key_away(live: Opens, digits: Exploration) -> None:
    page = live(digits)
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("2")  # no key of the page holds in a dialog
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    expect(page.locator("[role=tab]").first).to_have_attribute("aria-selected", "true")


def test_a_server_that_is_gone_leaves_what_was_there(
    live: Opens, digits: Exploration, watch: Watch
) -> None:
    watch.expects.append("ERR_CONNECTION_REFUSED")
    page = live(digits, view=1)
    seen = page.locator("#view h1").inner_text()
    assert live.served is not None
    live.served.close()
    expect(page.locator(".banner.err")).to_contain_text("The server is gone", timeout=9000)
    expect(page.locator(".live")).to_have_text("server gone")
    assert page.locator("#view h1").inner_text() == seen
    expect(page.get_by_role("button", name="next row")).to_be_disabled()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".banner.err")).to_be_visible()
