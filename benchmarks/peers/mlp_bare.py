"""The network behind a bare ASGI function on uvicorn, with an engine thread that takes what waits:
`mlp_bare.py PORT MAX_BATCH`."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from typing import Any

import msgspec
import uvicorn
from mlp_by_hand import MLP

PORT, MOST = int(sys.argv[1]), int(sys.argv[2])
waiting: queue.SimpleQueue[tuple[list[float], asyncio.Future[list[float]]]] = queue.SimpleQueue()
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}  # fmt: skip  # noqa: E501


class Body(msgspec.Struct):
    rows: list[list[float]]


decoder = msgspec.json.Decoder(Body)
encoder = msgspec.json.Encoder()


def compute(loop: asyncio.AbstractEventLoop) -> None:
    model = MLP()
    while True:
        batch = [waiting.get()]
        while len(batch) < MOST and not waiting.empty():
            batch.append(waiting.get())
        answers = model([row for row, _ in batch])
        loop.call_soon_threadsafe(answer, [future for _, future in batch], answers)


def answer(futures: list[asyncio.Future[list[float]]], answers: list[list[float]]) -> None:
    for future, row in zip(futures, answers, strict=True):
        if not future.done():
            future.set_result(row)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        threading.Thread(target=compute, args=(asyncio.get_running_loop(),), daemon=True).start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    future: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
    waiting.put((decoder.decode(body).rows[0], future))
    row = await future
    await send(HEAD)
    await send({"type": "http.response.body", "body": encoder.encode({"rows": [{"y": row}]})})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False, loop="uvloop", http="httptools")  # fmt: skip  # noqa: E501
