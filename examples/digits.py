"""Handwritten digits: a small convolutional network, trained when this file is imported.

    fwd run examples/digits.py examples/digits.py:rows -o OUT --key image --keep label

The 1,797 images of scikit-learn, 8 x 8 pixels each: the network learns from the even ones, `rows`
yields the odd ones, which it has never seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd

EPOCHS = 25


def images() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All images, f32[1797 1 8 8] from 0 to 1, and their labels, i64[1797]."""
    pixels, labels = load_digits(return_X_y=True)
    return (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels.astype(np.int64)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 4 * 4, 10),
    )


def trained() -> nn.Module:
    """The network after a few seconds of training; the same weights each time."""
    pixels, labels = (torch.from_numpy(array[::2]) for array in images())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small batches gain nothing by more, and weights would depend on it
    with torch.random.fork_rng(devices=[]):  # the importer's random numbers stay as they are
        torch.manual_seed(0)
        net = network().train()
        optimizer = torch.optim.AdamW(net.parameters())
        steps = EPOCHS * (len(pixels) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(pixels)).split(64)[: len(pixels) // 64]:
                optimizer.zero_grad()
                F.cross_entropy(net(pixels[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
    torch.set_num_threads(threads)
    return net.eval().requires_grad_(False)


def decode(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits f32[batch 10] to the digit and the probability that the network gives it."""
    confidence, digit = outputs["output"].softmax(1).max(1)
    return {"digit": digit, "confidence": confidence}


def rows() -> Iterator[dict[str, Any]]:
    """The 898 images that were held back, with their labels."""
    for image, (pixels, label) in enumerate(zip(*images(), strict=True)):
        if image % 2:
            yield {"image": image, "pixels": pixels, "label": int(label)}


model = fwd.Model(trained(), "pixels: f32[batch 1 8 8]", decode=decode)
