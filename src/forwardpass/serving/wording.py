"""What is said of an error to whoever is at the other end of a connection."""

from __future__ import annotations

import re
from typing import Final

_PATH: Final = re.compile(r"(?<![\w.:/])(?:/[^\s/'\":,;()\[\]{}]+)+/([^\s/'\":,;()\[\]{}]+)")


def for_clients(text: str) -> str:
    """The text with the folders of this machine left out: of a path only its last name is said."""
    return _PATH.sub(r"…/\1", text)
