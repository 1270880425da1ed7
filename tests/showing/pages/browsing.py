"""What the tests of the page do in its browser."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, Route, expect


class Watch:
    """Notes what no page may do: say an error, or ask for what is not on this machine.

    `expects` are words of errors that the test itself brings about.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.wrong: list[str] = []
        self.expects: list[str] = []
        context.on("request", lambda request: self._asked(request.url))
        context.on("console", lambda said: said.type == "error" and self._said(said.text))
        context.on("weberror", lambda error: self._said(str(error.error)))

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        local = parts.scheme in ("data", "blob", "file") or parts.hostname == "127.0.0.1"
        if not local:
            self.wrong.append(f"a request for {url}")

    def _said(self, text: str) -> None:
        if not any(word in text for word in self.expects):
            self.wrong.append(text)


def holding(page: Page, of: str) -> list[Route]:
    """The server is not asked this question: what is on its way to it is held, and listed."""
    held: list[Route] = []

    def holds(route: Route) -> None:
        if f'"of":"{of}"' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route(re.compile("/(ask|tile)$"), holds)
    return held


def settled(page: Page) -> None:
    """Until the view is there, with all that it asked for."""
    page.wait_for_selector("#view h1", timeout=60_000)
    busy = page.locator("[aria-busy=true]")
    expect(busy).to_have_count(0, timeout=60_000)
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 60)))")
    expect(busy).to_have_count(0, timeout=60_000)


def places(page: Page) -> list[int]:
    """The places of the views, which are their keys."""
    return [int(text[0]) for text in page.locator("[role=tab]").all_inner_texts()]


def at(page: Page, place: int) -> None:
    """Open a view by its key."""
    page.keyboard.press(str(place))
    page.wait_for_selector(f"#tab-{place}[aria-selected=true]")
    settled(page)


def answers(page: Page) -> int:
    """Answer each prediction of the view with its first choice, by the keyboard; how many there
    were. What is run to settle one may take long."""
    count = 0
    while page.locator(".ask li button").count():
        page.keyboard.press("a")
        page.wait_for_selector(".ask .big", timeout=120_000)
        count += 1
        more = page.get_by_role("button", name="Next question")
        if more.count():
            more.press("Enter")
            page.wait_for_timeout(50)
    settled(page)
    return count


def focused(page: Page) -> dict[str, Any]:
    """What has the focus, and whether one sees that."""
    return page.evaluate(
        """() => {
          const at = document.activeElement;
          const ring = (one) => { const style = getComputedStyle(one);
            return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1; };
          const holder = at.closest("label, .search");
          const inked = [...at.querySelectorAll("*")].some((part) =>
            parseFloat(getComputedStyle(part).strokeWidth) >= 3);
          return { tag: at.tagName, role: at.getAttribute("role") ?? "",
            name: at.getAttribute("aria-label") ?? at.textContent.trim().slice(0, 60),
            visible: at === document.body || ring(at) || (holder && ring(holder)) || inked };
        }"""
    )
