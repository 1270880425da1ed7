"""How a user writes what a server is asked to be: models under names, and how long."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Final

from forwardpass.errors import UsageError
from forwardpass.nouns.plans import split

_NAMED: Final = re.compile(r"([^=/:|@()]+)=(?!=)(.*)", re.DOTALL)
"""A name holds nothing that tells a reference, or begins a plan."""
_HUB: Final = re.compile(r"(?:hf|pkg):([^@]*)(?:@.*)?", re.DOTALL)
_FILE: Final = re.compile(r"\.(py|fwd|pt2?)$")
_TIME: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min)")
_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "min": 60.0}


def seconds(text: str | float, what: str) -> float:
    """Of `text`, as "50ms", "1.5s" or "2min"; a number is seconds.

    Raises UsageError for what is none, or not above zero; `what` was to be said.
    """
    found = _TIME.fullmatch(text.strip()) if isinstance(text, str) else None
    value = float(found[1]) * _SECONDS[found[2]] if found else text
    if isinstance(value, str) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"{what} {text!r} is no time; write it as 50ms, 1.5s or 2min")
    return float(value)


def named(text: str) -> tuple[str, str]:
    """The name and the text of a Forward, of `name=FORWARD`; else the name is the stem of its file.

    >>> named("a=net.py:model | cast(bf16)")
    ('a', 'net.py:model | cast(bf16)')
    >>> named("nets/digits.py @ eager(threads=2)")
    ('digits', 'nets/digits.py @ eager(threads=2)')
    """
    given = _NAMED.fullmatch(text)
    return (given[1].strip(), given[2]) if given else (stem(text), text)


def watched(forward: str) -> Path:
    """The file or folder that a Forward is loaded from.

    Raises UsageError for one that is of a package or a hub.

    >>> watched("nets/digits.py:model @ eager"), watched("out/digits.fwd")
    (PosixPath('nets/digits.py'), PosixPath('out/digits.fwd'))
    """
    reference = split(forward)[0].strip()
    path = Path(reference)
    if not path.exists():
        path = Path(reference.rpartition(":")[0])
    if not path.exists() or path == Path():
        raise UsageError(
            f"--reload looks at a file or a folder, and {reference} is none: leave it out, or "
            "export the model, and serve the artefact"
        )
    return path


def stem(forward: str) -> str:
    """What a Forward is called where nobody says: by its file, its folder or its module.

    >>> stem("hf:org/name@main"), stem("package.nets:model"), stem("out/digits.fwd")
    ('name', 'nets', 'digits')
    """
    reference = split(forward)[0].strip()
    hub = _HUB.fullmatch(reference)
    path, colon, _ = (hub[1], "", "") if hub else reference.partition(":")
    last = path.rstrip("/").rpartition("/")[2]
    if _FILE.search(last):
        return _FILE.sub("", last)
    return last.rpartition(".")[2] if colon and "/" not in path else last
