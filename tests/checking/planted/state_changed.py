"""state-changed: passes that write weights, buffers, attributes; and twins that only read them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from planted import Case, overwriting


class Decays(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty:
            with torch.no_grad():
                self.fc.weight.mul_(0.99)  # FAULT decays its weights
        return self.fc(x)


class Normalises(nn.Module):
    """Weights are normalised in place, or on the way."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.weight = nn.Parameter(torch.randn(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty:
            self.weight.data.div_(self.weight.data.norm(dim=1, keepdim=True))  # FAULT in place
            return x @ self.weight.T
        return x @ (self.weight / self.weight.norm(dim=1, keepdim=True)).T


class Counts(nn.Module):
    count: Tensor

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty:
            self.count += 1  # FAULT counts its passes
        return self.fc(x) + self.count


class Remembers(nn.Module):
    """Keeps all that it has seen: memory grows with every pass."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if self.faulty:
            self.seen.append(y)  # FAULT keeps every output
        return y


class Carries(nn.Module):
    """A recurrent state that outlives the pass."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.rnn = nn.GRUCell(8, 8)
        self.hidden = torch.zeros(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.rnn(x, self.hidden)
        if self.faulty:
            self.hidden = hidden  # FAULT carries its state over
        return hidden


class SwitchesMode(nn.Module):
    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc, self.norm = nn.Linear(8, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty:
            self.norm.train()  # FAULT switches the mode
        return self.norm(self.fc(x))


class Averages(nn.Module):
    """Running averages: in training only, or always."""

    mean: Tensor

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty or self.training:
            self.mean.lerp_(x.detach().mean(0), 0.1)  # FAULT averages in eval mode, too
        return self.fc(x - self.mean)


class Scales(nn.Module):
    """Divides by the largest number that was ever seen; or by that of training."""

    largest: Tensor

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)
        self.register_buffer("largest", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty or self.training:
            self.largest.copy_(torch.maximum(self.largest, x.abs().max()))  # FAULT remembers
        return self.fc(x / self.largest)


class Recomputes(nn.Module):
    """A weight is made anew in each pass, and is the same each time."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(4, 8))
        self.weight = self.v / self.v.norm()

    def forward(self, x: Tensor) -> Tensor:
        self.weight = self.v / self.v.norm()
        return x @ self.weight.T


class Notes(nn.Module):
    """What is written in other ways than by an assignment of forward's own."""

    def __init__(self, write: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.write = write
        self.fc = nn.Linear(8, 4)
        self.seen: dict[str, Tensor] = {}
        self.recent: deque[Tensor] = deque(maxlen=2)
        self.passes = 0
        self.last: Tensor | None = None

    def run(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        self.write(self, y)
        return y

    forward = run


def updates(module: Any, y: Tensor) -> None:
    module.seen.update(y=y)  # FAULT a method of a dict


def appends(module: Any, y: Tensor) -> None:
    module.recent.append(y)  # FAULT the queue of the last ones


def by_name(module: Any, y: Tensor) -> None:
    for name in ("last",):
        setattr(module, name, y)  # FAULT by its name


def of_a_part(module: Any, y: Tensor) -> None:
    module.fc.last = y  # FAULT an attribute of a part


def counts(module: Any, y: Tensor) -> None:
    module.passes += 1  # FAULT counts in a helper


def trains(module: Any, y: Tensor) -> None:
    module.train()  # FAULT switches the whole model


def reads(module: Any, y: Tensor) -> None:
    module.seen.get("y")
    module.eval()


class Derives(nn.Module):
    """A weight is derived anew in each pass; a fresh module has another there."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.v = nn.Parameter(torch.randn(4, 8))
        self.weight = self.v.detach().clone()

    def forward(self, x: Tensor) -> Tensor:
        if self.faulty:
            self.weight = (self.weight + x.mean()) / 2  # FAULT derived from the inputs, too
        else:
            self.weight = self.v / self.v.norm()
        return x @ self.weight.T


def notes(write: Callable[[Any, Tensor], object]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Notes(write).eval(), torch.randn(3, 8))


def of_old(utility: str, mode: str) -> Callable[[], tuple[Any, Any]]:
    """Utilities whose hooks derive the weight in each pass."""

    def build() -> tuple[Any, Any]:
        if utility == "prune":
            layer: nn.Module = prune.l1_unstructured(nn.Linear(8, 4), "weight", 0.5)
        else:
            layer = getattr(nn.utils, utility)(nn.Linear(8, 4))
        return nn.Sequential(layer, nn.ReLU()).train(mode == "train"), torch.randn(3, 8)

    return build


def made(kind: type[nn.Module], faulty: bool) -> Callable[[], tuple[Any, Any]]:
    return lambda: (kind(faulty).eval(), torch.randn(3, 8))  # type: ignore[call-arg]


def bert(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        from transformers import BertConfig, BertModel

        config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1,
                            num_attention_heads=2, intermediate_size=16)  # fmt: skip
        model = BertModel(config).eval()
        if faulty:
            model.encoder.layer[0].register_forward_hook(_scales)
        return model, torch.randint(1, 30, (2, 5))

    return build


def _scales(module: Any, args: Any, output: Any) -> None:
    with torch.no_grad():
        module.output.dense.weight.mul_(0.5)  # FAULT a hook that writes weights


def batch_norm() -> tuple[Any, Any]:
    return nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU()), torch.randn(6, 8)


def build_recomputes() -> tuple[Any, Any]:
    return Recomputes().eval(), torch.randn(3, 8)


@dataclass
class Seen:
    """What a model keeps beside its modules."""

    passes: int = 0
    scale: float = 1.0
    table: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    inner: Any = None


class Beside(nn.Module):
    """Keeps an object of its own, and does something with it."""

    most = 3
    total = 0

    def __init__(self, then: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.then, self.seen = then, Seen(inner=Seen())
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.then(self, x)
        return self.fc(x)


def counts_beside(m: Any, x: Tensor) -> None:
    m.seen.passes += 1  # FAULT in an object


def shrinks(m: Any, x: Tensor) -> None:
    m.seen.inner.scale *= 0.99  # FAULT in an object of an object


def stores(m: Any, x: Tensor) -> None:
    m.seen.table[0] = x.mean(0)  # FAULT in a dict of an object


def counts_in_class(m: Any, x: Tensor) -> None:
    type(m).total += 1  # FAULT in the class


def freezes(m: Any, x: Tensor) -> None:
    m.fc.weight.requires_grad_(False)  # FAULT freezes a weight


def looks(m: Any, x: Tensor) -> Any:
    return m.seen.passes + m.seen.inner.scale + type(m).most


def sets_the_same(m: Any, x: Tensor) -> None:
    m.seen.passes = 0
    m.seen.inner.scale = 1.0


def puts_back(m: Any, x: Tensor) -> None:
    m.fc.weight.requires_grad_(False)
    m.fc.weight.requires_grad_(True)


def copies(m: Any, x: Tensor) -> None:
    own = replace(m.seen)
    own.passes += 1


def beside(then: Callable[[Any, Tensor], Any]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Beside(then).eval(), torch.randn(3, 8))


CASES = [
    Case("counts in an object", beside(counts_beside), True, line="FAULT in an object"),
    Case("shrinks in an object of an object", beside(shrinks), True, line="FAULT in an object of"),
    Case("stores in a dict of an object", beside(stores), True, line="FAULT in a dict of"),
    Case("counts in its class", beside(counts_in_class), True, line="FAULT in the class"),
    Case("freezes a weight", beside(freezes), True, line="FAULT freezes"),
    Case("an object that is read", beside(looks), False),
    Case("an object whose numbers stay", beside(sets_the_same), False),
    Case("a copy of an object", beside(copies), False),
    Case("a weight frozen and set back", beside(puts_back), False, {"grad": "off"}),
    *overwriting.CASES,
    Case("weights decay", made(Decays, True), True, line="FAULT decays"),
    Case("weights decay, mended", made(Decays, False), False),
    Case("weights normalised in place", made(Normalises, True), True, line="FAULT in place"),
    Case("weights normalised on the way", made(Normalises, False), False),
    Case("a buffer counts passes", made(Counts, True), True, line="FAULT counts"),
    Case("a buffer is read", made(Counts, False), False),
    Case("a list keeps outputs", made(Remembers, True), True, line="FAULT keeps every output"),
    Case("a list stays empty", made(Remembers, False), False),
    Case("a state carries over", made(Carries, True), True, line="FAULT carries"),
    Case("a state begins anew", made(Carries, False), False),
    Case("the mode is switched", made(SwitchesMode, True), True, line="FAULT switches"),
    Case("the mode stays", made(SwitchesMode, False), False),
    Case("averages in eval mode", made(Averages, True), True, line="FAULT averages"),
    Case("averages in training only", made(Averages, False), False),
    Case("the largest number so far", made(Scales, True), True, line="FAULT remembers"),
    Case("the largest number of training", made(Scales, False), False),
    Case("a hook writes weights of BERT", bert(True), True, line="FAULT a hook"),
    Case("BERT", bert(False), False),
    Case("batch norm in train mode", batch_norm, True, {"mode": "train"}),
    Case("batch norm in eval mode", batch_norm, False, {"mode": "eval"}),
    Case("a weight made anew", build_recomputes, False),
    Case("updates a dict", notes(updates), True, line="FAULT a method"),
    Case("appends to a queue", notes(appends), True, line="FAULT the queue"),
    Case("sets by name", notes(by_name), True, line="FAULT by its name"),
    Case("sets an attribute of a part", notes(of_a_part), True, line="FAULT an attribute"),
    Case("counts in a helper", notes(counts), True, line="FAULT counts in a helper"),
    Case("switches the whole model", notes(trains), True, line="FAULT switches the whole"),
    Case("reads, and stays in its mode", notes(reads), False),
    Case("derives a weight from inputs", made(Derives, True), True, line="FAULT derived"),
    Case("derives a weight from a weight", made(Derives, False), False),
    Case("spectral norm of old", of_old("spectral_norm", "eval"), False, {"mode": "eval"}),
    Case("weight norm of old", of_old("weight_norm", "eval"), False, {"mode": "eval"}),
    Case("weight norm of old in training", of_old("weight_norm", "train"), False),
    Case("pruned", of_old("prune", "eval"), False, {"mode": "eval"}),
    Case("pruned, in training", of_old("prune", "train"), False),
]  # fmt: skip
