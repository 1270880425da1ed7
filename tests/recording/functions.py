"""A module that is a function: what many tests of recording write down."""

from __future__ import annotations

from typing import Any

from torch import nn


class Fn(nn.Module):
    """A module that is a function, with parts if wanted."""

    def __init__(self, then: Any, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.then = then

    def forward(self, *inputs: Any) -> Any:
        return self.then(self, *inputs)
