"""Results in memory: tensors where the model gives tensors, else lists."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from forwardpass.executing.decoding import whole_column
from forwardpass.nouns.arrow import is_arrow
from forwardpass.nouns.rows import listed
from forwardpass.running.columns import to_python
from forwardpass.running.options import Options
from forwardpass.running.sinks import Shard, Written
from forwardpass.running.stores import Store
from forwardpass.tensors.arrays import is_tensor, to_numpy

TAKES = (None,)


def opened(out: str | None, options: Options) -> InMemory:
    """The outputs, returned by `run`."""
    return InMemory()


class InMemory:
    """Keeps the shards; `outputs` has the columns of all rows."""

    store: Store | None = None
    path: Path | None = None

    def __init__(self) -> None:
        self._shards: list[Shard] = []

    def write(self, index: int, shard: Shard) -> Written:
        """Keep one shard."""
        self._shards.append(shard)
        digest = hashlib.sha256()
        for name, values in shard.columns.items():
            digest.update(name.encode())
            if is_tensor(values) or (isinstance(values, np.ndarray) and values.dtype != object):
                array = np.ascontiguousarray(to_numpy(values))
                digest.update(array.reshape(-1).view(np.uint8).data)
            else:
                digest.update(msgspec.json.encode(to_python(values), enc_hook=repr))
        return Written(f"memory-{index:05d}", digest.hexdigest(), 0)

    def finish(self) -> None:
        """Nothing is left to do."""

    @property
    def outputs(self) -> dict[str, Any]:
        """Every column over all rows: a tensor or array if every shard has one, else a list."""
        filled = [shard for shard in self._shards if shard.rows] or self._shards[:1]
        names = list(filled[0].columns) if filled else []
        whole = {name: whole_column([shard.columns[name] for shard in filled]) for name in names}
        return {name: listed(v) if is_arrow(v) else v for name, v in whole.items()}
