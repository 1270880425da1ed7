"""Page: a server on loopback in a thread of this process, and the browser that looks at it."""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

from forwardpass.exploring.desks import Desk
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.opening import of_noun
from forwardpass.nouns.documents import Document
from forwardpass.nouns.explanations import Explanation
from forwardpass.nouns.profiles import Profile
from forwardpass.nouns.records import Record
from forwardpass.nouns.watched import Watched
from forwardpass.serving.addresses import bound
from forwardpass.serving.applications import Application
from forwardpass.serving.connections import Connections
from forwardpass.serving.options import RequestLimits, ServeOptions
from forwardpass.showing.pages.serving import PageRoutes

_LIMITS: Final = RequestLimits(body_bytes=1 << 20, connections=64)
_SLOW_SECONDS: Final = 600.0
"""That an answer may take its browser to read."""


class Page:
    """A page that is served, until it is closed.

    Args:
        at: what is looked at first, such as its `view` from 1 to 9; see web/state.js.

    Attributes:
        url: with the token in its fragment, which no request bears.
    """

    def __init__(
        self, exploration: Exploration, *, port: int = 0, at: Mapping[str, str | int] | None = None
    ) -> None:
        token = secrets.token_urlsafe(24)
        options = ServeOptions(models=(), port=port, token=token, is_local=True, limits=_LIMITS)
        socket = bound(options)
        place = urlencode({"t": token, **(at or {})})
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}/#{place}"
        self._desk = Desk(exploration)
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        application = Application({}, options, [PageRoutes(self._desk)])

        async def serve() -> None:
            connections = Connections(application, _LIMITS, None)
            server = await self._loop.create_server(connections.made, sock=socket)
            await self._over.wait()
            server.close()
            connections.close()

        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(serve()), name="page server", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until it is closed, or Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """End the server. What the browser has stays readable."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._desk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _repr_html_(self) -> str:
        return f'<a href="{escape(self.url)}" target="_blank">the page</a>, until it is closed'


def opened(
    exploration: Exploration, *, browser: bool = True, port: int = 0,
    at: Mapping[str, str | int] | None = None,
) -> Page:  # fmt: skip
    """A page on what is explored, in the browser if there is one; its address on standard error.

    `at` as Page takes it. Raises UsageError where the port cannot be had.
    """
    page = Page(exploration, port=port, at=at)
    print(f"page: {page.url}", file=sys.stderr, flush=True)
    if browser:
        webbrowser.open(page.url)
    return page


def show(
    noun: Document | Watched, *, block: bool | None = None, browser: bool = True, port: int = 0
) -> Page:
    """A page on a noun: live where it is a Recording, else what was saved.

    Args:
        block: wait until Ctrl-C; None: unless Python is interactive, where the page lives on.
        browser: whether to open one. port: of the page's server, on this machine alone; 0: any.

    Returns the page, to be closed where it was not waited for.
    """
    explored = of_noun(noun)
    page = opened(explored, browser=browser, port=port, at=first_view(noun, explored))
    if block is None:
        block = not (hasattr(sys, "ps1") or sys.flags.interactive)
    if block:
        waited(page)
    return page


def waited(page: Page) -> None:
    """Until Ctrl-C; then it is closed."""
    with page, suppress(KeyboardInterrupt):
        page.wait()


def first_view(noun: object, exploration: Exploration) -> dict[str, str | int]:
    """Where a page on a noun begins: a number is explained where there is a pass to explain."""
    if isinstance(noun, Record | Watched):
        return {"view": 1}
    if isinstance(noun, Explanation) and exploration.given is not None:
        return {"view": 3, "element": noun.element}
    return {"view": 7 if isinstance(noun, Profile) else 9}
