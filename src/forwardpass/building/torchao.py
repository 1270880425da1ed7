"""torchao, imported without what it says and changes when it is."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from forwardpass.loading.torchao import unheard


@contextmanager
def importing() -> Generator[None]:
    """Around the first import of torchao, which sets a pass of inductor's for the whole process."""
    from torch._inductor import config

    with unheard(), config.patch(pre_grad_custom_pass=config.pre_grad_custom_pass):
        yield
