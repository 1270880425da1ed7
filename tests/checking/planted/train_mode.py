"""train-mode: dropout and batch statistics where nothing learns; and twins in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Case


class FunctionalDropout(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x).relu()
        if self.faulty:
            x = F.dropout(x, 0.3)  # FAULT training is True unless one says otherwise
        else:
            x = F.dropout(x, 0.3, self.training)
        return self.head(x)


class Attention(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        p = 0.2 if self.faulty or self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p)  # FAULT dropout in attention


class FunctionalNorm(nn.Module):
    mean: Tensor
    var: Tensor

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        trains = self.faulty or self.training
        return F.batch_norm(self.fc(x), self.mean, self.var, training=trains)  # FAULT always


class Kept(nn.Module):
    """A part that is no submodule, so that eval() does not reach it; or one that is."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.fc, drop = nn.Linear(8, 4), nn.Dropout(0.5)
        self.drop: Any = [drop] if faulty else nn.ModuleList([drop])

    def forward(self, x: Tensor) -> Tensor:
        for drop in self.drop:
            x = drop(self.fc(x))  # FAULT eval() does not reach it
        return x


class DropsPaths(nn.Module):
    """Stochastic depth: whole rows of a branch are dropped."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x).relu()
        if self.faulty or self.training:
            keep = x.new_empty(x.shape[0], 1).bernoulli_(0.8)  # FAULT drops paths in eval mode
            y = y * keep / 0.8
        return x + y


class OwnDropout(nn.Module):
    """Dropout of one's own, behind a layer."""

    def __init__(self, drop: Callable[[Tensor], Tensor], faulty: bool) -> None:
        super().__init__()
        self.drop, self.faulty = drop, faulty
        self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x).relu()
        return self.head(self.drop(x) if self.faulty or self.training else x)


def by_bernoulli(h: Tensor) -> Tensor:
    return h * torch.bernoulli(torch.full_like(h, 0.8)) / 0.8  # FAULT a mask by Bernoulli


def by_threshold(h: Tensor) -> Tensor:
    return h * (torch.rand_like(h) > 0.2)  # FAULT a mask by a threshold


def by_selection(h: Tensor) -> Tensor:
    dropped = torch.rand(h.shape) < 0.3  # FAULT what is selected
    return torch.where(dropped, torch.zeros_like(h), h / 0.7)


def by_filling(h: Tensor) -> Tensor:
    return h.masked_fill(torch.rand(h.shape) < 0.3, 0.0)  # FAULT what is filled


def by_index(h: Tensor) -> Tensor:
    h[torch.rand(len(h)) < 0.4] = 0  # FAULT rows at random
    return h


def by_floor(h: Tensor) -> Tensor:
    keep = torch.rand(len(h), 1).add_(0.7).floor_()  # FAULT kept or not
    return h.div(0.7) * keep


def of_units(h: Tensor) -> Tensor:
    mask = torch.distributions.Bernoulli(0.5).sample(h.shape[-1:])  # FAULT one mask for all rows
    return h * mask * (len(mask) / mask.sum().clamp(min=1))


def locked(h: Tensor) -> Tensor:
    mask = torch.rand_like(h).gt(0.3).float()  # FAULT the same mask twice
    return torch.tanh(h * mask) * mask


def no_mask(h: Tensor) -> Tensor:
    return h * (h > 0.1) + 0 * torch.rand_like(h)


def every_third(h: Tensor) -> Tensor:
    return h * (torch.arange(h.shape[-1]) % 3 > 0)


class Samples(nn.Module):
    """Draws on purpose, in either mode: that is no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.scale = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean(x) + self.scale(x).exp() * torch.randn(x.shape[0], 4)


def made(kind: type[nn.Module], faulty: bool, shape: tuple[int, ...] = (6, 8)) -> Any:
    return lambda: (kind(faulty).eval(), torch.randn(shape))  # type: ignore[call-arg]


def own(drop: Callable[[Tensor], Tensor], faulty: bool = True) -> Callable[[], tuple[Any, Any]]:
    return lambda: (OwnDropout(drop, faulty).eval(), torch.randn(6, 8))


def noise(h: Tensor) -> Tensor:
    return h * torch.randn_like(h).relu()


def net(*parts: nn.Module) -> Callable[[], tuple[Any, Any]]:
    return lambda: (nn.Sequential(nn.Linear(8, 8), *parts), torch.randn(6, 8))


def frozen() -> tuple[Any, Any]:
    """In eval mode, but one part was set back to training."""
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU()).eval()
    model[1].train()
    return model, torch.randn(6, 8)


def bert() -> tuple[Any, Any]:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=16)  # fmt: skip
    return BertModel(config), torch.randint(1, 30, (2, 5))


def lstm() -> tuple[Any, Any]:
    return nn.LSTM(8, 8, num_layers=2, dropout=0.3, batch_first=True), torch.randn(3, 5, 8)


def instance_norm() -> tuple[Any, Any]:
    return nn.Sequential(nn.Conv1d(3, 4, 3), nn.InstanceNorm1d(4)).eval(), torch.randn(4, 3, 9)


class Normalised(nn.Module):
    """What is normalised by a function, and by which numbers."""

    def __init__(self, then: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.then = then
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, x).relu().mean((2, 3))


def by_the_batch(m: Any, x: Tensor) -> Tensor:
    return m.bn(F.batch_norm(m.conv(x), None, None, training=True))  # FAULT no running statistics


def by_the_weights(m: Any, x: Tensor) -> Tensor:
    flat = m.conv.weight.reshape(1, 8, -1)
    weight = F.batch_norm(flat, None, None, training=True).view_as(m.conv.weight)
    return m.bn(F.conv2d(x, weight, m.conv.bias))


def by_the_row(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    folded = F.batch_norm(y.reshape(1, -1, *y.shape[2:]), None, None, training=True)
    return m.bn(folded.view_as(y))


def by_running(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.conv(x))


def normalised(then: Callable[[Any, Tensor], Tensor]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Normalised(then).eval(), torch.randn(4, 3, 6, 6))


class Slopes(nn.Module):
    """RReLU with slopes drawn always, or in training."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        trains = self.faulty or self.training
        return self.head(F.rrelu(self.fc(x), training=trains))  # FAULT random slopes


def untracked() -> tuple[Any, Any]:
    norm = nn.BatchNorm1d(16, track_running_stats=False)
    return nn.Sequential(nn.Linear(8, 16), norm, nn.Tanh()).eval(), torch.randn(8, 8)


NO_GRAD = {"mode": "train", "grad": "off"}
EVAL = {"mode": "eval", "grad": "inference"}
LEARNS = {"mode": "train", "grad": "on"}

CASES = [
    Case("batch statistics without running ones", normalised(by_the_batch), True,
         line="FAULT no running"),
    Case("batch norm that tracks nothing", untracked, True, EVAL),
    Case("weights standardised", normalised(by_the_weights), False),
    Case("samples folded into channels", normalised(by_the_row), False),
    Case("running statistics", normalised(by_running), False),
    Case("groups", lambda: (nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)).eval(),
                            torch.randn(4, 3, 6, 6)), False, EVAL),
    Case("slopes drawn in eval mode", made(Slopes, True), True, line="FAULT random slopes"),
    Case("slopes drawn without gradients", net(nn.RReLU()), True, NO_GRAD),
    Case("slopes drawn in training", made(Slopes, False), False),
    Case("slopes that learn", net(nn.RReLU()), False, LEARNS),
    Case("functional dropout", made(FunctionalDropout, True), True, line="FAULT training is True"),
    Case("functional dropout in training", made(FunctionalDropout, False), False),
    Case("dropout in attention", made(Attention, True, (2, 5, 8)), True, line="FAULT dropout in"),
    Case("attention", made(Attention, False, (2, 5, 8)), False),
    Case("functional batch norm", made(FunctionalNorm, True), True, line="FAULT always"),
    Case("functional batch norm in training", made(FunctionalNorm, False), False),
    Case("a part that eval misses", made(Kept, True), True, line="FAULT eval() does not"),
    Case("a part that eval reaches", made(Kept, False), False),
    Case("paths dropped", made(DropsPaths, True), True, line="FAULT drops paths"),
    Case("paths kept", made(DropsPaths, False), False),
    Case("dropout without gradients", net(nn.Dropout(0.4)), True, NO_GRAD),
    Case("dropout in eval mode", net(nn.Dropout(0.4)), False, EVAL),
    Case("dropout that learns", net(nn.Dropout(0.4)), False, LEARNS),
    Case("batch norm without gradients", net(nn.BatchNorm1d(8), nn.Tanh()), True, NO_GRAD),
    Case("batch norm in eval mode", net(nn.BatchNorm1d(8), nn.Tanh()), False, EVAL),
    Case("one part in train mode", frozen, True, {"grad": "off"}),
    Case("BERT in train mode", bert, True, {"mode": "train", "grad": "inference"}),
    Case("BERT in eval mode", bert, False, EVAL),
    Case("LSTM with dropout", lstm, True, NO_GRAD),
    Case("LSTM in eval mode", lstm, False, EVAL),
    Case("instance norm", instance_norm, False, {"grad": "off"}),
    Case("draws on purpose", lambda: (Samples().eval(), torch.randn(4, 8)), False, {"grad": "off"}),
    Case("own dropout by Bernoulli", own(by_bernoulli), True, line="FAULT a mask by Bernoulli"),
    Case("own dropout by Bernoulli in training", own(by_bernoulli, False), False),
    Case("own dropout by a threshold", own(by_threshold), True, line="FAULT a mask by a thr"),
    Case("own dropout by a threshold in training", own(by_threshold, False), False),
    Case("own dropout without gradients", own(by_threshold, False), True, NO_GRAD),
    Case("own dropout by selection", own(by_selection), True, line="FAULT what is selected"),
    Case("own dropout by filling", own(by_filling), True, line="FAULT what is filled"),
    Case("own dropout of rows", own(by_index), True, line="FAULT rows at random"),
    Case("own drop path", own(by_floor), True, line="FAULT kept or not"),
    Case("own drop path in training", own(by_floor, False), False),
    Case("own dropout of units", own(of_units), True, line="FAULT one mask"),
    Case("own dropout, locked", own(locked), True, line="FAULT the same mask"),
    Case("a mask of the values", own(no_mask), False),
    Case("a mask by place", own(every_third), False),
    Case("noise that is no mask", own(noise), False),
]  # fmt: skip
