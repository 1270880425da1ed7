"""The network behind LitServe: `mlp_litserve.py PORT MAX_BATCH`."""

from __future__ import annotations

import sys
from typing import Any

import litserve
from mlp_by_hand import MLP

PORT, MOST = int(sys.argv[1]), int(sys.argv[2])


class Served(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = MLP()

    # LitServe reads the annotation: without one it gives what JSON holds.
    def decode_request(self, request, **_):
        return request["rows"][0]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, x: Any, **_: Any) -> Any:
        return self.model(x) if MOST > 1 else self.model([x])[0]

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any, **_: Any) -> Any:
        return {"rows": [{"y": output}]}


if __name__ == "__main__":
    api = Served(max_batch_size=MOST, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
