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

    def __init__(self, then: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.then = then

    def forward(self, x: Tensor) -> Any:
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
    return x.softmax(-1)[:, torch.randperm(4)]  # FAULT another order with another seed


def noise(x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn_like(x)  # FAULT noise


def gaussian_factors(x: Tensor) -> Tensor:
    return x * (1 + 0.1 * torch.randn(x.shape))  # FAULT factors


def random_signs(x: Tensor) -> Tensor:
    return x * (torch.randint(0, 2, x.shape) * 2 - 1)  # FAULT signs


def chosen(x: Tensor) -> Tensor:
    return nn.functional.gumbel_softmax(x, hard=True)  # FAULT a choice


def gates(x: Tensor) -> Tensor:
    return x * torch.bernoulli(x.sigmoid())  # FAULT gates that depend on the inputs


def masked(x: Tensor) -> tuple[Tensor, Tensor]:
    mask = torch.rand(len(x), 1) < 0.5  # FAULT what is masked is told
    return x * mask, mask


def another_token(x: Tensor) -> Tensor:
    mask = (torch.rand(len(x), 1) < 0.5).float()  # FAULT another token in their place
    return x * (1 - mask) + torch.linspace(-1.0, 1.0, 4) * mask


def skips(x: Tensor) -> Tensor:
    if torch.rand(()) < 0.5:  # FAULT a layer is skipped
        return x
    return x.tanh()


def by_the_best_class(x: Tensor) -> Tensor:
    return nn.functional.one_hot(x.argmax(-1), 4) * x


def draws_and_overwrites(x: Tensor) -> Tensor:
    memory = torch.randn(x.shape)
    memory.copy_(x)
    return memory * 2


def draws_for_nothing(x: Tensor) -> Tensor:
    return x + 0 * torch.randn(x.shape)


def sorts_at_random(x: Tensor) -> Tensor:
    order = torch.randperm(len(x))
    return x[order][order.argsort()]


class OnlyInTraining(nn.Module):
    """A variational autoencoder: it samples in training, and decodes the mean else."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.encode, self.decode = nn.Linear(8, 8), nn.Sequential(nn.Linear(4, 8), nn.Tanh())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, spread = self.encode(x).chunk(2, -1)
        z = mean
        if self.faulty or self.training:
            z = z + torch.randn_like(z) * spread.exp()  # FAULT samples in either mode
        return self.decode(z), mean, spread


def other_way() -> tuple[Any, Any]:
    passes = itertools.count()  # of this model: which pass is the first is the same in any order

    def forward(x: Tensor) -> Tensor:
        if next(passes) % 2:
            return x.sigmoid()  # FAULT every other pass goes another way
        return x.relu()

    return Fn(forward).eval(), torch.randn(3, 8)


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


def fn(then: Callable[[Tensor], Any]) -> Callable[[], tuple[Any, Any]]:
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
    Case("an order by the seed", fn(by_the_global_seed), True, line="FAULT another order"),
    Case("noise", fn(noise), True, line="FAULT noise"),
    Case("noise in training", lambda: (Fn(noise), torch.randn(3, 8)), False, {"mode": "train"}),
    Case("random factors", fn(gaussian_factors), True, line="FAULT factors"),
    Case("random signs", fn(random_signs), True, line="FAULT signs"),
    Case("a random choice", fn(chosen), True, line="FAULT a choice"),
    Case("the best choice", fn(by_the_best_class), False),
    Case("random gates", fn(gates), True, line="FAULT gates"),
    Case("masked rows that are told", fn(masked), True, line="FAULT what is masked"),
    Case("masked rows have a token", fn(another_token), True, line="FAULT another token"),
    Case("a layer is skipped", fn(skips), True, line="FAULT a layer"),
    Case("what is drawn is overwritten", fn(draws_and_overwrites), False),
    Case("what is drawn comes to nothing", fn(draws_for_nothing), False),
    Case("an order that is undone", fn(sorts_at_random), False),
    Case("samples", lambda: (OnlyInTraining(True).eval(), torch.randn(3, 8)), True,
         line="FAULT samples"),
    Case("samples in training only", lambda: (OnlyInTraining(False).eval(), torch.randn(3, 8)),
         False),
    Case("another way", other_way, True, line="FAULT every other pass"),
    Case("bytes of the system", fn(bytes_of_the_system), True, line="FAULT bytes"),
    Case("dropout without a seed", lambda: (Dropout(True), torch.randn(3, 8)), True,
         line="FAULT no seed"),
    Case("dropout by the seed", lambda: (Dropout(False), torch.randn(3, 8)), False),
    Case("ViT with a hook that jitters", vit(True), True, line="FAULT a hook"),
    Case("ViT", vit(False), False),
    Case("dropout in training", lambda: (nn.Sequential(nn.Linear(8, 8), nn.Dropout()),
                                         torch.randn(3, 8)), False, {"mode": "train"}),
]  # fmt: skip
