"""README and docs do what they say: their code runs, their commands exit as shown, links resolve.

A fence may carry a file name after its language; its content is then written to that file. Python
blocks of a page share one namespace, and its `$ fwd` commands run between them, in this process;
`$ fwd serve … &` in one of its own, on a port that is free, which `$ curl` asks.
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from commands import FWD

from forwardpass.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [*PAGES, *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
PLUGINS = ("reading.sources", "building.steps", "building.backends", "running.sinks")
FEWER = {"--limit 200": "--limit 50"}

_FENCE = re.compile(r"^```(\w+)?(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Server(NamedTuple):
    process: subprocess.Popen[bytes]
    port: str
    log: Path


class Fence(NamedTuple):
    language: str
    file: str
    content: str
    line: int


def fences(page: Path) -> Iterator[Fence]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start(3)) + 1
        yield Fence(match[1] or "", match[2] or "", match[3], line)


def commands(content: str) -> Iterator[tuple[str, list[str], int]]:
    """Each command of a console block, the lines that it shows, and its exit code: that of a
    following `$ echo $?`, else 0."""
    blocks = re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]
    lines = [block.splitlines() for block in blocks]
    for place, (command, *shown) in enumerate(lines):
        after = lines[place + 1] if place + 1 < len(lines) else [""]
        yield command, shown, int(after[1]) if after[0] == "echo $?" else 0


@pytest.fixture
def with_examples(workplace: Path) -> Iterator[Path]:
    """A folder with the examples, in which a page may do as it likes."""
    shutil.copytree(ROOT / "examples", workplace / "examples")
    packages = [importlib.import_module(f"forwardpass.{name}") for name in PLUGINS]
    paths = [list(package.__path__) for package in packages]
    modules = set(sys.modules)
    _forget_kinds()
    yield workplace
    for package, path in zip(packages, paths, strict=True):
        package.__path__[:] = path
        for name in set(sys.modules) - modules:
            parent, _, child = name.rpartition(".")
            file = getattr(sys.modules[name], "__file__", None) or ""
            if parent == package.__name__ and not Path(file).is_relative_to(ROOT):
                del sys.modules[name]
                delattr(package, child)
    _forget_kinds()


def _forget_kinds() -> None:
    from forwardpass.reading import sources

    sources.kinds.cache_clear()
    sources.by_suffix.cache_clear()


@pytest.fixture
def servers() -> Iterator[dict[str, Server]]:
    """What serves, by the port that the page says; at the end it is told to end, and does."""
    started: dict[str, Server] = {}
    yield started
    for server in started.values():
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0, server.log.read_text(encoding="utf-8")


@pytest.mark.long
@each
def test_what_a_page_shows_works(
    page: Path, with_examples: Path, servers: dict[str, Server]
) -> None:
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for fence in fences(page):
        where = f"{page.name}, line {fence.line}"
        if fence.file:
            path = with_examples / fence.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fence.content, encoding="utf-8")
        if fence.language == "python":
            # The line numbers of a traceback are those of the page.
            source = "\n" * (fence.line - 1) + fence.content
            exec(compile(source, str(page), "exec"), namespace)
        if fence.language == "console":
            for command, shown, code in commands(fence.content):
                if command.endswith(" &"):
                    _serve(command.removesuffix(" &"), servers, with_examples, where)
                elif command.startswith("curl "):
                    _ask(command, shown, servers, where)
                else:
                    _run(command, shown, code, where)


def _serve(command: str, servers: dict[str, Server], folder: Path, where: str) -> None:
    """Start what serves, and wait until it is ready."""
    program, *arguments = shlex.split(command)
    port = arguments[arguments.index("--port") + 1]
    assert program == "fwd", where
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        own = str(free.getsockname()[1])
    arguments[arguments.index("--port") + 1] = own
    log = folder / f"served on {own}.txt"
    with log.open("w") as file:
        process = subprocess.Popen([*FWD, *arguments], stdout=file, stderr=file)
    servers[port] = Server(process, own, log)
    for _ in range(600):
        ready = f"http://127.0.0.1:{own}/readyz"
        with suppress(OSError), urllib.request.urlopen(ready) as reply:
            assert reply.status == 200
            return
        assert process.poll() is None, f"{where}: {log.read_text(encoding='utf-8')}"
        time.sleep(0.1)
    raise AssertionError(f"{where}: not ready; {log.read_text(encoding='utf-8')}")


def _ask(command: str, shown: list[str], servers: dict[str, Server], where: str) -> None:
    """What `curl [-s] URL [-d DATA]` gets is JSON as shown; an ellipsis there stands for a part of
    it."""
    _, *arguments = [word for word in shlex.split(command) if word != "-s"]
    data = arguments.pop(arguments.index("-d") + 1) if "-d" in arguments else None
    host, _, path = next(word for word in arguments if word != "-d").partition("/")
    server = servers[host.partition(":")[2]]
    url = f"http://127.0.0.1:{server.port}/{path}"
    try:
        with urllib.request.urlopen(url, None if data is None else data.encode()) as reply:
            came = reply.read().decode()
    except urllib.error.HTTPError as error:
        came = error.read().decode()
    (line,) = shown
    assert re.fullmatch(".*".join(map(re.escape, line.split("…"))), came), f"{where}: {came}"


def _run(command: str, shown: list[str], code: int, where: str) -> None:
    """Run `fwd …` and compare its exit code and the errors shown; compare what `cat …` shows."""
    for given, fewer in FEWER.items():
        command = command.replace(given, fewer)
    program, *arguments = shlex.split(command)
    if program == "cat":
        assert Path(arguments[0]).read_text(encoding="utf-8").splitlines() == shown, where
        return
    if program != "fwd":
        assert program in ("make", "echo"), f"{where}: nothing runs `{command}`"
        return
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, f"{where}: $ {command}\n{result.output}"
    for line in shown:
        assert not line.startswith("fwd: ") or line in result.output, f"{where}: $ {command}"


def test_the_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in PROSE
        for target in re.findall(r"(?:`|^\$ |^)make ([\w-]+)", page.read_text(), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{page.name}: {link}; there are {sorted(slugs)}"


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_every_option_stands_on_its_page(verb: str) -> None:
    page = (ROOT / "docs" / f"{verb}.md").read_text()
    for parameter in main.commands[verb].params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--out":
                assert f"`{option}" in page, option


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_nothing_of_this_machine_stands_in_it(page: Path) -> None:
    assert not re.search(r"/(work|root|home|tmp)/", page.read_text())


@pytest.mark.parametrize(
    "module", ["nouns.budgets", "nouns.plans", "nouns.signatures", "tensors.trees"]
)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"forwardpass.{module}"))
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("verb", sorted(main.commands))
def test_the_manual_fits_80_columns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    result = CliRunner().invoke(main, [verb, "--help"], terminal_width=80)
    assert max(map(len, result.output.splitlines())) <= 80
