"""A page in one file, which opens without a server: its modules, and what they ask for."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from forwardpass.durable import written
from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion, asked, views
from forwardpass.exploring.desks import Desk, NoAnswer, Reached
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.questions import page
from forwardpass.exploring.rows import PassGiven
from forwardpass.exploring.tiles import Tile, TileHead
from forwardpass.nouns.progress import Steps
from forwardpass.showing.pages import assets
from forwardpass.showing.pages.keys import key_of

MOST_BYTES: Final = 8 << 20
"""Of answers and tiles; what is beyond is left out, and the page says so."""
_BEGINS: Final = r"""(?:(?<=["'`\s(\[{<=:,;|])|(?<=\\[nrt])|(?<=://))"""
"""Where a path can begin in JSON: after a quote, white space, which JSON may spell, a bracket, a
sign that joins it to what it is given to, the scheme of an address."""
_FIRST: Final = PageQuestion("page.shown")


class HeldTile(msgspec.Struct, frozen=True):
    """A tile as the page holds it; `numbers` in base64."""

    head: TileHead
    numbers: str


class PageAnswers(msgspec.Struct, frozen=True):
    """What a page holds, by key.

    Attributes:
        left: keys of what was left out, since it is too much.
    """

    answers: dict[str, msgspec.Raw]
    tiles: dict[str, HeldTile]
    refusals: dict[str, NoAnswer]
    left: tuple[str, ...]


def export(exploration: Exploration, path: str, steps: Steps | None = None) -> None:
    """Write what is explored as one file, which opens from `file://` without a network.

    It holds answers to what each view asks when it opens. Raises UsageError where the file cannot
    be written.
    """
    target = Path(path)
    if not target.absolute().parent.is_dir():
        raise UsageError(f"--export {path}: there is no folder {target.parent}")
    text = document(held(exploration, steps or Steps()), _folders(exploration))
    try:
        written(target, lambda file: file.write(text))
    except OSError as error:
        raise UsageError(f"--export {path}: it cannot be written: {error.strerror}") from error


def questions(exploration: Exploration) -> Iterator[PageQuestion]:
    """What an exported page holds answers to, each once: of the page, then of its views in turn, so
    that no view has all of it."""
    asks = [getattr(file, "exported", None) for file in (page, *views())]
    turns = [iter(one(exploration)) for one in asks if one is not None]
    met: set[str] = set()
    while turns:
        for turn in list(turns):
            question = next(turn, None)
            if question is None:
                turns.remove(turn)
            elif (key := key_of(question)) not in met:
                met.add(key)
                yield question


def held(exploration: Exploration, steps: Steps, most_bytes: int = MOST_BYTES) -> PageAnswers:
    """The answers to its questions, in their order, as far as they fit."""
    answers: dict[str, msgspec.Raw] = {}
    tiles: dict[str, HeldTile] = {}
    refusals: dict[str, NoAnswer] = {}
    left: list[str] = []
    desk, first = Desk(exploration), key_of(_FIRST)
    try:
        asks = [one for one in questions(exploration) if key_of(one) != first]
        # each key is in the file, with its quotes spelled out, its answer in it or left out
        spent = sum(len(msgspec.json.encode(key_of(one))) for one in asks)
        steps.begin("exporting", len(asks) + 1)
        for question in asks:
            steps.begin(question.of, len(asks) + 1)
            steps.done = len(answers) + len(tiles) + len(refusals) + len(left)
            key, reached = key_of(question), desk.answer(asked(question))
            size = _size(reached)
            if spent + size > most_bytes:
                left.append(key)
                continue
            spent += size
            if isinstance(reached, Tile):
                tiles[key] = HeldTile(reached.head, base64.b64encode(reached.numbers).decode())
            elif isinstance(reached, NoAnswer):
                refusals[key] = reached
            else:
                answers[key] = msgspec.Raw(reached)
        answers[first] = _shown(desk.answer(asked(_FIRST)), len(left), most_bytes)
    finally:
        desk.close()
    return PageAnswers(answers, tiles, refusals, tuple(left))


def document(what: PageAnswers, folders: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The page that holds it. Folders are told as what stands in their place: nothing in it says
    where on this machine it was made."""
    data = _data(what, folders).replace(b"<", b"\\u003c")
    holds = b"globalThis.FORWARDPASS = " + data + b";"
    there = assets.files()
    addresses = {name: _address(there[file]) for name, file in assets.imports().items()}
    found = assets.import_map(addresses).replace(b"<", b"\\u003c")
    style = there["page.css"]
    start = b'import "fwd/main.js";'
    icon = "data:image/svg+xml;base64," + base64.b64encode(there["icon.svg"]).decode()
    scripts = " ".join(assets.digest(one) for one in (holds, found, start))
    policy = (
        f"default-src 'none'; script-src {scripts} data:; style-src {assets.digest(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<link rel="icon" href="{icon}">\n'.encode()
        + b"<style>" + style + b"</style>\n"
        + b'<script type="importmap">' + found + b"</script>"
    )  # fmt: skip
    body = b"<script>" + holds + b'</script>\n<script type="module">' + start + b"</script>"
    return assets.document(head, body)


def _address(module: bytes) -> str:
    """A module as a data: URL that spells only what an URL cannot hold: shorter than base64."""
    text = module.decode()
    for sign in "%#\n\r\t":  # the percent sign first
        text = text.replace(sign, f"%{ord(sign):02X}")
    return f"data:text/javascript;charset=utf-8,{text}"


def _shown(reached: Reached, left: int, most_bytes: int) -> msgspec.Raw:
    """What the page is about, and what was left out of this copy of it."""
    assert isinstance(reached, bytes)
    shown: dict[str, Any] = msgspec.json.decode(reached)
    if left:
        said = f"this copy holds {most_bytes >> 20} MB at most: {left:,} answers are left out"
        shown["notes"] = [*shown["notes"], said]
    return msgspec.Raw(msgspec.json.encode(shown))


def _size(reached: Reached) -> int:
    """Bytes in the file; a tile goes in as base64."""
    if isinstance(reached, Tile):
        return -(-len(reached.numbers) // 3) * 4 + 320
    return len(reached) if isinstance(reached, bytes) else len(reached.error) + 80


def _folders(exploration: Exploration) -> dict[str, str]:
    """The folders of this machine that an answer may name, and what stands in their place: where
    Python finds files, where the model came from, where its lines are, the user's own."""
    found = {str(Path.home()): "~/"}
    ours = [Path.cwd(), Path(sys.prefix), Path(sys.base_prefix), *map(Path, filter(None, sys.path))]
    if exploration.given is not None:
        files = [exploration.given.forward.model.origin or ""]
        if isinstance(exploration.given, PassGiven):
            files += [site.file for site in exploration.given.record.sites]
        ours += [Path(file.partition(":")[0]).parent for file in files if os.path.isabs(file)]
    found |= {str(folder.absolute()): "" for folder in ours}
    return {folder: put for folder, put in found.items() if len(Path(folder).parts) > 1}


def _data(what: PageAnswers, folders: Mapping[str, str]) -> bytes:
    """As JSON, its texts without these folders; what tiles hold is numbers, whatever it spells."""
    rest = msgspec.json.encode(msgspec.structs.replace(what, tiles={})).decode()
    parts = msgspec.json.decode(_anonymous(rest, folders), type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**parts, "tiles": what.tiles})


def _anonymous(text: str, folders: Mapping[str, str]) -> str:
    """JSON without these folders where a path begins with one, the longest that it does."""
    if not folders:
        return text
    puts: dict[str, str] = {}
    for folder, put in folders.items():
        separator = "\\\\" if "\\" in folder else "/"
        puts[msgspec.json.encode(folder)[1:-1].decode() + separator] = put
    longest = "|".join(map(re.escape, sorted(puts, key=len, reverse=True)))
    return re.sub(f"{_BEGINS}(?:{longest})", lambda hit: puts[hit.group()], text)
