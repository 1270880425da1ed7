"""torchao, imported without what it says and changes when it is."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def importing() -> Generator[None]:
    """Around the first import of torchao.

    It speaks of files for CUDA that it cannot load and of a deprecation, and sets a pass of
    inductor's for the whole process.
    """
    from torch._inductor import config

    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with config.patch(pre_grad_custom_pass=config.pre_grad_custom_pass):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
