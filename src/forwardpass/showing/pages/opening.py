"""Page: a server on loopback in a thread of this process, and the browser that looks at it."""

from __future__ import annotations

import asyncio
import secrets
import threading
import webbrowser
from types import TracebackType
from typing import Final, Self

from forwardpass.exploring.desks import Desk
from forwardpass.exploring.explorations import Exploration
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

    Attributes:
        url: with the token in its fragment, which no request bears.
    """

    def __init__(self, exploration: Exploration, *, port: int = 0) -> None:
        token = secrets.token_urlsafe(24)
        options = ServeOptions(models=(), port=port, token=token, limits=_LIMITS)
        socket = bound(options)
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}/#t={token}"
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


def opened(exploration: Exploration, *, browser: bool = True, port: int = 0) -> Page:
    """A page on what is explored, in the browser if there is one."""
    page = Page(exploration, port=port)
    if browser:
        webbrowser.open(page.url)
    return page
