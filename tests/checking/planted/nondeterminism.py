"""nondeterminism: passes that differ from one to the next; and twins that draw by the seed."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from planted import Case

_PASSES = itertools.count()
_ENTROPY = random.SystemRandom()


class Fn(nn.Module):
    """A linear layer, and a function of its output."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.fc(x))


def own_generator(x: Tensor) -> Tensor:
    generator = torch.Generator()
    generator.seed()
    noise = torch.randn(x.shape, generator=generator)  # FAULT a generator without a seed
    return x + noise


def seeded_generator(x: Tensor) -> Tensor:
    return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def by_the_clock(x: Tensor) -> Tensor:
    return x * (time.perf_counter_ns() % 1009)  # FAULT depends on the time


def counted(x: Tensor) -> Tensor:
    return x + next(_PASSES)  # FAULT a counter outside of the model


def numpy_entropy(x: Tensor) -> Tensor:
    drawn = np.random.default_rng().standard_normal(x.shape)
    return x + torch.from_numpy(drawn).float()  # FAULT NumPy without a seed


def of_the_system(x: Tensor) -> Tensor:
    order = _ENTROPY.sample(range(400), 4)
    return x[:, torch.tensor(order) % 4 * 0] + torch.tensor(order)  # FAULT an order by the system


def by_the_global_seed(x: Tensor) -> Tensor:
    return x.softmax(-1)[:, torch.randperm(4)] + torch.rand_like(x)


def other_way(x: Tensor) -> Tensor:
    if next(_PASSES) % 2:
        return x.relu()
    return x.sigmoid()  # FAULT every other pass goes another way


def bytes_of_the_system(x: Tensor) -> Tensor:
    salt = torch.frombuffer(bytearray(os.urandom(16)), dtype=torch.uint8)
    return x + salt[:4]  # FAULT bytes of the system


class Dropout(nn.Module):
    """Dropout of one's own, by a generator of one's own; or by the one of the process."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 64)
        self.faulty = faulty

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        if self.faulty:
            generator = torch.Generator()
            generator.seed()
            return x * (torch.rand(x.shape, generator=generator) > 0.5)  # FAULT no seed reaches it
        return x * (torch.rand(x.shape) > 0.5)


def fn(then: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Fn(then).eval(), torch.randn(3, 8))


def vit(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                           intermediate_size=16, image_size=16, patch_size=8)  # fmt: skip
        model = ViTModel(config).eval()
        if faulty:
            model.embeddings.register_forward_hook(_jitters)
        return model, torch.randn(2, 3, 16, 16)

    return build


def _jitters(module: Any, args: Any, output: Any) -> Any:
    return output * torch.tensor([_ENTROPY.random() for _ in range(8)])  # FAULT a hook that jitters


CASES = [
    Case("a generator without a seed", fn(own_generator), True, line="FAULT a generator"),
    Case("a generator with a seed", fn(seeded_generator), False),
    Case("by the clock", fn(by_the_clock), True, line="FAULT depends"),
    Case("by nothing else", fn(lambda x: x * 3), False),
    Case("a counter outside", fn(counted), True, line="FAULT a counter"),
    Case("NumPy without a seed", fn(numpy_entropy), True, line="FAULT NumPy"),
    Case("an order by the system", fn(of_the_system), True, line="FAULT an order"),
    Case("an order by the seed", fn(by_the_global_seed), False),
    Case("another way", fn(other_way), True, line="FAULT every other pass"),
    Case("bytes of the system", fn(bytes_of_the_system), True, line="FAULT bytes"),
    Case("dropout without a seed", lambda: (Dropout(True), torch.randn(3, 8)), True,
         line="FAULT no seed"),
    Case("dropout by the seed", lambda: (Dropout(False), torch.randn(3, 8)), False),
    Case("ViT with a hook that jitters", vit(True), True, line="FAULT a hook"),
    Case("ViT", vit(False), False),
    Case("dropout in training", lambda: (nn.Sequential(nn.Linear(8, 8), nn.Dropout()),
                                         torch.randn(3, 8)), False, {"mode": "train"}),
]  # fmt: skip
