"""Models that compute row by row, and the same models over whole batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass import Model
from planted import Case

Built = tuple[Any, Any]


class Looping(nn.Module):
    """A stack of layers over each row, or over all."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.by_row = by_row
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8))

    def forward(self, x: Tensor) -> Tensor:
        if not self.by_row:
            return self.layers(x)
        return torch.stack([self.layers(row) for row in x])  # for every row


class Slicing(nn.Module):
    """A convolution over slices of one image, or over all images."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.by_row = by_row
        self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not self.by_row:
            return self.head(F.relu(self.conv(x)).mean((2, 3)))
        out: list[Tensor] = []
        for i in range(len(x)):
            h = F.relu(self.conv(x[i : i + 1]))  # one image at a time
            out.append(self.head(h.mean((2, 3))))
        return torch.cat(out)


class Part(nn.Module):
    """Made of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(x)))


class Nested(nn.Module):
    """Its parts are called in the loop; what they compute is not on the loop's line."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.by_row = by_row
        self.parts = nn.ModuleList(Part() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.by_row:
            rows: list[Tensor] = []
            for i in range(x.shape[0]):
                row = x[i].unsqueeze(0)  # the row by itself
                for part in self.parts:
                    row = part(row)
                rows.append(row)
            return torch.cat(rows)
        for part in self.parts:
            x = part(x)
        return x


class Recurrence(nn.Module):
    """A cell over the steps of all rows; or over the steps of each."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.by_row = by_row
        self.cell = nn.GRUCell(8, 16)

    def steps(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 16)
        for step in x.unbind(1):
            h = self.cell(step, h)  # a step
        return h

    def forward(self, x: Tensor) -> Tensor:
        if self.by_row:
            return torch.cat([self.steps(x[i : i + 1]) for i in range(len(x))])  # over rows
        return self.steps(x)


class Attending(nn.Module):
    """Attention with a product for each row, or one of all rows."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.by_row = by_row
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.query(x), self.key(x)
        if self.by_row:
            scores = [q[i] @ k[i].T for i in range(len(q))]  # a product for each
            return torch.stack(scores).softmax(-1) @ x
        return (q @ k.transpose(1, 2)).softmax(-1) @ x


class Normal(nn.Module):
    """No product in the loop: numbers are scaled row by row."""

    def __init__(self, by_row: bool) -> None:
        super().__init__()
        self.by_row = by_row
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.by_row:
            return torch.stack([row / row.norm() for row in h])  # scaled by its norm
        return h / h.norm(dim=1, keepdim=True)


class Experts(nn.Module):
    """A loop over experts, each for the rows that chose it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.gate(x).argmax(-1), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).nonzero()[:, 0]
            if len(mine):
                out[mine] = expert(x[mine])
        return out


def bert(by_row: bool) -> Built:
    """A classifier over a BERT, which it calls for each text, or for all."""
    from transformers import BertConfig, BertModel

    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=40, hidden_size=8, max_position_embeddings=16, **layers)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert, self.head = BertModel(config), nn.Linear(8, 2)

        def forward(self, ids: Tensor) -> Tensor:
            if by_row:
                firsts = [self.bert(text[None]).last_hidden_state[:, 0] for text in ids]  # text
                return self.head(torch.cat(firsts))
            return self.head(self.bert(ids).last_hidden_state[:, 0])

    return Classifier().eval(), {"ids": torch.randint(0, 40, (4, 6))}


def mamba() -> Built:
    """A scan over the steps of a sequence, written as a loop."""
    from transformers import MambaConfig, MambaModel

    config = MambaConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, state_size=4)
    return MambaModel(config).eval(), {"input_ids": torch.randint(0, 40, (3, 6))}


class Layered(nn.Module):
    """Any layer, over each row or over all; `over` says what it is given and what is taken."""

    def __init__(
        self, layer: nn.Module, by_row: bool, over: Callable[[Any, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.layer, self.by_row, self.over = layer, by_row, over

    def forward(self, x: Tensor) -> Tensor:
        if self.by_row:
            return torch.cat([self.over(self.layer, row[None]) for row in x])  # each row alone
        return self.over(self.layer, x)


class Subclass(nn.GRU):
    """A GRU of one's own, which gives PyTorch's one row after the other."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Any:  # type: ignore[override]
        rows = [super(Subclass, self).forward(row[None], hx) for row in input]  # in a subclass
        return torch.cat([out for out, _ in rows]), torch.cat([last for _, last in rows], 1)


def layered(
    layer: Callable[[], nn.Module], by_row: bool, x: Tensor, over: Callable[[Any, Tensor], Tensor]
) -> Callable[[], Built]:
    return lambda: (Layered(layer(), by_row, over).eval(), x)


def last(layer: Any, x: Tensor) -> Tensor:
    return layer(x)[0][:, -1]


def last_of_time_first(layer: Any, x: Tensor) -> Tensor:
    return layer(x.transpose(0, 1))[0][-1]


def applied(layer: Any, x: Tensor) -> Tensor:
    return layer(x)


def stepped(layer: Callable[..., nn.Module], trains: bool = False) -> Callable[[], Built]:
    """A recurrence over [time batch features], without a signature that says so."""
    return lambda: (
        Layered(layer(8, 16), False, lambda part, x: part(x)[0][-1]).train(trains),
        torch.randn(10, 4, 8),
    )


class Vectors(nn.Module):
    """A matrix times the vector of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.weight @ row for row in x])  # a vector of each


class Stacked(nn.Module):
    """An LSTM for each layer of a stack: a loop over layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(8, 8, batch_first=True) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)[0]
        return x


class Carried(nn.Module):
    """An LSTM in pieces of a sequence, which hand on their state: a loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        state, out = None, []
        for piece in x.split(2, 1):
            y, state = self.lstm(piece, state)
            out.append(y)
        return torch.cat(out, 1)


def of(module: Callable[[bool], nn.Module], by_row: bool, *shape: int) -> Callable[[], Built]:
    return lambda: (module(by_row).eval(), torch.randn(*shape))


def called(rows: int, times: int) -> dict[str, Any]:
    """How a script calls its model: `times` times with so many rows."""
    module = classifier()
    with fwd.watch(module) as records:
        for _ in range(times):
            module(torch.randn(rows, 32))  # called in a loop
    return {"callers": tuple(records)}


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).eval()


INFERENCE = {"grad": "inference"}
CASES = [
    Case("layers over rows", of(Looping, True, 8, 32), True, line="# for every row"),
    Case("images one at a time", of(Slicing, True, 4, 1, 8, 8), True, line="# one image at a time"),
    Case("parts over rows", of(Nested, True, 5, 16), True, line="# the row by itself"),
    Case("steps over rows", of(Recurrence, True, 4, 3, 8), True, line="# over rows"),
    Case("a product for each", of(Attending, True, 4, 5, 8), True, line="# a product for each"),
    Case("scaled row by row", of(Normal, True, 4, 8), True, line="# scaled by its norm"),
    Case("bert by texts", lambda: bert(True), True, line="# text"),
    Case("one row, in a loop", of(Looping, True, 1, 32), True, line="# for every row"),
    Case("in training", lambda: (Looping(True), torch.randn(8, 32)), True, line="# for every row"),
    Case("called with one row", lambda: (classifier(), torch.randn(1, 32)), True,
         called(1, 20), "# called in a loop"),
    Case("lstm over rows", layered(lambda: nn.LSTM(8, 16, batch_first=True), True,
         torch.randn(6, 5, 8), last), True, line="# each row alone"),
    Case("lstm over rows, in inference", layered(lambda: nn.LSTM(8, 16, 2, batch_first=True), True,
         torch.randn(6, 5, 8), last), True, INFERENCE, "# each row alone"),
    Case("gru over rows", layered(lambda: nn.GRU(8, 16, bidirectional=True), True,
         torch.randn(6, 5, 8), last_of_time_first), True, INFERENCE, "# each row alone"),
    Case("rnn over rows", layered(lambda: nn.RNN(8, 16, batch_first=True), True,
         torch.randn(6, 5, 8), last), True, line="# each row alone"),
    Case("norm over rows", layered(lambda: nn.LayerNorm(8), True, torch.randn(6, 8), applied), True,
         line="# each row alone"),
    Case("embedding over rows", layered(lambda: nn.Embedding(20, 8), True,
         torch.randint(0, 20, (6, 5)), applied), True, line="# each row alone"),
    Case("a vector of each", lambda: (Vectors().eval(), torch.randn(6, 8)), True,
         line="# a vector of each"),
    Case("gru over rows, with gradients", layered(lambda: nn.GRU(8, 16, batch_first=True), True,
         torch.randn(6, 5, 8), last), True, {"grad": "on"}, "# each row alone"),
    Case("gru over rows, in a subclass", layered(lambda: Subclass(8, 16, batch_first=True), False,
         torch.randn(6, 5, 8), last), True, {"grad": "on"}, "# in a subclass"),
    *(Case(f"{layer.__name__} over steps, {mode}", stepped(layer, mode == "train"), False,
           {"mode": mode, "grad": "on"})
      for layer in (nn.RNN, nn.GRU, nn.LSTM) for mode in ("eval", "train")),
    Case("two layers both ways over steps",
         stepped(partial(nn.GRU, num_layers=2, bidirectional=True)), False, {"grad": "on"}),
    Case("lstm", layered(lambda: nn.LSTM(8, 16, batch_first=True), False, torch.randn(6, 5, 8),
         last), False),
    Case("gru, time first", layered(lambda: nn.GRU(8, 16), False, torch.randn(6, 5, 8),
         last_of_time_first), False, INFERENCE),
    Case("norm", layered(lambda: nn.LayerNorm(8), False, torch.randn(6, 8), applied), False),
    Case("embedding", layered(lambda: nn.Embedding(20, 8), False, torch.randint(0, 20, (6, 5)),
         applied), False),
    Case("an lstm a layer", lambda: (Stacked().eval(), torch.randn(4, 4, 8)), False),
    Case("an lstm a piece", lambda: (Carried().eval(), torch.randn(4, 8, 8)), False),
    Case("layers over a batch", of(Looping, False, 8, 32), False),
    Case("images at once", of(Slicing, False, 4, 1, 8, 8), False),
    Case("parts over a batch", of(Nested, False, 5, 16), False),
    Case("steps over time", of(Recurrence, False, 4, 4, 8), False),
    Case("one product of all", of(Attending, False, 4, 5, 8), False),
    Case("scaled at once", of(Normal, False, 4, 8), False),
    Case("bert", lambda: bert(False), False),
    Case("mamba", mamba, False),
    Case("experts", lambda: (Experts().eval(), torch.randn(6, 8)), False),
    Case("one row", of(Looping, False, 1, 32), False),
    Case("called with batches", lambda: (classifier(), torch.randn(8, 32)), False, called(8, 20)),
    Case("called once", lambda: (classifier(), torch.randn(1, 32)), False, called(1, 1)),
    Case("with a signature",
         lambda: (Model(Looping(False).eval(), "x: f32[batch 32]"), torch.randn(4, 32)), False),
]  # fmt: skip
