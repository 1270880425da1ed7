"""The random generators of the process: their states, kept and put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


class GeneratorStates(NamedTuple):
    """The states of torch's, NumPy's and Python's global generators at one moment.

    Where PyTorch is not loaded it has none yet, and it is not loaded for that; nor then are those
    of NumPy, which loads them when they are first asked for.
    """

    torch: torch.Tensor | None
    devices: tuple[torch.Tensor, ...]
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> GeneratorStates:
        """The states as they are; of CUDA devices only where CUDA is in use."""
        torch = sys.modules.get("torch")
        used = torch is not None and torch.cuda.is_initialized()
        drawn = torch is not None or "numpy.random" in sys.modules
        return cls(
            None if torch is None else torch.get_rng_state(),
            tuple(torch.cuda.get_rng_state_all()) if torch is not None and used else (),
            np.random.get_state() if drawn else None,
            random.getstate(),
        )

    @classmethod
    def seeded(cls, seed: int) -> GeneratorStates:
        """The states that a seed gives all of them; those of the process are not touched, since
        other threads may draw from them."""
        import torch

        used = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
        on = [torch.Generator(torch.device("cuda", index)).manual_seed(seed) for index in used]
        return cls(
            torch.Generator().manual_seed(seed).get_state(),
            tuple(generator.get_state() for generator in on),
            np.random.RandomState(seed).get_state(),
            random.Random(seed).getstate(),
        )

    def equals(self, other: GeneratorStates) -> bool:
        """Whether all generators stand where they stood."""
        mine, its = (self.torch, *self.devices), (other.torch, *other.devices)
        return (
            len(mine) == len(its)
            and all(_equal(a, b) for a, b in zip(mine, its, strict=True))
            and _alike(self.numpy, other.numpy)
            and self.python == other.python
        )

    def restore(self) -> None:
        """Put the generators back into these states; those of a PyTorch that was loaded since into
        the one in which they begin."""
        torch = sys.modules.get("torch")
        if torch is not None:
            begin = torch.Generator().get_state() if self.torch is None else self.torch
            torch.set_rng_state(begin)
        if torch is not None and self.devices:
            torch.cuda.set_rng_state_all(list(self.devices))
        if self.numpy is not None:
            np.random.set_state(self.numpy)
        random.setstate(self.python)


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and one.equal(other))


def _alike(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one[1], other[1]) and one[2:] == other[2:]


@contextmanager
def generators_kept() -> Generator[None]:
    """Restore the generators at the end to what they are now."""
    before = GeneratorStates.now()
    try:
        yield
    finally:
        before.restore()
