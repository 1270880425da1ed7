"""Ends: what a Channel is made of, as the supervisor makes it and gives it away."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import tempfile
from mmap import PAGESIZE
from typing import Final, NamedTuple

_BYTES: Final = 1 << 30
"""Of address space, both directions together; what is never used is never touched."""
_KIND: Final = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
"""macOS has a name for the first, and no such sockets."""


class Ends(NamedTuple):
    """Descriptors of one end of a channel; whoever makes a Channel of them has them no longer.

    Attributes:
        socket: to the other end. memory: what both map; each writes into its own half.
    """

    socket: int
    memory: int

    def close(self) -> None:
        """Let go of an end that nobody will use here."""
        for descriptor in self:
            os.close(descriptor)


def pair(size: int = _BYTES) -> tuple[Ends, Ends]:
    """Both ends of a new channel: for the HTTP process, and for the engine.

    Args:
        size: bytes of memory. A message with its arrays can have half of them.
    """
    half = -(-size // 2 // PAGESIZE) * PAGESIZE  # no page is of both
    one, other = socket.socketpair(socket.AF_UNIX, _KIND)
    memory = _memory(2 * half)
    return Ends(one.detach(), memory), Ends(other.detach(), os.dup(memory))


def _memory(size: int) -> int:
    """Memory that has no name and is not there for longer than its descriptors."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    memory = os.memfd_create("forwardpass", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    # Whoever made it shorter would end the other process at its next look.
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return memory
