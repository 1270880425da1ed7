"""Artefacts as folders: a manifest changed as one would who means harm; folders nobody wrote in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and make the sums right again."""
    path = folder / "artefact.json"
    content = json.loads(path.read_text())
    change(content)
    for name in content["files"]:
        data = (folder / name).read_bytes()
        content["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(content))


@contextmanager
def unwritten(folder: Path) -> Generator[None]:
    """A folder in which nobody may write meanwhile, and nobody did, whoever may (root)."""

    def places() -> dict[Path, int]:
        return {place: place.stat().st_mtime_ns for place in (folder, *folder.rglob("*"))}

    before = places()
    modes = {place: place.stat().st_mode for place in before}
    try:
        for place, mode in modes.items():
            place.chmod(mode & ~0o222)
        yield
        assert places() == before
    finally:
        for place, mode in modes.items():
            place.chmod(mode)
