"""The sentence encoder behind Triton by pytriton: `serve_pytriton.py PORT MAX_BATCH WAIT_SECONDS`.

Of an interpreter that it brings a stub for, with a shared library (Debian's 3.11 has one).
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from texts_by_hand import ByHand

PORT, MOST, WAIT = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


def free() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


if __name__ == "__main__":
    embed = ByHand()

    @batch
    def infer(text: Any) -> dict[str, Any]:
        vectors = embed([one[0].decode("utf-8") for one in text])
        return {"embedding": np.array(vectors, np.float32)}

    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    config = TritonConfig(
        http_address="127.0.0.1", http_port=PORT, grpc_port=free(), metrics_port=free()
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="minilm",
            infer_func=infer,
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="embedding", dtype=np.float32, shape=(384,))],
            config=ModelConfig(
                max_batch_size=MOST,
                batching=True,
                batcher=DynamicBatcher(max_queue_delay_microseconds=int(1e6 * WAIT)),
            ),
        )
        triton.run()
        over.wait()
