"""What a page is made of: the files of showing/web, and how its modules find each other."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

WEB: Final = Path(__file__).parent.parent / "web"
_VENDORED: Final = {
    "preact": "vendor/preact.js",
    "preact/hooks": "vendor/preact-hooks.js",
    "htm": "vendor/htm.js",
    "@preact/signals-core": "vendor/signals-core.js",
    "@preact/signals": "vendor/signals.js",
}
TYPES: Final = {
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}


@cache
def files() -> dict[str, bytes]:
    """What may be asked for, by its path under showing/web."""
    found = sorted(path for path in WEB.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(WEB).as_posix(): path.read_bytes() for path in found}


def imports() -> dict[str, str]:
    """The names by which modules import each other, and their files: our own are `fwd/…`."""
    own = {f"fwd/{name}": name for name in files() if name.endswith(".js")
           and not name.startswith("vendor/")}  # fmt: skip
    return {**_VENDORED, **own}


def import_map(addresses: dict[str, str]) -> bytes:
    """The JSON by which a browser finds modules."""
    return msgspec.json.encode({"imports": addresses})


def digest(script: bytes) -> str:
    """As a Content-Security-Policy names an inline script that may run."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script).digest()).decode() + "'"


def document(head: bytes, body: bytes) -> bytes:
    """The page's HTML around its styles and scripts."""
    return (
        b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        b'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        b'<meta name="color-scheme" content="light dark">\n<title>forwardpass</title>\n'
        + head + b'\n</head>\n<body>\n<div id="page"></div>\n' + body + b"\n</body>\n</html>\n"
    )  # fmt: skip
