"""precision: half precision that costs digits or room, f64 unasked; and twins that are careful."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Case

EVAL = {"mode": "eval", "grad": "inference"}


class Base(nn.Module):
    def __init__(self, mended: bool) -> None:
        super().__init__()
        self.mended = mended
        self.linear = nn.Linear(16, 16)


class HalfSoftmax(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if not self.mended:
            return torch.softmax(h.bfloat16(), -1).float()  # FAULT softmax in bf16
        return torch.softmax(h, -1)


class HalfMean(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if self.mended:
            return h.mean(1)
        return h.half().mean(1).float()  # FAULT mean in f16


class HalfLayer(Base):
    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return self.linear(x).relu()
        w = self.linear.weight.bfloat16()  # FAULT weights in bf16
        return (x.bfloat16() @ w.T).float().relu()


class Running(Base):
    """Adds up step by step, in the dtype of the input or in f32."""

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(x.shape[0], 16, dtype=torch.float32 if self.mended else x.dtype)
        for step in range(x.shape[1]):
            total = total + x[:, step]  # FAULT a running sum
        return self.linear(total.to(x.dtype) / x.shape[1])


class InPlace(Base):
    """The same, into the sum itself."""

    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return self.linear(x.sum(1) / x.shape[1])
        total = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            total += x[:, step]  # FAULT a running sum in place
        return self.linear(total / x.shape[1])


class Squares(Base):
    """The squares of large numbers, in f16."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x) * 200
        if self.mended:
            return h / h.float().norm(dim=-1, keepdim=True).half()
        squares = h * h  # FAULT squares
        return squares / squares.amax(-1, keepdim=True)


class FromNumPy(Base):
    """A table from NumPy is f64."""

    table: Tensor

    def __init__(self, mended: bool) -> None:
        super().__init__(mended)
        table = torch.from_numpy(np.linspace(0, 1, 16))
        self.register_buffer("table", table.float() if mended else table)

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x) + self.table  # FAULT f64
        return torch.sigmoid(h).float()


class Constant(Base):
    """A constant from NumPy, made while the pass runs."""

    def forward(self, x: Tensor) -> Tensor:
        weights = np.hanning(16).astype(np.float32) if self.mended else np.hanning(16)
        return (self.linear(x) * torch.from_numpy(weights)).float()  # FAULT a window in f64


class OnPurpose(Base):
    """Says that it adds up in f64."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).double().cumsum(-1).float()


class Masked(Base):
    """A mask of f16 lies at the end of f16, and is meant to."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.full((16, 16), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
        return torch.softmax(self.linear(x) + mask, -1)


class Residual(nn.Module):
    """Many additions, with layers between: rounding, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(24))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x).relu()
        return x


class Mixed(nn.Module):
    """Runs a part under autocast, which casts what it is given; nobody has to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return torch.softmax(self.second(self.first(x).relu()), -1)


class Decorated(Mixed):
    """The same, by a decorator, with a region in f32 inside."""

    @torch.autocast("cpu", torch.bfloat16)
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        with torch.autocast("cpu", enabled=False):
            h = F.layer_norm(h.float(), (16,))
        return self.second(h).float()


class Beside(Mixed):
    """A part runs under autocast; another one is cast by hand."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            h = self.first(x)
        h = torch.tanh(h.bfloat16()).float()  # FAULT cast outside of autocast
        with torch.autocast("cpu", torch.bfloat16):
            return self.second(h).float()


class Conv(nn.Module):
    """Convolutions and attention under autocast, the head in f32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            h = self.conv(x).relu().flatten(2).transpose(1, 2)
            h = self.attention(h, h, h, need_weights=False)[0]
        return self.head(h.float().mean(1))


def of(model: nn.Module, *given: int, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Any]:
    return model.to(dtype), torch.rand(given).to(dtype)


def bert() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32)  # fmt: skip
    return BertModel(config).bfloat16(), {"input_ids": torch.arange(2, 12).view(2, 5)}


BF16, F16 = torch.bfloat16, torch.float16
CASES: list[Case] = [
    Case("softmax in bf16", lambda: of(HalfSoftmax(False), 4, 16), True, EVAL,
         "FAULT softmax in bf16"),
    Case("a mean in f16", lambda: of(HalfMean(False), 4, 32, 16), True, EVAL, "FAULT mean in f16"),
    Case("a layer in bf16", lambda: of(HalfLayer(False), 4, 16), True, EVAL,
         "FAULT weights in bf16"),
    Case("a running sum in bf16", lambda: of(Running(False), 2, 600, 16, dtype=BF16), True, EVAL,
         "FAULT a running sum"),
    Case("a running sum in place", lambda: of(InPlace(False), 2, 600, 16, dtype=BF16), True, EVAL,
         "FAULT a running sum in place"),
    Case("squares near the end of f16", lambda: of(Squares(False), 4, 16, dtype=F16), True, EVAL,
         "FAULT squares"),
    Case("a buffer in f64", lambda: (FromNumPy(False), torch.rand(4, 16)), True, EVAL,
         "FAULT f64"),
    Case("a window in f64", lambda: of(Constant(False), 4, 16), True, EVAL,
         "FAULT a window in f64"),
    Case("a cast beside autocast", lambda: of(Beside(), 4, 16), True, EVAL,
         "FAULT cast outside of autocast"),
    Case("autocast in forward", lambda: of(Mixed(), 4, 16), False, EVAL),
    Case("autocast around forward", lambda: of(Decorated(), 4, 16), False, EVAL),
    Case("autocast in training", lambda: of(Mixed(), 4, 16), False, {"mode": "train"}),
    Case("convolutions under autocast", lambda: of(Conv(), 4, 3, 8, 8), False, EVAL),
    Case("softmax in f32", lambda: of(HalfSoftmax(True), 4, 16), False, EVAL),
    Case("a mean in f32", lambda: of(HalfMean(True), 4, 32, 16), False, EVAL),
    Case("a layer in f32", lambda: of(HalfLayer(True), 4, 16), False, EVAL),
    Case("a running sum in f32", lambda: of(Running(True), 2, 600, 16, dtype=BF16), False, EVAL),
    Case("one sum in bf16", lambda: of(InPlace(True), 2, 600, 16, dtype=BF16), False, EVAL),
    Case("a norm in f32", lambda: of(Squares(True), 4, 16, dtype=F16), False, EVAL),
    Case("a buffer in f32", lambda: of(FromNumPy(True), 4, 16), False, EVAL),
    Case("a window in f32", lambda: of(Constant(True), 4, 16), False, EVAL),
    Case("f64 on purpose", lambda: of(OnPurpose(True), 4, 16), False, EVAL),
    Case("a mask in f16", lambda: of(Masked(True), 2, 16, 16, dtype=F16), False, EVAL),
    Case("a residual stream in bf16", lambda: of(Residual(), 4, 16, dtype=BF16), False, EVAL),
    Case("BERT in bf16", bert, False, EVAL),
]  # fmt: skip
