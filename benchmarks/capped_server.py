"""A server whose caps can be reached, for `serving_faults`: PORT; its models are in this file.

It is a program of its own, since the supervisor takes the signals of its process.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from forwardpass import Model
from forwardpass.serving.options import RequestLimits, ServedModel, ServeOptions
from forwardpass.serving.supervising import supervise
from forwardpass.serving.witnesses import Witness

BODY_BYTES = 1 << 20
HEADER_BYTES = 1 << 14
NAMES = ("vector", "several", "text")


class Several(nn.Module):
    """Something of each input, in each row."""

    def forward(self, ids: Tensor, mask: Tensor, w: Tensor) -> Tensor:
        return (ids * mask).sum(1) + w.float().sum(1)


class Codes:
    """The bytes of a text, and a space, so that there is one."""

    text_columns = ("text",)

    def __call__(self, rows: Any) -> dict[str, Any]:
        return {"codes": [list((text + " ").encode()) for text in rows["text"]]}


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, 4)

    def forward(self, codes: Tensor) -> Tensor:
        return self.table(codes).mean(1)


torch.manual_seed(0)
vector = Model(nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)), "x: f32[batch 3]")
several = Model(
    Several(), ["ids: i64[batch tokens=2..8]", "mask: bool[batch tokens]", "w: f16[batch 2]"]
)
text = Model(Mean(), "codes: i64[batch n]", encode=Codes())


def main() -> None:
    """Until a signal ends it."""
    options = ServeOptions(
        models=tuple(ServedModel(name=name, forward=f"{__file__}:{name}") for name in NAMES),
        port=int(sys.argv[1]), access_log=False,
        limits=RequestLimits(body_bytes=BODY_BYTES, header_bytes=HEADER_BYTES),
    )  # fmt: skip
    sys.exit(supervise(options, Witness()))


if __name__ == "__main__":
    main()
