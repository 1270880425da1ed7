"""A network that is wider than it needs to be, and the same without the units that stayed dead.

    python examples/pruned.py

It learns the even ones of scikit-learn's digits; activations cost a little, so that training closes
units for good. `prune(dead)` removes those, and the odd images are told as well as before;
`prune(structured, 0.8)` leaves the fifth of the rest that contributes most, and accuracy is lost.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import forwardpass as fwd

pixels, labels = load_digits(return_X_y=True)
pixels = (pixels / 16).astype(np.float32)
learned, held_back = {"pixels": pixels[::2]}, {"pixels": pixels[1::2]}


def trained() -> nn.Module:
    """64 pixels, two wide layers, ten digits; the same weights each time."""
    x, y = torch.from_numpy(pixels[::2]), torch.from_numpy(labels[::2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(250):
            first = net[:2](x)
            second = net[2:4](first)
            cost = 3e-3 * (first.sum(1) + second.sum(1)).mean()
            optimizer.zero_grad()
            (F.cross_entropy(net[4](second), y) + cost).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def accuracy(forward: fwd.Forward | str) -> float:
    """Of the images that were held back."""
    outputs, _ = fwd.run(forward, held_back)
    return float((np.asarray(outputs["output"]).argmax(1) == labels[1::2]).mean())


def main() -> None:
    forward = fwd.load(fwd.Model(trained(), "pixels: f32[batch 64]"))
    print(f"as trained: {accuracy(forward):.1%} right")
    for step in ("prune(dead)", "prune(structured, 0.8)"):
        forward = forward | step
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "digits.fwd"
            artefact = fwd.export(forward @ "onnxruntime", out, calibrate=learned)
            done = artefact.steps[-1]
            print(f"| {done.step}: {done.did}; outputs move by {done.moved:.1e}")
            print(f"{accuracy(str(out)):.1%} right")


if __name__ == "__main__":
    main()
