"""The sentence encoder behind mosec: `MAX_BATCH=… WAIT_SECONDS=… serve_mosec.py --port PORT`.

The processes of its workers read this file again, and mosec reads the arguments.
"""

from __future__ import annotations

import os
from typing import Any

import mosec
from texts_by_hand import ByHand

MOST, WAIT = int(os.environ["MAX_BATCH"]), float(os.environ["WAIT_SECONDS"])


class Texts(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        self.embed = ByHand()

    def forward(self, data: Any) -> Any:
        texts = [given["text"] for given in (data if MOST > 1 else [data])]
        vectors = [{"embedding": vector} for vector in self.embed(texts)]
        return vectors if MOST > 1 else vectors[0]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(
        Texts, num=1, max_batch_size=MOST, max_wait_time=max(1, round(1e3 * WAIT)), timeout=60
    )
    server.run()
