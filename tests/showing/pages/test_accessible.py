"""Everybody can use the page: axe-core finds nothing, and no mouse is needed."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import answers, at, focused, places, settled
from conftest import Opens
from playwright.sync_api import Page, expect

from forwardpass.exploring.explorations import Exploration

MOST_STOPS = 600


OF_COLOURS = {"runOnly": ["cat.color"], "rules": {"color-contrast-enhanced": {"enabled": False}}}
"""The rules of axe-core that look at colours, of those that it usually has."""


def violations(page: Page, **options: object) -> list[str]:
    """What axe-core finds, a line each."""
    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response
    return [
        f"{page.url.rpartition('&')[2]} {one['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"][:3]
    ]


def in_both_themes(page: Page) -> list[str]:
    """What axe-core finds, a line each; in the dark, where nothing but colours is different, by
    its rules of colours."""
    wrong: list[str] = []
    for scheme, rules in (("light", {}), ("dark", OF_COLOURS)):
        page.emulate_media(color_scheme=scheme)
        settled(page)
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        wrong += [f"{scheme}: {line}" for line in violations(page, **rules)]
    return wrong


def moving(page: Page) -> list[str]:
    """The elements that would move."""
    return page.evaluate(
        """() => [...document.querySelectorAll("*")].filter((one) => {
          const style = getComputedStyle(one);
          return style.transitionDuration.split(",").some((t) => parseFloat(t) > 0);
        }).map((one) => one.outerHTML.slice(0, 80))"""
    )


@pytest.mark.long
def test_axe_finds_nothing_and_nothing_moves_in_any_view(live: Opens, digits: Exploration) -> None:
    page = live(digits)
    page.emulate_media(reduced_motion="reduce")
    wrong: list[str] = []
    for place in places(page):
        at(page, place)
        assert not moving(page)
        wrong += in_both_themes(page)
        if answers(page):
            assert not moving(page)
            wrong += in_both_themes(page)
    page.keyboard.press("?")
    wrong += in_both_themes(page)
    assert not wrong, "\n".join(wrong)


def test_axe_finds_nothing_where_there_is_nothing(live: Opens) -> None:
    page = live(Exploration("nothing", None), wait=False)
    page.wait_for_selector("h1:not(.vh)")
    assert not violations(page)


@pytest.mark.long
def test_every_view_is_used_by_keyboard_alone(live: Opens, digits: Exploration) -> None:
    """Each prediction is answered by a letter; then Tab goes through all that can be used, one sees
    where it is, and it comes out at the end."""
    page = live(digits)
    for place in places(page):
        at(page, place)
        answers(page)
        page.locator(f"#tab-{place}").focus()
        stops = 0
        while True:
            page.keyboard.press("Tab")
            now = focused(page)
            stops += 1
            assert now["visible"], f"view {place}: one does not see the focus on {now}"
            assert now["tag"] == "BODY" or now["name"] or now["tag"] in ("INPUT", "SELECT"), now
            if now["tag"] == "BODY" or now["name"] == "Skip to the view":
                break
            assert stops < MOST_STOPS, f"view {place}: Tab does not come to an end: {now}"


def test_tabs_are_gone_through_by_arrows(live: Opens, digits: Exploration) -> None:
    page = live(digits)
    tabs = page.locator("[role=tab]")
    tabs.first.focus()
    for key, to in (("ArrowRight", 1), ("Home", 0), ("End", -1), ("ArrowRight", 0)):
        page.keyboard.press(key)
        chosen = tabs.nth(to % tabs.count())
        expect(chosen).to_have_attribute("aria-selected", "true")
        expect(chosen).to_be_focused()
    settled(page)
