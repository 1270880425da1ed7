"""What changed is not a layer but what goes into it: the code that hands it on is to blame."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mix = nn.Linear(16, 16)
        self.up, self.act, self.down = nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)

    def inner(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm1(x))
        return x + self.inner(self.norm2(x))


class Post(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.mix(x))
        return self.norm2(x + self.inner(x))


class Parallel(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = x + self.mix(self.norm1(x))
        return y + self.inner(self.norm2(x))


class Exchanged(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm2(x))
        return x + self.inner(self.norm1(x))


class FromTheStart(Block):
    def forward(self, x: Tensor) -> Tensor:
        y = x + self.mix(self.norm1(x))
        return x + self.inner(self.norm2(y))


class Unnormed(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(x)
        return x + self.inner(self.norm2(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.norm = nn.LayerNorm(16)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PastTheBlocks(Net):
    def forward(self, ids: Tensor) -> Tensor:
        x = first = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(first)


def nets() -> tuple[Any, Any, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net().eval()
        for block in net.blocks:
            for norm in (block.norm1, block.norm2):
                nn.init.normal_(norm.weight, 1.0, 0.1)
        return net, copy.deepcopy(net), torch.randint(0, 50, (4, 7))


@pytest.mark.parametrize(
    ("code", "guilty", "reader"),
    [
        (Post, "blocks.1", "addmm in blocks.1.up"),
        (Parallel, "blocks.1", "native_layer_norm in blocks.1.norm2"),
        (Exchanged, "blocks.1", "native_layer_norm in blocks.1.norm1"),
        (FromTheStart, "blocks.1", "add in blocks.1"),
        (Unnormed, "blocks.1.norm1", ""),
    ],
)
def test_other_wires_in_a_block(code: type[Block], guilty: str, reader: str) -> None:
    net, other, ids = nets()
    other.blocks[1].__class__ = code
    found = fwd.diff(net, other, ids, grad="off")
    assert found.verdict == "differs"
    assert found.guilty is not None
    assert found.guilty.path == guilty
    assert (reader in found.guilty.rewired) if reader else not found.guilty.rewired
    assert [layer.path for layer in found.layers if layer.guilty] == [guilty], "the others inherit"


def test_other_wires_in_the_whole() -> None:
    net, other, ids = nets()
    other.__class__ = PastTheBlocks
    found = fwd.diff(net, other, ids, grad="off")
    assert found.guilty is not None
    assert (found.guilty.path, found.guilty.kind) == ("", "Net")
    assert found.guilty.rewired == ("native_layer_norm in norm",)


@pytest.mark.parametrize("drop", [0, 1, 2])
def test_a_block_that_is_gone_is_named_as_a_whole(drop: int) -> None:
    net, other, ids = nets()
    del other.blocks[drop]
    found = fwd.diff(net, other, ids, grad="off")
    assert found.guilty is not None
    assert found.guilty.path == f"blocks.{drop}"


@pytest.mark.parametrize("place", [0, 3])
def test_a_block_more_is_named_as_a_whole(place: int) -> None:
    net, other, ids = nets()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        other.blocks.insert(place, Block())
    found = fwd.diff(net, other, ids, grad="off")
    assert found.guilty is not None
    assert (found.guilty.path, found.guilty.kind) == (f"blocks.{place}", "Block")
    assert [layer for layer in found.layers if layer.guilty] == [found.guilty], "names shifted"


def norm_first() -> tuple[nn.Module, nn.Module, Tensor, str]:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    other = copy.deepcopy(net)
    other.layers[0].norm_first = True
    return net, other, torch.randn(4, 5, 16), "layers.0"


@pytest.mark.parametrize("expanded", [False, True])
def test_norm_first(expanded: bool) -> None:
    net, other, x, path = norm_first()
    found = fwd.diff(net, other, x, grad="off", expanded=expanded)
    assert found.guilty is not None
    assert found.guilty.path == path


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).view(*x.shape[:2], 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        found = (q @ k.mT / 2).softmax(-1) @ v
        return self.out(found.transpose(1, 2).flatten(2))


class HeadsExchanged(Heads):
    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        q, k, v = super().split(x)
        return q, v, k


class Fused(Heads):
    def forward(self, x: Tensor) -> Tensor:
        found = nn.functional.scaled_dot_product_attention(*self.split(x))
        return self.out(found.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("change", "guilty"),
    [
        (lambda net: setattr(net[0], "__class__", HeadsExchanged), "0"),
        (lambda net: setattr(net[0], "__class__", Fused), None),
        (lambda net: net[1].__setattr__("approximate", "tanh"), "1"),
    ],
)
def test_views_that_pair_by_shape_alone_corrupt_nothing(
    change: Callable[[Any], None], guilty: str | None
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Heads(), nn.GELU(), Heads()).eval()
    other = copy.deepcopy(net)
    other[2].__class__ = Fused
    change(other)
    found = fwd.diff(net, other, torch.randn(3, 5, 16), grad="off")
    assert (found.guilty.path if found.guilty else None) == guilty


class Rotary(nn.Module):
    """Angles of positions, which no input decides."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("speeds", torch.tensor([1.0, 0.1, 0.01, 0.001]))

    def forward(self, length: int) -> Tensor:
        return torch.outer(torch.arange(length).float(), self.speeds).cos()


class Rotated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rotary, self.out = Rotary(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * self.rotary(x.shape[1]))


def test_constants_made_in_the_pass_are_the_fault_of_what_makes_them() -> None:
    net = Rotated()
    other = copy.deepcopy(net)
    other.rotary.speeds.mul_(0.5)
    found = fwd.diff(net, other, torch.randn(2, 9, 4))
    assert found.guilty is not None
    assert found.guilty.path == "rotary"
    assert [layer.path for layer in found.layers if layer.guilty] == ["rotary"]
    assert torch.equal(net.rotary.speeds, torch.tensor([1.0, 0.1, 0.01, 0.001]))
