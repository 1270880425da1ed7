"""Identities of requests: what their clients call them, else a name of ours."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

_sound: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}").fullmatch


class Identities:
    """Names that no two requests of this process, nor of another, are likely to share."""

    def __init__(self) -> None:
        self._begin = os.urandom(6).hex()
        self._count = 0

    def of(self, headers: Mapping[bytes, bytes]) -> str:
        """The client's x-request-id, where it is a word that a log can hold; else a new one."""
        given = headers.get(b"x-request-id")
        if given is not None and _sound(given):
            return given.decode("ascii")
        self._count += 1
        return f"{self._begin}-{self._count:x}"
