"""PyTorch's threads inside an operator, of the thread that asks. Where PyTorch is not loaded there
are none, and it is not loaded for that."""

from __future__ import annotations

import sys


def operator_threads() -> int | None:
    """How many there are; None without PyTorch."""
    torch = sys.modules.get("torch")
    return None if torch is None else torch.get_num_threads()


def set_operator_threads(count: int | None) -> None:
    """Compute with `count` threads from here on, in this thread and in those that begin later."""
    torch = sys.modules.get("torch")
    if torch is not None and count is not None and count != torch.get_num_threads():
        torch.set_num_threads(count)
