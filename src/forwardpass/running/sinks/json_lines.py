"""JSON lines on a stream: standard output. Nothing can be resumed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import msgspec

from forwardpass.loading.prints import output, printing
from forwardpass.running.columns import to_python
from forwardpass.running.options import Options
from forwardpass.running.sinks import Shard, Written
from forwardpass.running.stores import Store

TAKES = ("-",)


def opened(out: str | None, options: Options) -> JsonLines:
    """Lines on standard output."""
    return JsonLines(output().buffer)


class JsonLines:
    """One JSON object a row on `stream`."""

    store: Store | None = None
    path: Path | None = None

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def write(self, index: int, shard: Shard) -> Written:
        """Write the rows of one shard; NaN and infinities become null, which JSON knows."""
        columns = {name: to_python(values) for name, values in shard.columns.items()}
        encode = msgspec.json.Encoder(enc_hook=str).encode
        lines = b"".join(
            encode(dict(zip(columns, row, strict=True))) + b"\n"
            for row in zip(*columns.values(), strict=True)
        )
        with printing():
            self.stream.write(lines)
            self.stream.flush()
        return Written(f"lines-{index:05d}", hashlib.sha256(lines).hexdigest(), len(lines))

    def finish(self) -> None:
        """Nothing is left to do."""
