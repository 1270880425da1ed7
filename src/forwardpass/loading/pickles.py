"""Pickles, opened in the one way that runs nothing."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import IO, Any


class UnsafePickleError(Exception):
    """A pickle that asks for more than tensors and plain containers, or is broken."""


def opened(source: Path | IO[bytes], device: str) -> Any:
    """What a pickle holds, read with `weights_only=True` onto `device`.

    Raises UnsafePickleError where that refuses it. A crafted pickle makes the reader stumble in
    many ways, and each of these exceptions has been seen.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(source, map_location=device, weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
    ) as error:
        raise UnsafePickleError(f"{type(error).__name__}: {error}") from error
