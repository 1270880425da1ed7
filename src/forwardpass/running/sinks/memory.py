"""Results in memory: tensors where the model gives tensors, else lists."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch

from forwardpass.running.columns import Delivered, to_numpy, to_python
from forwardpass.running.sinks import Shard, Written


class Memory:
    """Keeps the shards; `outputs` has the columns of all rows."""

    folder: Path | None = None

    def __init__(self) -> None:
        self._shards: list[Shard] = []

    def write(self, index: int, shard: Shard) -> Written:
        """Keep one shard."""
        self._shards.append(shard)
        digest = hashlib.sha256()
        for name, values in shard.columns.items():
            digest.update(name.encode())
            if isinstance(values, torch.Tensor):
                digest.update(memoryview(to_numpy(values)).cast("B") if values.numel() else b"")
            else:
                digest.update(msgspec.json.encode(to_python(values)))
        return Written(f"memory-{index:05d}", digest.hexdigest())

    def finish(self) -> None:
        """Nothing is left to do."""

    @property
    def outputs(self) -> dict[str, Any]:
        """Every column over all rows: a tensor or array where it is one in every shard, else a list."""
        filled = [shard for shard in self._shards if shard.rows] or self._shards[:1]
        names = list(filled[0].columns) if filled else []
        return {name: _joined([shard.columns[name] for shard in filled]) for name in names}


def _joined(parts: list[Delivered]) -> Any:
    if len(parts) == 1:
        return parts[0].to_pylist() if isinstance(parts[0], pa.Array) else parts[0]
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if len(tensors) == len(parts):
        return torch.cat(tensors)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)
    return [
        row for part in parts for row in (part.to_pylist() if isinstance(part, pa.Array) else part)
    ]
