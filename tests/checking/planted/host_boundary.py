"""host-boundary: values, random numbers and prints that cross into Python, and twins that stay."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Case

EVAL = {"mode": "eval", "grad": "inference"}


class Base(nn.Module):
    """A linear layer; `mended` chooses the sound way."""

    def __init__(self, mended: bool) -> None:
        super().__init__()
        self.mended = mended
        self.linear = nn.Linear(16, 16)


class Scale(Base):
    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return self.linear(x / x.abs().amax(-1, keepdim=True))
        scales = [row.abs().max().item() for row in x]  # FAULT item
        return torch.stack([self.linear(row / s) for row, s in zip(x, scales, strict=True)])


class Temperature(nn.Module):
    def __init__(self, mended: bool) -> None:
        super().__init__()
        self.mended = mended
        self.linear = nn.Linear(16, 16)
        self.temperature = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.temperature if self.mended else float(self.temperature)  # FAULT float
        return torch.softmax(self.linear(x) / scale, -1)


class Activation(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if self.mended:
            return torch.tanh(h)
        return torch.from_numpy(np.tanh(h.detach().numpy()))  # FAULT numpy


class Lists(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if self.mended:
            return h.clamp(min=0)
        rows = [[max(v, 0.0) for v in row] for row in h.tolist()]  # FAULT tolist
        return torch.tensor(rows)


class Noise(Base):
    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return self.linear(x)
        return self.linear(x) * random.uniform(0.9, 1.1)  # FAULT python noise


class Mask(Base):
    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return F.dropout(self.linear(x), 0.5, self.training)
        keep = np.random.rand(16) > 0.5  # FAULT numpy noise
        return self.linear(x) * torch.from_numpy(keep)


class Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        shift = float(self.generator.normal())  # FAULT held generator
        return self.linear(x) + shift


class Prints(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if not self.mended:
            print("hidden", tuple(h.shape), h.mean())  # FAULT print
        return h


class Branch(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if self.mended:
            return torch.where(h > 0, h, 0.1 * h)
        if h[0, 0] > 1e9:  # FAULT branch
            return 0.1 * h
        return h.relu()


class Packed(nn.Module):
    """What PyTorch's own layers read is theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        out = self.rnn(packed)[0]
        return nn.utils.rnn.pad_packed_sequence(out, True, total_length=x.shape[1])[0]


def of(model: nn.Module) -> tuple[nn.Module, Any]:
    return model, torch.randn(4, 16)


def vit() -> tuple[nn.Module, Any]:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=32, image_size=16, patch_size=8)  # fmt: skip
    return ViTModel(config), {"pixel_values": torch.randn(2, 3, 16, 16)}


CASES: list[Case] = [
    Case("a scale by item, row by row", lambda: of(Scale(False)), True, EVAL, "FAULT item"),
    Case("a parameter as a float", lambda: of(Temperature(False)), True, EVAL, "FAULT float"),
    Case("an activation by NumPy", lambda: of(Activation(False)), True, EVAL, "FAULT numpy"),
    Case("an activation over lists", lambda: of(Lists(False)), True, EVAL, "FAULT tolist"),
    Case("Python's noise", lambda: of(Noise(False)), True, EVAL, "FAULT python noise"),
    Case("NumPy's noise", lambda: of(Mask(False)), True, {"mode": "train"}, "FAULT numpy noise"),
    Case("a generator that the model holds", lambda: of(Drawn()), True, EVAL,
         "FAULT held generator"),
    Case("a print", lambda: of(Prints(False)), True, EVAL, "FAULT print"),
    Case("a branch by a value", lambda: of(Branch(False)), True, EVAL, "FAULT branch"),
    Case("a scale of each row", lambda: of(Scale(True)), False, EVAL),
    Case("a parameter", lambda: of(Temperature(True)), False, EVAL),
    Case("an activation", lambda: of(Activation(True)), False, EVAL),
    Case("a clamp", lambda: of(Lists(True)), False, EVAL),
    Case("no noise", lambda: of(Noise(True)), False, EVAL),
    Case("dropout in training", lambda: of(Mask(True)), False, {"mode": "train"}),
    Case("no print", lambda: of(Prints(True)), False, EVAL),
    Case("torch.where", lambda: of(Branch(True)), False, EVAL),
    Case("packed sequences", lambda: (Packed(), (torch.randn(3, 5, 6), torch.tensor([5, 2, 3]))),
         False, EVAL),
    Case("ViT", vit, False, EVAL),
]  # fmt: skip
