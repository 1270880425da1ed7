"""static-ready: passes that torch.export refuses or narrows, and twins that it takes whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from forwardpass import Model
from planted import Case

EVAL = {"mode": "eval", "grad": "inference"}


class Base(nn.Module):
    def __init__(self, mended: bool) -> None:
        super().__init__()
        self.mended = mended
        self.linear = nn.Linear(8, 8)


class Branch(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if self.mended:
            return torch.where(h > 3, h / 2, h)
        if h.max() > 3:  # FAULT branch by a value
            h = h / 2
        return h


class Numpy(Base):
    def forward(self, x: Tensor) -> Tensor:
        if not self.mended:
            x = torch.from_numpy(x.detach().numpy() * 2)  # FAULT through NumPy
        return self.linear(x)


class Count(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if self.mended:
            return h.relu().cumsum(0)
        for _ in range(int(h.abs().max())):  # FAULT loop by a value
            h = h / 2
        return h.tanh()


class Catches(Base):
    """Halves until it is small: the number of rounds is a value."""

    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return self.linear(x).clamp(-1, 1)
        while x.norm() > 1:  # FAULT while
            x = x / 2
        return self.linear(x)


class Rows(Base):
    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return self.linear(x).relu()
        return torch.stack([self.linear(row) for row in x]).relu()  # FAULT row by row


class Steps(Base):
    """A loop over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        if self.mended:
            return self.linear(x.cumsum(1))
        state = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):  # FAULT loop over tokens
            state = torch.tanh(self.linear(x[:, step]) + state)
        return state


class View(Base):
    def __init__(self, mended: bool, rows: int = 4) -> None:
        super().__init__(mended)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        rows = -1 if self.mended else self.rows
        return self.linear(x).view(rows, 2, 4).relu()  # FAULT a size in the code


class Large(Base):
    def forward(self, x: Tensor) -> Tensor:
        if not self.mended and x.shape[0] > 3:  # FAULT branch by the batch
            return self.linear(x.clone()).relu()
        return self.linear(x).relu()


class Short(Base):
    """Another factor for short sequences, or for long ones."""

    def __init__(self, longest: int, least: int) -> None:
        super().__init__(False)
        self.longest, self.least = longest, least

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        if x.shape[1] > self.longest or x.shape[1] < self.least:  # FAULT branch by the tokens
            h = h / 2
        return h.mean(1)


class Window(Base):
    """A convolution over tokens: fewer than its kernel nobody computes."""

    def __init__(self) -> None:
        super().__init__(True)
        self.window = nn.Conv1d(8, 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.window(self.linear(x).relu().transpose(1, 2)).mean(2)


class Positions(Base):
    """A table of positions, which ends."""

    def __init__(self) -> None:
        super().__init__(True)
        self.table = nn.Parameter(torch.randn(32, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.table[: x.shape[1]]).mean(1)


class Compared(Base):
    """By which of two sizes is larger."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x).mean(1)
        if x.shape[1] > x.shape[0]:  # FAULT branch by two sizes
            h = h / 2
        return h


def of(module: nn.Module, axes: str = "batch 8", rows: int = 4) -> tuple[Model, Any]:
    shape = [{"batch": rows, "tokens": 6}.get(axis) or int(axis) for axis in axes.split()]
    return Model(module, f"x: f32[{axes}]"), {"x": torch.randn(shape)}


def bert(attention: str) -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, attn_implementation=attention)  # fmt: skip
    return BertModel(config), {"input_ids": torch.arange(2, 12).view(2, 5)}


def gated_bert() -> tuple[nn.Module, Any]:
    """BERT, with an early exit."""
    model, inputs = bert("eager")

    class Exit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor) -> Tensor:
            out = self.model(input_ids).pooler_output
            if out.abs().mean() > 0.9:  # FAULT early exit
                return out
            return out + 1

    return Exit(), inputs


TOKENS = "batch tokens 8"
CASES: list[Case] = [
    Case("a branch by a value", lambda: of(Branch(False)), True, EVAL, "FAULT branch by a value"),
    Case("through NumPy", lambda: of(Numpy(False)), True, EVAL, "FAULT through NumPy"),
    Case("a loop by a value", lambda: of(Count(False)), True, EVAL, "FAULT loop by a value"),
    Case("a while", lambda: of(Catches(False)), True, EVAL, "FAULT while"),
    Case("row by row", lambda: of(Rows(False)), True, EVAL, "FAULT row by row"),
    Case("token by token", lambda: of(Steps(False), TOKENS), True, EVAL, "FAULT loop over tokens"),
    Case("a size in the code", lambda: of(View(False)), True, EVAL, "FAULT a size in the code"),
    Case("a branch by the batch", lambda: of(Large(False)), True, EVAL,
         "FAULT branch by the batch"),
    Case("BERT with an exit", gated_bert, True, EVAL, "FAULT early exit"),
    Case("a branch for short ones", lambda: of(Short(99, 5), TOKENS), True, EVAL,
         "FAULT branch by the tokens"),
    Case("a branch for long ones", lambda: of(Short(99, 0), TOKENS), True, EVAL,
         "FAULT branch by the tokens"),
    Case("a branch by two sizes", lambda: of(Compared(True), TOKENS), True, EVAL,
         "FAULT branch by two sizes"),
    Case("a window", lambda: of(Window(), TOKENS), False, EVAL),
    Case("a table of positions", lambda: of(Positions(), TOKENS), False, EVAL),
    Case("the signature has that range", lambda: (
        Model(Short(99, 5), "x: f32[batch tokens=5..99 8]"), {"x": torch.randn(4, 6, 8)}), False,
        EVAL),
    Case("torch.where", lambda: of(Branch(True)), False, EVAL),
    Case("without NumPy", lambda: of(Numpy(True)), False, EVAL),
    Case("a clamp", lambda: of(Catches(True)), False, EVAL),
    Case("all rows at once", lambda: of(Rows(True)), False, EVAL),
    Case("all tokens at once", lambda: of(Steps(True), TOKENS), False, EVAL),
    Case("a size left open", lambda: of(View(True)), False, EVAL),
    Case("any batch", lambda: of(Large(True)), False, EVAL),
    Case("one row", lambda: of(Large(True), rows=1), False, EVAL),
    Case("BERT", lambda: bert("sdpa"), False, EVAL),
    Case("an LSTM", lambda: (nn.LSTM(8, 4, batch_first=True), torch.randn(2, 5, 8)), False, EVAL),
]  # fmt: skip
