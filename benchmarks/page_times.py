"""How long does the page of a long pass keep one waiting?

A model of 10,200 calls, recorded; its page is opened in Chromium, each time in a context of its
own, the first time in a browser that has just begun. First map: from the request for the page to
the drawn map. Frames: while all operators are drawn and the map is panned, 120 of them a time.
Views: from the key to the last answer, once each, predictions not made.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright
from torch import nn

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, spread, table
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import given
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL
from forwardpass.showing.pages import Page as Served

FRAMES = """() => new Promise(done => {
    const box = document.querySelector('.window'), frames = [];
    let last = performance.now();
    const frame = () => {
        frames.push(performance.now() - last);
        last = performance.now();
        box.scrollTop += 700;
        if (frames.length < 120) requestAnimationFrame(frame); else done(frames);
    };
    requestAnimationFrame(frame); })"""
"""Milliseconds of 120 frames, while the map is panned."""
_MOST_SECONDS = 300


def main() -> None:
    small = quick(__doc__)
    times = 1 if small else 5
    one = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(34)]
    module = nn.Sequential(*(nn.Sequential(*one) for _ in range(100))).eval()
    model = fwd.Model(module, "x: f32[batch 4]")
    exploration = Exploration("long", given(load(model)))
    calls = len(exploration.record().calls)
    first: list[float] = []
    frames: list[float] = []
    elements: list[int] = []
    views: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for turn in range(times):
            with opened(browser, exploration) as (tab, seconds):
                first.append(seconds)
                tab.click("text=operators")
                tab.click("text=all drawn")
                tab.wait_for_selector("[role=treeitem][aria-setsize='10202']")
                took: list[float] = sorted(tab.evaluate(FRAMES))
                frames.append(took[len(took) * 95 // 100])
                elements.append(tab.evaluate("document.querySelectorAll('*').length"))
                if turn == times - 1:
                    views = dict(visited(tab))
    rows = [
        ["first map, browser just begun", f"{first[0]:.2f} s"],
        ["first map, after that", f"{spread(first[1:] or first, '.2f')} s"],
        ["frame while panning, 95th percentile", f"{spread(frames, '.0f')} ms"],
        ["elements of the document, all operators drawn", f"{statistics.median(elements):,.0f}"],
        *([name, f"{seconds:.1f} s"] for name, seconds in views.items()),
    ]
    publish(
        "page_times",
        "The page of a long pass",
        [
            (__doc__ or "").strip(),
            f"{calls:,} calls; opened {times} times: median (least–most).",
            table(["", ""], rows),
            machine("playwright"),
        ],
        write=not small,
    )


@contextmanager
def opened(browser: Browser, exploration: Exploration) -> Iterator[tuple[Page, float]]:
    """The page at its map, and the seconds until that was drawn."""
    with (
        Served(exploration) as served,
        browser.new_context(viewport={"width": 1440, "height": 900}) as context,
    ):
        tab = context.new_page()
        began = WALL.now()
        tab.goto(served.url + "&view=1")
        tab.wait_for_selector("#view canvas")
        tab.wait_for_selector("[role=treeitem]")
        yield tab, WALL.now() - began


def visited(tab: Page) -> Iterator[tuple[str, float]]:
    """Each view, and the seconds until nothing of it is awaited."""
    for tabbed in tab.locator("[role=tab]").all_inner_texts():
        key = tabbed.strip()[0]
        began = WALL.now()
        tab.keyboard.press(key)
        tab.wait_for_selector(f"#tab-{key}[aria-selected=true]")
        tab.wait_for_selector("#view h1")
        while tab.locator("[aria-busy=true]").count():
            if WALL.now() - began > _MOST_SECONDS:
                raise TimeoutError(tabbed)
            tab.wait_for_timeout(20)
        yield f"view {' '.join(tabbed.split())}", WALL.now() - began


if __name__ == "__main__":
    main()
