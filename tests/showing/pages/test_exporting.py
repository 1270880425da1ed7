"""A page in one file: it opens without a server and a network, holds what its views ask for, is
not too large, and says nothing of the machine that made it."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import msgspec
import pytest
import torch
from browsing import answers, at
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect
from torch import nn

import forwardpass as fwd
from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.opening import of_noun
from forwardpass.exploring.rows import given
from forwardpass.exploring.tiles import fitted
from forwardpass.loading import load
from forwardpass.nouns.progress import Steps
from forwardpass.showing.pages import assets, export
from forwardpass.showing.pages.exporting import (
    MOST_BYTES,
    HeldTile,
    PageAnswers,
    document,
    held,
    questions,
)
from forwardpass.showing.pages.keys import key_of

Opened = Callable[[Exploration, str], Tab]
OVERHEAD_BYTES = 400_000
SCRIPT_BYTES = 120_000


def mlp() -> Exploration:
    return Exploration("mlp", given(fwd.Forward(models.mlp())))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret-folder") / "net.py"
    path.write_text(
        "import torch\nfrom torch import nn\nfrom forwardpass import Model\n\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc = nn.Linear(16, 8)\n\n    def forward(self, x):\n"
        "        h = torch.relu(self.fc(x))\n        return h - h.mean(0)\n\n\n"
        "torch.manual_seed(0)\nmodel = Model(Net().eval(), 'x: f32[batch 16]')\n",
        encoding="utf-8",
    )
    return path


def test_nothing_of_this_machine_is_in_it(net: Path, tmp_path: Path) -> None:
    page = Exploration(str(net), given(load(net)))
    export(page, str(tmp_path / "page.html"))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "net.py:13" in text  # the line that check blames
    for folder in (net.parent, tmp_path, Path.cwd(), Path.home(), Path(sys.prefix)):
        assert str(folder) + "/" not in text


def test_a_folder_is_left_out_where_a_path_begins_with_it() -> None:
    """Elsewhere the same letters are of another path, or numbers of a tile."""
    numbers = base64.b64encode(bytes(range(256)) * 4 + b"\xfd\xa6\xa9\xff").decode() + "/app/"
    said = 'File "/app/net.py"\n/app/src/app/net.py:3 (/app/x) a=/app/y file:///app/z ~/app/net.py'
    key = key_of(PageQuestion("what_if.settle", {"site": "/app/net.py:13"}))
    tile = HeldTile(fitted(torch.zeros(2), "f32").head, numbers)
    what = PageAnswers({key: msgspec.Raw(msgspec.json.encode([said]))}, {"tile": tile}, {}, ())
    text = document(what, {"/app": "", "/app/src": "lib/"}).decode()
    held = json.loads(re.findall(r"globalThis\.FORWARDPASS = (.*);</script>", text)[0])
    assert held["tiles"]["tile"]["numbers"] == numbers
    ((left, (told,)),) = held["answers"].items()
    assert json.loads(left) == ["what_if.settle", {"site": "net.py:13"}]
    assert told == 'File "net.py"\nlib/app/net.py:3 (x) a=y file://z ~/app/net.py'


def test_what_is_too_large_is_left_out_and_said() -> None:
    page = mlp()
    whole = held(page, Steps())
    assert not whole.left
    some = held(page, Steps(), most_bytes=2_000)
    assert some.left
    assert sum(len(bytes(answer)) for answer in some.answers.values()) < 2_000 + 4_000
    shown = json.loads(bytes(some.answers[key_of(PageQuestion("page.shown"))]))
    assert any("left out" in note for note in shown["notes"])
    assert shown["live"]  # the views are those of a model, though nothing runs


def test_the_page_without_answers_is_small() -> None:
    nothing = held(mlp(), Steps(), most_bytes=0)
    assert len(document(nothing)) < OVERHEAD_BYTES
    scripts = b"".join(text for name, text in assets.files().items() if name.endswith(".js"))
    assert len(gzip.compress(scripts, 9)) < SCRIPT_BYTES


def test_what_the_data_say_is_no_html(tmp_path: Path) -> None:
    evil = "</script><script>globalThis.evil = 1</script><!--"
    page = of_noun(fwd.record(nn.Linear(2, 2), torch.ones(1, 2)))
    page.name = evil
    export(page, str(tmp_path / "page.html"))
    assert evil not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        export(mlp(), str(tmp_path / "absent" / "page.html"))


def test_each_question_is_asked_once() -> None:
    keys = [key_of(question) for question in questions(mlp())]
    assert len(keys) == len(set(keys))
    assert keys[0] == '["page.shown",{}]'


def drawn(draws: random.Random, depth: int = 0) -> Any:
    """What JSON can hold, of all kinds."""
    kind = draws.randrange(9 if depth < 3 else 6)
    if kind == 0:
        return draws.choice([True, False, None])
    if kind == 1:
        return draws.choice([0, 1, -7, 10**15, -(2**40)])
    if kind == 2:
        return draws.choice(["", "fc1[0, 7]", 'a"b\\c', "é\u2028", "\x00\x1f\n", "😀", "</s>"])
    if kind in (3, 4, 5):
        scale = 10.0 ** draws.randint(-12, 24)
        return draws.choice(
            [0.0, 1.0, -0.5, 1e21, 1e-7, 123456789.125, draws.uniform(-1, 1) * scale]
        )
    if kind == 6:
        return [drawn(draws, depth + 1) for _ in range(draws.randrange(4))]
    names = ["row", "a", "B", "10", "9", "01", "é", "😀", "\ufb01", "-1", "4294967295", "x.y"]
    return {draws.choice(names): drawn(draws, depth + 1) for _ in range(draws.randrange(5))}


def test_keys_are_those_of_the_page(tab: Tab, tmp_path: Path) -> None:
    draws = random.Random(3)
    asks = [PageQuestion("map.structure", {"of": drawn(draws)}) for _ in range(400)]
    export(of_noun(fwd.record(nn.Linear(2, 2), torch.ones(1, 2))), str(tmp_path / "page.html"))
    tab.goto((tmp_path / "page.html").as_uri())
    given = json.dumps([[one.of, one.arguments] for one in asks])
    found = tab.evaluate(
        "async (text) => { const { keyOf } = await import('fwd/source.js');"
        " return JSON.parse(text).map(([of, given]) => keyOf({ of, arguments: given })); }",
        given,
    )
    for question, key in zip(asks, found, strict=True):
        assert key_of(question) == key


@pytest.fixture
def opened(tab: Tab, tmp_path: Path) -> Opened:
    """An exploration, exported and opened without a network."""

    def open_it(exploration: Exploration, at: str) -> Tab:
        path = tmp_path / "page.html"
        export(exploration, str(path))
        tab.context.set_offline(True)
        tab.goto(f"{path.as_uri()}#{at}")
        tab.locator("h1").wait_for()
        return tab

    return open_it


CONTENTS = {
    "map": ".window canvas",
    "play": ".player",
    "neuron": ".terms",
    "values": ".vital svg",
    "path": ".way:visible",
    "modes": "figure svg.dots",
    "batch": "figure",
    "what_if": "table.changes",
    "ship": "section[aria-label=findings]",
}
"""What each view shows of a model when it opens, by its file."""


def all_open(tab: Tab) -> None:
    """Each view opens, and shows what it is for, unless the copy would be too large with it."""
    from forwardpass.exploring.asking import views

    listed = assets.files()["views.js"].decode()
    there = [file for file in views() if f"views/{file.VIEW.file}.js" in listed]
    assert {file.VIEW.file for file in there} == {*CONTENTS}
    left = tab.evaluate("FORWARDPASS.left.length")
    for file in there:
        tab.keyboard.press(str(file.VIEW.place))
        tab.get_by_role("tab", selected=True).filter(has_text=file.VIEW.name).wait_for()
        expect(tab.locator("[aria-busy=true]")).to_have_count(0)
        shown = tab.locator(CONTENTS[file.VIEW.file])
        if left:
            shown = shown.or_(tab.get_by_text("Left out of this copy"))
        expect(shown.first).to_be_visible()
        assert "holds what its views open with" not in tab.inner_text("main"), file.VIEW.name


def test_every_view_opens_from_a_file(opened: Opened, net: Path) -> None:
    all_open(opened(Exploration("net.py", given(load(net))), "view=9"))


@pytest.mark.parametrize(
    "model",
    ["digits", *(pytest.param(one, marks=pytest.mark.soak) for one in ("minilm", "long"))],
)
def test_every_view_of_a_model_opens_from_a_file(
    opened: Opened, model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    all_open(opened(request.getfixturevalue(model), "view=1"))
    assert (tmp_path / "page.html").stat().st_size < MOST_BYTES + OVERHEAD_BYTES


def test_a_prediction_of_a_copy_is_settled(opened: Opened, net: Path) -> None:
    tab = opened(Exploration("net.py", given(load(net))), "view=9")
    assert "batch-leak" not in tab.content().partition('<div id="page">')[2].partition("<script")[0]
    tab.get_by_role("button", name="None of these").click()
    tab.locator("ol.finds").wait_for()
    assert "batch-leak" in tab.inner_text("ol.finds")
    assert "measured" in tab.inner_text(".ask li >> nth=0")
    assert tab.get_by_role("button", name="Run the check again").count() == 0


def test_a_copy_shows_the_modes_and_the_ways_that_it_holds(opened: Opened, net: Path) -> None:
    tab = opened(Exploration("net.py", given(load(net))), "view=6")
    expect(tab.locator(".told")).to_contain_text("Eval twice is equal, bit for bit.")
    answers(tab)
    expect(tab.locator("table", has_text="hash of its bytes")).to_contain_text("fc.weight")
    at(tab, 5)
    answers(tab)
    expect(tab.locator(".ways")).to_contain_text("B ○ · row 1")
    expect(tab.locator(".told")).to_contain_text("A and B go the same way")
    expect(tab.locator(".export")).to_contain_text("Exported from")


def test_a_copy_offers_nothing_that_it_would_have_to_run(opened: Opened, net: Path) -> None:
    tab = opened(Exploration("net.py", given(load(net))), "view=3")
    answers(tab)
    expect(tab.locator(".rail")).to_contain_text("This page cannot run the pass")
    assert tab.locator("button.edit").count() == 0
    at(tab, 5)
    answers(tab)
    assert tab.locator(".pickrow").count() == 0
    assert tab.get_by_role("button", name="Look for rows that go another way").count() == 0
    expect(tab.get_by_role("button", name="next row")).to_be_disabled()
