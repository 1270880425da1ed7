"""wasted-work: things computed twice or anew in each pass, and twins that compute them once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from planted import Case

EVAL = {"mode": "eval", "grad": "inference"}


def encoder() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))


class Twice(nn.Module):
    """Encodes the same values twice."""

    def __init__(self, once: bool) -> None:
        super().__init__()
        self.once = once
        self.encoder, self.score = encoder(), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)
        gate = torch.sigmoid(h)
        again = h if self.once else self.encoder(x)  # FAULT encoded again
        return self.score(gate * again)


class Norms(nn.Module):
    """Normalises once for what passes, and once for the gate."""

    def __init__(self, once: bool) -> None:
        super().__init__()
        self.once = once
        self.norm = nn.LayerNorm(64)
        self.value, self.gate = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        again = h if self.once else self.norm(x)  # FAULT normalised again
        return x + self.value(h) * torch.sigmoid(self.gate(again))


class Causal(nn.Module):
    """Builds its mask in each pass."""

    mask: Tensor

    def __init__(self, once: bool, size: int = 256) -> None:
        super().__init__()
        self.once = once
        self.qkv = nn.Linear(16, 48)
        mask = torch.triu(torch.full((size, size), float("-inf")), 1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1]
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = self.mask[:size, :size]
        if not self.once:
            mask = torch.triu(torch.full((size, size), float("-inf")), 1)  # FAULT mask anew
        return torch.softmax(q @ k.transpose(1, 2) * 0.25 + mask, -1) @ v


class Positions(nn.Module):
    """Computes a table of sines in each pass."""

    table: Tensor

    def __init__(self, once: bool, size: int = 512) -> None:
        super().__init__()
        self.once = once
        self.register_buffer("table", self.made(size), persistent=False)
        self.linear = nn.Linear(64, 16)

    def made(self, size: int) -> Tensor:
        rates = torch.arange(64) / 64
        return torch.sin(torch.arange(size)[:, None] / 10_000**rates)  # FAULT sines anew

    def forward(self, x: Tensor) -> Tensor:
        table = self.table[: x.shape[1]] if self.once else self.made(x.shape[1])
        return self.linear(x + table).relu()


class Casts(nn.Module):
    """Casts to half precision and straight back."""

    def __init__(self, once: bool) -> None:
        super().__init__()
        self.once = once
        self.linear = nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        if not self.once:
            x = x.double().float()  # FAULT there and back
        return self.linear(x).relu()


class Copies(nn.Module):
    """Copies what nobody writes."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        self.copies = copies
        self.linear = nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        if self.copies:
            x = x.clone()  # FAULT a copy
        return self.linear(x).relu()


class Written(nn.Module):
    """A copy that is needed: it is written, and the caller's tensor must not be."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, 0] = 0
        return self.linear(x).relu()


class Layout(nn.Module):
    """Moves the channels and back, with a copy each time."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.back = back

    def forward(self, x: Tensor) -> Tensor:
        y = x.relu().transpose(1, 2).contiguous()  # FAULT two copies
        if self.back:
            y = y.transpose(1, 2).contiguous()
        return y.view(x.shape[0], -1).cumsum(-1)


class Siamese(nn.Module):
    """Encodes two inputs; where a caller gives one tensor twice, that is the caller's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return F.cosine_similarity(self.encoder(left), self.encoder(right))


class Recurrent(nn.Module):
    """Starts from zeros in each pass, which is cheap."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], 32)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state)


class Small(nn.Module):
    """Layers of a few numbers, called on the same values or on others."""

    def __init__(self, then: Callable[[Any, Tensor], Tensor], parts: str) -> None:
        super().__init__()
        self.then = then
        known: dict[str, nn.Module] = {
            "a": nn.Linear(8, 16), "b": nn.Linear(16, 4), "c": nn.Linear(16, 16),
            "drop": nn.Dropout(0.1), "body": nn.Sequential(
                nn.Linear(8, 16), nn.ReLU(True), nn.Linear(16, 16), nn.LeakyReLU(inplace=True)),
        }  # fmt: skip
        known["twin"] = copy.deepcopy(known["a"])
        for name in parts.split():
            self.add_module(name, known[name])

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, x)


def recomputed(m: Any, x: Tensor) -> Tensor:
    return m.b(m.a(x).relu()) + m.b(m.a(x).relu())  # FAULT twice in one line


def fixed_point(m: Any, x: Tensor) -> Tensor:
    z = x.new_zeros(len(x), 16)
    for _ in range(12):
        z = torch.tanh(m.a(x) + m.c(z))  # FAULT the same in each step
    return m.b(z)


def fixed_point_mended(m: Any, x: Tensor) -> Tensor:
    z, given = x.new_zeros(len(x), 16), m.a(x)
    for _ in range(12):
        z = torch.tanh(given + m.c(z))
    return m.b(z)


def in_place(m: Any, x: Tensor) -> Tensor:
    gate = m.body(x).sigmoid()
    return m.b(gate * m.body(x))  # FAULT with ReLU in place


def weights_twice(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    peak = (h @ h.mT / 4).softmax(-1).amax(-1, keepdim=True)
    return m.b((h @ h.mT / 4).softmax(-1) @ h / peak)  # FAULT scores again


def steps(m: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 16)
    for t in range(x.shape[1]):
        h = torch.tanh(m.a(x[:, t]) + m.c(h))
    return m.b(h)


def masked_layers(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    for _ in range(3):
        mask = (1.0 - (x[..., 0] > 0).float())[:, None, :] * -1e4
        h = h + m.c((h @ h.mT / 4 + mask).softmax(-1) @ h)
    return m.b(h)


def checkpointed(m: Any, x: Tensor) -> Tensor:
    def part(y: Tensor) -> Tensor:
        return m.a(y).relu()

    kept: Any = checkpoint(part, x, use_reentrant=False)
    return m.b(kept)


def sines_anew(m: Any, x: Tensor) -> Tensor:
    place, wave = torch.arange(x.shape[1])[:, None], torch.arange(0, 16, 2)
    angle = place * torch.exp(-wave / 4)
    sines = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)  # FAULT few sines
    h = m.a(x) + sines
    return m.b((h @ h.mT / 4).softmax(-1) @ h)


def ramped(m: Any, x: Tensor) -> Tensor:
    return m.b((m.a(x) * torch.arange(x.shape[1])[:, None] / x.shape[1]).relu())


def moved_between(m: Any, x: Tensor) -> Tensor:
    h = x * 2
    first = m.a(h)
    h.add_(first.mean(-1, keepdim=True))
    return m.b((first * m.a(h)).relu())


def small(
    then: Callable[[Any, Tensor], Tensor], parts: str = "a b", *given: int
) -> Callable[[], Any]:
    return lambda: (Small(then, parts), torch.randn(given or (8, 8)))


def of(model: nn.Module, *given: int) -> tuple[nn.Module, Any]:
    return model, torch.randn(given)


def pair() -> tuple[nn.Module, Any]:
    x = torch.randn(64, 64)
    return Siamese(), (x, x)


def gpt2(tokens: int = 24) -> tuple[nn.Module, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    ids = torch.arange(2 * tokens).view(2, tokens) % 50
    return GPT2LMHeadModel(config), {"input_ids": ids, "use_cache": False}


def t5() -> tuple[nn.Module, Any]:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    ids = torch.arange(24).view(2, 12)
    return T5Model(config), {"input_ids": ids, "decoder_input_ids": ids[:, :6]}


CASES: list[Case] = [
    Case("encoded twice", lambda: of(Twice(False), 64, 64), True, EVAL, "FAULT encoded again"),
    Case("encoded twice, in training", lambda: of(Twice(False), 64, 64), True, {"mode": "train"},
         "FAULT encoded again"),
    Case("normalised twice", lambda: of(Norms(False), 16, 128, 64), True, EVAL,
         "FAULT normalised again"),
    Case("a causal mask anew", lambda: of(Causal(False), 2, 256, 16), True, EVAL,
         "FAULT mask anew"),
    Case("sines anew", lambda: of(Positions(False), 2, 512, 64), True, EVAL, "FAULT sines anew"),
    Case("cast there and back", lambda: of(Casts(False), 4096, 64), True, EVAL,
         "FAULT there and back"),
    Case("a copy for nothing", lambda: of(Copies(True), 4096, 64), True, EVAL, "FAULT a copy"),
    Case("channels there and back", lambda: of(Layout(True), 16, 128, 64), True, EVAL,
         "FAULT two copies"),
    Case("twice in a small model", small(recomputed), True, EVAL, "FAULT twice in one line"),
    Case("that in training", small(recomputed), True, {"mode": "train"}, "FAULT twice in one line"),
    Case("a fixed point that computes its input anew", small(fixed_point, "a b c"), True, EVAL,
         "FAULT the same in each step"),
    Case("layers in place", small(in_place, "b body"), True, EVAL, "FAULT with ReLU in place"),
    Case("layers in place, grad on", small(in_place, "b body"), True,
         {"mode": "eval", "grad": "on"}, "FAULT with ReLU in place"),
    Case("scores of attention twice", small(weights_twice, "a b", 2, 5, 8), True, EVAL,
         "FAULT scores again"),
    Case("sines anew in a small model", small(sines_anew, "a b", 2, 128, 8), True, EVAL,
         "FAULT few sines"),
    Case("a ramp in a small model", small(ramped, "a b", 2, 128, 8), False, EVAL),
    Case("encoded once", lambda: of(Twice(True), 64, 64), False, EVAL),
    Case("normalised once", lambda: of(Norms(True), 16, 128, 64), False, EVAL),
    Case("a mask that is kept", lambda: of(Causal(True), 2, 256, 16), False, EVAL),
    Case("a small mask", lambda: of(Causal(False), 2, 12, 16), False, EVAL),
    Case("sines that are kept", lambda: of(Positions(True), 2, 512, 64), False, EVAL),
    Case("no cast", lambda: of(Casts(True), 4096, 64), False, EVAL),
    Case("no copy", lambda: of(Copies(False), 4096, 64), False, EVAL),
    Case("a copy that is written", lambda: of(Written(), 4096, 64), False, EVAL),
    Case("channels moved once", lambda: of(Layout(False), 16, 128, 64), False, EVAL),
    Case("one tensor given twice", pair, False, EVAL),
    Case("a recurrent cell", lambda: of(Recurrent(), 4, 8, 16), False, EVAL),
    Case("GPT-2", gpt2, False, EVAL),
    Case("T5", t5, False, EVAL),
    Case("a fixed point", small(fixed_point_mended, "a b c"), False, EVAL),
    Case("steps of a sequence", small(steps, "a b c", 4, 6, 8), False, EVAL),
    Case("a mask in each layer", small(masked_layers, "a b c", 2, 5, 8), False, EVAL),
    Case("two layers of equal weights",
         small(lambda m, x: m.b((m.a(x) * m.twin(x)).relu()), "a b twin"), False, EVAL),
    Case("dropout twice in training",
         small(lambda m, x: m.b(m.a(m.drop(x)).relu() + m.a(m.drop(x)).relu()), "a b drop"), False,
         {"mode": "train"}),
    Case("checkpointing", small(checkpointed), False, {"mode": "train", "grad": "on"}),
    Case("written between", small(moved_between), False, EVAL),
    Case("layers in place, on two inputs",
         small(lambda m, x: m.b(m.body(x) * m.body(x.flip(-1))), "b body"), False, EVAL),
    Case("a view twice", small(lambda m, x: m.b(m.a(x.view(-1, 8)).relu() * x.view(-1, 8)[:, :1])),
         False, EVAL),
]  # fmt: skip
