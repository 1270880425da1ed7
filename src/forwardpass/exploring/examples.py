"""Our example, for who has no model at hand: a small network that reads drawn digits."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass.exploring.rows import RowsGiven, given
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model

_GLYPHS: Final = (
    "0110 1001 1001 1001 1001 0110",
    "0010 0110 0010 0010 0010 0111",
    "0110 1001 0001 0010 0100 1111",
    "1110 0001 0110 0001 0001 1110",
    "0010 0110 1010 1111 0010 0010",
    "1111 1000 1110 0001 0001 1110",
    "0110 1000 1110 1001 1001 0110",
    "1111 0001 0010 0010 0100 0100",
    "0110 1001 0110 1001 1001 0110",
    "0110 1001 1001 0111 0001 0110",
)
_STEPS: Final = 150
_ROWS: Final = 16


def glyphs() -> tuple[str, RowsGiven]:
    """Its name, and a few digits that it has not seen. Training takes about a second; weights and
    digits are the same each time."""
    draws = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(16 * 4 * 4, 10),
        ).train()  # fmt: skip
        optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            pixels, labels = _drawn(64, draws)
            F.cross_entropy(net(pixels), labels).backward()
            optimizer.step()
    model = Model(net.eval().requires_grad_(False), "pixels: f32[batch 1 8 8]")
    pixels, labels = _drawn(_ROWS, draws)
    rows: list[dict[str, Any]] = [
        {"pixels": image.numpy(), "label": int(label)}
        for image, label in zip(pixels, labels, strict=True)
    ]
    return "example", given(Forward(model), rows)


def _drawn(count: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Digits, each somewhere in its image, with uneven ink: f32[count 1 8 8], i64[count]."""
    shapes = torch.tensor([[[int(dot) for dot in line] for line in one.split()] for one in _GLYPHS])
    labels = torch.randint(10, (count,), generator=draws)
    places = torch.randint(3, (count, 2), generator=draws)
    ink = 0.6 + 0.4 * torch.rand(count, 6, 4, generator=draws)
    images = torch.zeros(count, 1, 8, 8)
    for at, (label, place) in enumerate(zip(labels.tolist(), places.tolist(), strict=True)):
        top, left = place[0], place[1] + 1
        images[at, 0, top : top + 6, left : left + 4] = shapes[label] * ink[at]
    return images, labels
