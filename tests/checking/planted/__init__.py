"""The bench of planted faults: a file for each rule, with faulty models and their sound twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """A model with a planted fault, or its sound twin.

    Attributes:
        name: what is planted, or mended, in a few words.
        build: makes the module (or Model) and the inputs to check it with.
        faulty: whether the rule must find something; on a sound case no rule may.
        how: more arguments of `check`, such as `{"mode": "train"}`.
        line: text that stands on the source line at which the finding must point; None: no line
            is asked.
    """

    name: str
    build: Callable[[], tuple[Any, Any]]
    faulty: bool
    how: dict[str, Any] = field(default_factory=dict[str, Any])
    line: str | None = None
