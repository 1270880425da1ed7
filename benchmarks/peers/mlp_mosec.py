"""The network behind mosec: `mlp_mosec.py MAX_BATCH --port PORT`."""

from __future__ import annotations

import os
import sys
from typing import Any

# mosec reads the other arguments itself, and its workers begin with what is left of them.
MOST = int(os.environ.get("MOST") or sys.argv.pop(1))
os.environ["MOST"] = str(MOST)

import mosec  # noqa: E402
from mlp_by_hand import MLP  # noqa: E402


class Served(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = MLP()

    def forward(self, data: Any) -> Any:
        rows = self.model([given["rows"][0] for given in (data if MOST > 1 else [data])])
        answers = [{"rows": [{"y": row}]} for row in rows]
        return answers if MOST > 1 else answers[0]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Served, num=1, max_batch_size=MOST, max_wait_time=1, timeout=60_000)
    server.run()
