"""state-changed, of inputs: passes that write what the caller gave; and twins that write their own,
or what was given to be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from planted import Case


class Writes(nn.Module):
    """Two layers behind what is done to an input: in place, or to a tensor of one's own."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = first
        self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.fc(self.first(x)).relu())


def doubles(x: Tensor) -> Tensor:
    return x.mul_(2)  # FAULT doubles what was given


def centres(x: Tensor) -> Tensor:
    x -= x.mean(-1, keepdim=True)  # FAULT centres what was given
    return x


def blanks(x: Tensor) -> Tensor:
    x[:, 0] = 0  # FAULT blanks a column through a view
    return x


def by_numpy(x: Tensor) -> Tensor:
    x.numpy()[:] /= 2  # FAULT NumPy shares the memory
    return x


def blanks_a_clone(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 0
    return x.mul_(2)


def bounds(x: Tensor) -> Tensor:
    return x.clamp_(-1e6, 1e6)


def writes_own(x: Tensor) -> Tensor:
    twice = torch.empty_like(x)
    torch.mul(x, 2, out=twice)
    return torch.relu_(twice)


class FillsMask(nn.Module):
    """Makes a mask of numbers to add: in the caller's tensor, or in a new one."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.faulty:
            added = mask.masked_fill_(mask == 0, -9.0)  # FAULT fills the caller's mask
        else:
            added = mask.masked_fill(mask == 0, -9.0)
        return self.fc(x).softmax(-1) + added


class Masks(nn.Module):
    """Inputs in a dict, under which padding is zeroed."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4, bias=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x, mask = batch["x"], batch["mask"][..., None]
        if self.faulty:
            x *= mask  # FAULT zeroes padding in the batch
        return self.fc(x * mask).sum(1)


class AddsInPlace(nn.Module):
    """A residual that is added in place, to what was given or to what was computed."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty:
            x += self.down(self.up(x).relu())  # FAULT the caller's tensor is the result
            return x
        y = self.down(self.up(x).relu())
        y += x
        return y


class Caches(nn.Module):
    """Attention over keys and values that the caller keeps, which are filled in place."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor, cache: dict[str, Tensor]) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        at = cache["length"]
        cache["keys"].index_copy_(1, at, key[:, None])
        cache["values"][:, at] = value[:, None]
        scores = (cache["keys"] * query[:, None]).sum(-1)
        cache["length"] += 1
        return (scores.softmax(-1)[..., None] * cache["values"]).sum(1)


class Updates(nn.Module):
    """A recurrent state that the caller gives, updated in place and handed back."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state.mul_(0.9).add_(self.fc(x))
        return self.head(state), state


class WritesOut(nn.Module):
    """Memory for the result is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        return torch.clamp(self.fc(x), -1.0, 1.0, out=out)


def made(kind: type[nn.Module], faulty: bool) -> Callable[[], tuple[Any, Any]]:
    return lambda: (kind(faulty).eval(), torch.randn(3, 8))  # type: ignore[call-arg]


def writes(first: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Writes(first).eval(), torch.randn(3, 8))


def in_place(*before: nn.Module) -> Callable[[], tuple[Any, Any]]:
    parts = (*before, nn.ReLU(inplace=True), nn.Linear(8, 4))
    return lambda: (nn.Sequential(*parts).eval(), torch.randn(3, 8))


def with_mask(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    return lambda: (FillsMask(faulty).eval(), (torch.randn(3, 8), torch.eye(3, 5)))


def with_batch(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        batch = {"x": torch.randn(3, 5, 8), "mask": torch.ones(3, 5).tril(1)}
        return Masks(faulty).eval(), (batch,)

    return build


def with_cache() -> tuple[Any, Any]:
    cache = {"keys": torch.randn(3, 5, 8), "values": torch.randn(3, 5, 8),
             "length": torch.tensor([2])}  # fmt: skip
    return Caches().eval(), (torch.randn(3, 8), cache)


def llama() -> tuple[Any, Any]:
    """Its static cache is written in place, layer by layer."""
    from transformers import LlamaConfig, LlamaModel, StaticCache

    config = LlamaConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                         num_key_value_heads=2, intermediate_size=16)  # fmt: skip
    model = LlamaModel(config).eval()
    cache = StaticCache(config=config, max_cache_len=8)
    ids = torch.randint(1, 30, (2, 5))
    with torch.no_grad():
        model(ids[:, :3], past_key_values=cache)
    return model, {"input_ids": ids[:, 3:], "past_key_values": cache}


CASES = [
    Case("doubles its input", writes(doubles), True, line="FAULT doubles"),
    Case("centres its input", writes(centres), True, line="FAULT centres"),
    Case("centres its input in training", writes(centres), True, {"mode": "train"},
         line="FAULT centres"),
    Case("blanks a column of its input", writes(blanks), True, line="FAULT blanks"),
    Case("writes its input by NumPy", writes(by_numpy), True, {"grad": "off"}, line="FAULT NumPy"),
    Case("blanks a column of a clone", writes(blanks_a_clone), False),
    Case("writes its input as it is", writes(bounds), False),
    Case("writes memory of its own", writes(writes_own), False),
    Case("an activation in place comes first", in_place(), True, line="inplace"),
    Case("an activation in place on a view", in_place(nn.Flatten()), True),
    Case("an activation in place comes second", in_place(nn.Linear(8, 8)), False),
    Case("fills the mask that was given", with_mask(True), True, line="FAULT fills"),
    Case("fills a mask of its own", with_mask(False), False),
    Case("zeroes padding in a batch", with_batch(True), True, line="FAULT zeroes"),
    Case("zeroes padding on the way", with_batch(False), False),
    Case("a residual on its input", made(AddsInPlace, True), True, line="FAULT the caller's"),
    Case("a residual on what it computed", made(AddsInPlace, False), False),
    Case("a cache of the caller's", with_cache, False),
    Case("a static cache of Llama", llama, False),
    Case("a state of the caller's", lambda: (Updates().eval(), (torch.randn(3, 8),
                                                                torch.randn(3, 6))), False),
    Case("memory for the result", lambda: (WritesOut().eval(), (torch.randn(3, 8),
                                                                torch.zeros(3, 4))), False,
         {"grad": "off"}),
]  # fmt: skip
