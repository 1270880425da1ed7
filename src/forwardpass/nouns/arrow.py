"""Arrow, imported when it is first used: what runs on text and on arrays goes without it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import pyarrow as pa
else:

    class _Later:
        """`pyarrow`, to whoever asks it for a name."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(import_module("pyarrow"), name)
            setattr(self, name, value)
            return value

    pa = _Later()

__all__ = ["is_arrow", "pa"]


def is_arrow(value: object) -> TypeGuard[pa.Array]:
    """Whether it is an Arrow array; Arrow is not imported to find out."""
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and isinstance(value, arrow.Array)
