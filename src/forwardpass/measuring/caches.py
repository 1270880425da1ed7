"""What was measured once, kept on disk under the identity of what it was measured on."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class _Kept(msgspec.Struct, frozen=True):
    identity: msgspec.Raw
    value: msgspec.Raw


def folder() -> Path:
    """Where measurements are kept: $FORWARDPASS_CACHE, else forwardpass in the user's cache."""
    if own := os.environ.get("FORWARDPASS_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(shared).expanduser() / "forwardpass"


def load(kind: str, identity: dict[str, Any], type: type[T]) -> T | None:
    """What was stored as `kind` for `identity`, or None: absent, unreadable, or of another form."""
    try:
        kept = msgspec.json.decode(_path(kind, identity).read_bytes(), type=_Kept)
        if bytes(kept.identity) != _canonical(identity):
            return None
        return msgspec.json.decode(kept.value, type=type)
    except (OSError, msgspec.MsgspecError):
        return None  # a cache is never the only copy: it is measured again


def store(kind: str, identity: dict[str, Any], value: object) -> None:
    """Keep `value`, a struct of msgspec, in place of what was there; whole or not at all.

    Warns where the folder cannot be written.
    """
    path = _path(kind, identity)
    kept = _Kept(msgspec.Raw(_canonical(identity)), msgspec.Raw(msgspec.json.encode(value)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(kept))
            os.replace(aside, path)
        except BaseException:
            os.unlink(aside)
            raise
    except OSError as error:
        warnings.warn(
            f"cannot keep {kind} in {path.parent} ({error}), so they are measured again next time; "
            "set FORWARDPASS_CACHE to a folder that can be written",
            stacklevel=2,
        )


def _canonical(identity: dict[str, Any]) -> bytes:
    return msgspec.json.encode(identity, order="deterministic")


def _path(kind: str, identity: dict[str, Any]) -> Path:
    return folder() / f"{kind}-{hashlib.sha256(_canonical(identity)).hexdigest()[:16]}.json"
