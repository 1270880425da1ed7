"""Which Workshop is for a Forward, and which rows of its data count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from forwardpass.errors import LoadError, PassError
from forwardpass.tuning.apart import Apart
from forwardpass.tuning.here import Here
from forwardpass.tuning.parts import DataParts
from forwardpass.tuning.workshops import TrialError, Workshop

SILENT_SECONDS: Final = 600.0
"""How long a process may say nothing: to fit a large model is no hang."""


def opened(
    parts: DataParts,
    folder: Path,
    *,
    silent_seconds: float = SILENT_SECONDS,
    memory_bytes: int | None = None,
    until: float = math.inf,
) -> tuple[Workshop, DataParts, tuple[str, ...]]:
    """The Workshop for a Forward, and its parts without the rows that the Forward itself cannot
    compute.

    Args:
        folder: a new one, for all that is made; closing the Workshop removes it.
        silent_seconds: how long a process may do nothing before it is killed.
        memory_bytes: what a process may take beyond the loaded model; None: what is free.
        until: the instant at which whatever is at work is killed.

    Returns notes, too: what protects this process, where nothing does.

    Raises LoadError where another process cannot load the Forward, PassError where it computes no
    row as it was given, DataError as `DataParts.without`.
    """
    folder.mkdir(parents=True)
    shop, notes = _chosen(parts, folder, silent_seconds, memory_bytes, until)
    try:
        shop.settle()
    except TrialError as error:
        shop.close()
        raise PassError(
            f"{shop.baseline.plan}, the baseline, cannot be computed: {error}"
        ) from error
    except BaseException:
        shop.close()
        raise
    return shop, shop.parts, notes


def _chosen(
    parts: DataParts,
    folder: Path,
    silent_seconds: float,
    memory_bytes: int | None,
    until: float,
) -> tuple[Apart | Here, tuple[str, ...]]:
    model = parts.forward.model
    if model.origin is not None:
        shop = Apart(parts, folder, silent_seconds, memory_bytes, until=until)
        try:
            if shop.loads_the_same():
                return shop, ()
        except TrialError as error:
            shop.close()
            raise LoadError(
                f"{model.origin} was loaded here, and no other process can: {error}"
            ) from error
        except BaseException:
            shop.close()
            raise
        shop.end()
        why = f"{model.origin}, loaded by another process, is not this model"
    else:
        why = f"{model.name} was not loaded by a reference"
    return Here(parts, folder, until=until), (
        f"{why}: everything runs in this process, which nothing protects from plans that crash, "
        "hang, take its memory or last beyond the minutes; its memory is not theirs alone",
    )
