"""The sentence encoder behind LitServe: `serve_litserve.py PORT MAX_BATCH WAIT_SECONDS`."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from texts_by_hand import ByHand

PORT, MOST, WAIT = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


class Texts(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.embed = ByHand()

    # LitServe reads the annotation: without one it gives what JSON holds.
    def decode_request(self, request, **_):
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        return inputs

    def predict(self, x: Any, **_: Any) -> Any:
        return self.embed(x) if MOST > 1 else self.embed([x])[0]

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float], **_: Any) -> dict[str, list[float]]:
        return {"embedding": output}


if __name__ == "__main__":
    api = Texts(max_batch_size=MOST, batch_timeout=WAIT)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
