"""A server in the terminal: how it comes up, what it serves, and what it loses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import chain, repeat
from types import TracebackType
from typing import Self
from urllib.parse import quote

from rich.console import Console
from rich.status import Status
from rich.text import Text

from forwardpass.measuring.spans import duration
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.witnesses import ReadyModel, Witness
from forwardpass.showing.wording import facts, visible


class ShownServer(Witness):
    """Shows a server on standard error, as a context.

    Args:
        quiet: say only what went wrong.
    """

    def __init__(self, options: ServeOptions, *, quiet: bool) -> None:
        self._options = options
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._status: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show("")

    def bound(self, url: str) -> None:
        names = ", ".join(model.name for model in self._options.models)
        self._show(f"{url}: loading {names}")

    def loaded(self, model: str, said: str) -> None:
        self._say(said, "dim")
        self._show(f"{model}: loaded")

    def learning(self, model: str, doing: str) -> None:
        self._show(f"{model}: {doing}")

    def ready(self, url: str, models: tuple[ReadyModel, ...]) -> None:
        self._show("")
        for model in models:
            if not self._quiet:
                lines = zip(chain([model.name], repeat("")), model.said, strict=False)
                self._console.print(facts(lines), style="dim", soft_wrap=False)
        self._warn(models)
        self._say(f"serving at {url} · see {url}/docs", "bold")
        shown = [model for model in models if model.example]
        for model in shown[:1]:  # to be pasted: it stays one line
            self._say(curl(self._options, url, model), wrap=False)

    def _warn(self, models: tuple[ReadyModel, ...]) -> None:
        """Of models of which no row can be answered in time."""
        slo = self._options.slo_seconds
        for model in models:
            if slo is not None and model.row_seconds > slo:
                self._print(
                    f"fwd: {model.name} takes {duration(model.row_seconds)} for one row, and is "
                    f"to answer within {duration(slo)} (--slo): as long as that is so, it refuses "
                    "whatever is asked",
                    "",
                )

    def lost(self, what: str, how: str, *, final: bool) -> None:
        then = "no other is started" if final else "another one is started"
        self._print(f"fwd: {what} {how}: {then}", "")

    def answers_grpc(self, address: str) -> None:
        self._say(f"gRPC at {address}", "dim")

    def answers_directly(self, urls: Sequence[str]) -> None:
        """Replicas, each by itself: what was told before is Ray's proxy."""
        self._say(f"through Ray's proxy; directly: {', '.join(urls)}", "dim")

    def changed(self, model: str) -> None:
        self._say(f"{model} has changed: it is loaded anew; the old one answers meanwhile", "dim")

    def delayed(self, model: str, seconds: float) -> None:
        said = f"{model}: the new one is not ready after {duration(seconds)}; the old one goes on"
        self._say(said, "dim")

    def refused(self, model: str, why: str) -> None:
        self._print(f"fwd: {model} as it is now cannot be served, the old one goes on: {why}", "")

    def replaced(self, model: str) -> None:
        self._say(f"{model}: the new one answers", "dim")

    def draining(self, seconds: float) -> None:
        self._say(f"draining: at most {seconds:g} s; a second signal ends at once", "dim")

    def _say(self, text: str, style: str = "", *, wrap: bool = True) -> None:
        if not self._quiet:
            self._print(text, style, wrap=wrap)

    def _print(self, text: str, style: str, *, wrap: bool = True) -> None:
        """Break a text between words, never within one: it may be a path or an address."""
        self._console.print(Text(visible(text), style=style, overflow="ignore"), soft_wrap=not wrap)

    def _show(self, doing: str) -> None:
        """What is under way, in the last line; "" ends it."""
        if self._status is not None and not doing:
            self._status.stop()
            self._status = None
        elif doing and not self._quiet and self._console.is_terminal:
            shown = Text(visible(doing), style="dim")
            if self._status is None:
                self._status = self._console.status(shown)
                self._status.start()
            else:
                self._status.update(shown)


def curl(options: ServeOptions, url: str, model: ReadyModel) -> str:
    """A command to paste, which asks the model for the row that it said it answers."""
    words = ["curl", f"{url}/models/{quote(model.name, safe='')}"]
    if options.tls_cert is not None:
        words += ["--cacert", options.tls_cert]
    command = shlex.join(words)
    if options.token is not None:
        command += ' -H "Authorization: Bearer $FORWARDPASS_TOKEN"'
    body = '{"rows": [' + model.example + "]}"
    return f"{command} -d {shlex.quote(body)}"
