"""The random generators of the process: their states, kept and put back."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch


class GeneratorStates(NamedTuple):
    """The states of torch's, NumPy's and Python's global generators at one moment."""

    torch: torch.Tensor
    devices: tuple[torch.Tensor, ...]
    numpy: Any
    python: Any

    @classmethod
    def now(cls) -> GeneratorStates:
        """The states as they are; of CUDA devices only where CUDA is in use."""
        used = torch.cuda.is_initialized()
        return cls(
            torch.get_rng_state(),
            tuple(torch.cuda.get_rng_state_all()) if used else (),
            np.random.get_state(),
            random.getstate(),
        )

    @classmethod
    def seeded(cls, seed: int) -> GeneratorStates:
        """The states that a seed gives all of them; those of the process are not touched, since
        other threads may draw from them."""
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
        return (
            torch.equal(self.torch, other.torch)
            and len(self.devices) == len(other.devices)
            and all(torch.equal(a, b) for a, b in zip(self.devices, other.devices, strict=True))
            and np.array_equal(self.numpy[1], other.numpy[1])
            and self.numpy[2:] == other.numpy[2:]
            and self.python == other.python
        )

    def restore(self) -> None:
        """Put the generators back into these states."""
        torch.set_rng_state(self.torch)
        if self.devices:
            torch.cuda.set_rng_state_all(list(self.devices))
        np.random.set_state(self.numpy)
        random.setstate(self.python)


@contextmanager
def generators_kept() -> Generator[None]:
    """Restore the generators at the end to what they are now."""
    before = GeneratorStates.now()
    try:
        yield
    finally:
        before.restore()
