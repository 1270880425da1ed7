"""Spans of time as a person reads them."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def duration(seconds: float) -> str:
    """A span of time to three digits, for what is compared: `1.42 ms`."""
    if seconds < 0:  # of a difference
        return f"-{duration(-seconds)}"
    for size, unit in _UNITS:
        if seconds >= 0.9995 * size:
            return f"{three_digits(seconds / size)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def three_digits(value: float) -> str:
    """Of a number from 1 up."""
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"
