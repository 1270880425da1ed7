"""torchao, imported by whoever does, without what it says then."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def unheard() -> Generator[None]:
    """Around a first import of torchao: it speaks of files for CUDA that it cannot load, and of a
    deprecation. transformers imports it, too, where it is installed."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
