"""unused: layers whose results go nowhere, or that nobody calls; and twins that use all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Case


class Forgotten(nn.Module):
    """A layer that forward does not call."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.one = nn.Linear(8, 8)
        self.two = nn.Linear(8, 8)  # FAULT nobody calls it
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        if not self.faulty:
            x = self.two(x).relu()
        return self.head(x)


class Overwritten(nn.Module):
    """A result that the next line forgets."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)  # FAULT its result is forgotten
        if self.faulty:
            y = x.relu()
        return self.two(y.relu())


class Pooler(nn.Module):
    """A pooler whose output is not returned; or is."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.embed = nn.Embedding(30, 8, padding_idx=0)
        self.pooler = nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        x = self.embed(ids)
        pooled = self.pooler(x.mean(1)).tanh()  # FAULT it is not returned
        return {"hidden": x} if self.faulty else {"hidden": x, "pooled": pooled}


class Parameter(nn.Module):
    """A parameter of its own that forward does not read."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(4))  # FAULT nobody reads it

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return y if self.faulty else y * self.scale


class Multiplied(nn.Module):
    """Work of which nothing is used, and that needs no weight."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        similar = y[:, :, None] * y[:, None, :]  # FAULT nobody uses it
        return y if self.faulty else similar.sum(-1)


class Tied(nn.Module):
    """One weight under two names: both are used by either."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.head = nn.Linear(8, 30, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids).mean(1))


class Experts(nn.Module):
    """Rows choose an expert: not every expert is chosen each time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 6)
        self.experts = nn.ModuleList(nn.Linear(8, 4) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        y = x.new_zeros(x.shape[0], 4)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            if len(rows):
                y.index_add_(0, rows, expert(x[rows]) * weight[rows, None])
        return y


class Side(nn.Module):
    """A buffer is written on the way: that is an effect, not a result."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = torch.zeros(x.shape[0], 4)
        y[:] = self.fc(x)
        return self.drop(y if mask is None else y * mask)


class Registered(nn.Module):
    """Parameters that are registered by name, or in a method of their own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)
        if how == "by name":
            self.register_parameter("scale", nn.Parameter(torch.ones(4)))  # FAULT registered
        elif how == "by a method":
            self.prepare()
        elif how == "in a loop":
            for number in range(2):
                setattr(self, f"scale{number}", nn.Parameter(torch.ones(4)))
        else:
            self.gains = nn.ParameterList(torch.ones(4) for _ in range(2))  # FAULT in a list

    def prepare(self) -> None:
        self.offset = nn.Parameter(torch.ones(4))  # FAULT in a method

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class Gated(nn.Module):
    """A branch times a gate."""

    def __init__(self, gate: Callable[[Gated, Tensor], Any], begin: float = 0.0) -> None:
        super().__init__()
        self.gate = gate
        self.fc, self.branch = nn.Linear(8, 8), nn.Linear(8, 8)
        if begin >= 0:
            self.begin = nn.Parameter(torch.full((8,), begin))

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x).relu()
        return h + self.branch(h) * self.gate(self, h)  # FAULT times 0


class Cancelled(nn.Module):
    """A parameter that is read, and multiplied by 0."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.fc = nn.Linear(8, 4)
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.gain.sum() * self.weight  # FAULT for nothing


class OnlyInTraining(nn.Module):
    """What only training uses, kept in the graph in eval mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.width = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, width = self.fc(x), self.width(x)
        if self.training:
            return y + torch.randn_like(y) * width.exp()
        return y + 0.0 * width.sum()


class Scaled(Gated):
    """The caller gives the weight of the branch."""

    def __init__(self) -> None:
        super().__init__(lambda m, h: 1.0, -1)

    def forward(self, x: Tensor, weight: float = 0.0) -> Tensor:
        h = self.fc(x).relu()
        return h + self.branch(h) * weight


class Adapted(nn.Module):
    """LoRA, whose second factor begins at zero: the first has no gradient yet."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(8, 4)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.up(self.down(x))


class ZeroBlock(nn.Module):
    """A residual block whose last BN begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.two(self.one(x).relu()))


class OneStep(nn.Module):
    """A gate that forgets a state of zeros, in a sequence of one step."""

    def __init__(self) -> None:
        super().__init__()
        self.new, self.forget = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 4)
        for step in x.unbind(1):
            state = state * self.forget(step).sigmoid() + self.new(step).tanh()
        return state


def gated(gate: Callable[[Gated, Tensor], Any], begin: float = -1.0) -> Callable[[], Any]:
    return lambda: (Gated(gate, begin).eval(), torch.randn(5, 8))


def registered(how: str) -> Callable[[], Any]:
    return lambda: (Registered(how).eval(), torch.randn(5, 8))


def made(kind: type[nn.Module], faulty: bool, ids: bool = False) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        given = torch.randint(1, 30, (5, 6)) if ids else torch.randn(5, 8)
        return kind(faulty).eval(), given  # type: ignore[call-arg]

    return build


class Wrapped(nn.Module):
    """A BERT of which only the tokens are used, with its pooler or without."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1,
                            num_attention_heads=2, intermediate_size=16)  # fmt: skip
        self.bert = BertModel(config, add_pooling_layer=faulty)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bert(ids).last_hidden_state.mean(1)


def t5() -> tuple[Any, Any]:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval(), torch.randint(1, 30, (2, 5))


def lstm() -> tuple[Any, Any]:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(8, 8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return Last().eval(), torch.randn(3, 5, 8)


def autoencoder(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    """Of a variational autoencoder, the deviation is made and not used; or is returned."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.deviation = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Any:
            mean = self.mean(x)
            deviation = F.softplus(self.deviation(x))  # FAULT made and not used
            return mean if faulty else (mean, deviation)

    return lambda: (Encoder().eval(), torch.randn(3, 8))


class Refuses(nn.Module):
    """Python looks at a value, and nothing that it decides reads the spare layer; or it does."""

    named: Callable[[Tensor], Tensor]
    made: Callable[[Tensor], Tensor]

    def __init__(self, way: str = "") -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.spare = nn.Linear(8, 8)  # FAULT no code names it
        self.way = way
        if way == "in a list":
            self.kept = [self.spare]

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        if not x.isfinite().all():
            y = self.mended(y)
        return y

    def mended(self, y: Tensor) -> Tensor:
        if self.way == "in a method":
            return self.named(y)
        if self.way == "in a list":
            return self.kept[0](y)
        if self.way == "by a made name":
            return self.made(y)
        return helped(self, y) if self.way == "in a function" else y.nan_to_num()


class NamesIt(Refuses):
    def named(self, y: Tensor) -> Tensor:
        return self.spare(y.nan_to_num())


class MakesItsName(Refuses):
    def made(self, y: Tensor) -> Tensor:
        return getattr(self, "sp" + "are")(y)


class TextNames(Refuses):
    def made(self, y: Tensor) -> Tensor:
        return getattr(self, "spare")(y)  # noqa: B009


class GoesAlong(Refuses):
    def made(self, y: Tensor) -> Tensor:
        for child in self.children():
            y = child(y)
        return y


class Listed(Refuses):
    """Holds it in a list, by which forward gets at it."""


def helped(module: Any, y: Tensor) -> Tensor:
    return outer(module)(y)


def outer(module: Any) -> Any:
    return module.projection


class ByFunction(Refuses):
    def __init__(self) -> None:
        super().__init__("in a function")
        del self.spare
        self.projection = nn.Linear(8, 8)


class Holds(nn.Module):
    """The layer that nobody names is deep inside."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Refuses() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def spare(kind: Callable[..., nn.Module], *given: Any) -> Callable[[], tuple[Any, Any]]:
    return lambda: (kind(*given).eval(), torch.randn(5, 8))


def hooked() -> tuple[Any, Any]:
    """A hook leads to the layer."""
    model = Refuses().eval()

    def hook(module: nn.Module, given: Any, came: Tensor) -> Tensor:
        return model.spare(came) if came.isnan().any() else came

    model.fc.register_forward_hook(hook)
    return model, torch.randn(5, 8)


def grown() -> tuple[Any, Any]:
    """A layer in a BERT that its code does not know."""
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=16)  # fmt: skip
    model = BertModel(config).eval()
    model.encoder.layer[0].add_module("appendix", nn.Linear(8, 8))
    ids = torch.randint(1, 30, (4, 6))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Heads(nn.Module):
    """An option chooses the head; where it is `faulty`, none chooses the third."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.one, self.two = nn.Linear(8, 4), nn.Linear(8, 2)
        if faulty:
            self.three = nn.Linear(8, 3)  # FAULT none chooses it

    def forward(self, x: Tensor, task: str = "both", times: int = 1) -> Any:
        for _ in range(times):
            x = self.body(x).relu()
        if task == "one":
            return self.one(x)
        return (self.one(x), self.two(x)) if task == "both" else self.two(x)


def heads(faulty: bool, **options: Any) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Heads(faulty).eval(), {"x": torch.randn(5, 8), **options})


class Packed(nn.Module):
    """A packed sequence, of which only the outputs are used, or what is asked for besides."""

    def __init__(self, kind: type[nn.GRU | nn.LSTM], faulty: bool = False) -> None:
        super().__init__()
        self.faulty = faulty
        self.rnn, self.head = kind(4, 64, batch_first=True), nn.Linear(64, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        outputs, _ = self.rnn(packed)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
        if self.faulty:
            outputs.index_select(0, lengths.argsort())  # FAULT put in order for nobody
        return self.head(outputs)


class DerivedGRU(nn.GRU):
    """The code that runs is still PyTorch's."""


def packed(kind: type[nn.GRU | nn.LSTM], faulty: bool = False) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        lengths = torch.tensor([4, 2, 3, 1])
        real = torch.arange(4) < lengths[:, None]
        return Packed(kind, faulty).eval(), (torch.randn(4, 4, 4) * real[..., None], lengths)

    return build


class Attended(nn.Module):
    """Attention that averages its weights over the heads for nobody; or a layer for nobody."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.soft = nn.Softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attention(x, x, x)[0]
        if self.faulty:
            self.soft(x)  # FAULT a layer for nobody
        return y


def attended(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Attended(faulty).eval(), torch.randn(3, 5, 8))


CASES = [
    Case("no option chooses it", heads(True, task="one", times=1), True, line="FAULT none chooses"),
    Case("no option chooses it, and one is left out", heads(True, task="two"), True),
    Case("a result beside a packed GRU", packed(nn.GRU, True), True, line="FAULT put in order"),
    Case("a layer of PyTorch for nobody", attended(True), True, line="FAULT a layer for"),
    Case("options that choose all", heads(False, task="both", times=2), False),
    Case("outputs of a packed GRU", packed(nn.GRU), False),
    Case("outputs of a packed LSTM", packed(nn.LSTM), False),
    Case("outputs of a packed GRU that is derived", packed(DerivedGRU), False),
    Case("attention without its weights", attended(False), False),
    Case("no code names it", spare(Refuses), True, line="FAULT no code names"),
    Case("no code names it, deep inside", spare(Holds), True, line="FAULT no code names"),
    Case("BERT with a layer more", grown, True),
    Case("a method of a branch names it", spare(NamesIt, "in a method"), False),
    Case("a list leads to it", spare(Listed, "in a list"), False),
    Case("its name is made", spare(MakesItsName, "by a made name"), False),
    Case("its name is text", spare(TextNames, "by a made name"), False),
    Case("all children are gone along", spare(GoesAlong, "by a made name"), False),
    Case("a function of a function names it", spare(ByFunction), False),
    Case("a hook leads to it", hooked, False),
    Case("a layer that nobody calls", made(Forgotten, True), True, line="FAULT nobody calls"),
    Case("all layers are called", made(Forgotten, False), False),
    Case("a result that is forgotten", made(Overwritten, True), True, line="FAULT its result"),
    Case("a result that is used", made(Overwritten, False), False),
    Case("a pooler not returned", made(Pooler, True, True), True, line="FAULT it is not"),
    Case("a pooler that is returned", made(Pooler, False, True), False),
    Case("a parameter not read", made(Parameter, True), True, line="FAULT nobody reads"),
    Case("a parameter that is read", made(Parameter, False), False),
    Case("work not used", made(Multiplied, True), True, line="FAULT nobody uses"),
    Case("work that is used", made(Multiplied, False), False),
    Case("BERT for its tokens, with a pooler", made(Wrapped, True, True), True),
    Case("BERT for its tokens, without", made(Wrapped, False, True), False),
    Case("a deviation not used", autoencoder(True), True, line="FAULT made and not"),
    Case("a deviation returned", autoencoder(False), False),
    Case("tied weights", lambda: (Tied().eval(), torch.randint(1, 30, (5, 6))), False),
    Case("written in place", lambda: (Side().eval(), torch.randn(5, 8)), False),
    Case("T5's encoder", t5, False),
    Case("the last state of an LSTM", lstm, False),
    Case("registered by name", registered("by name"), True, line="FAULT registered"),
    Case("made in a method", registered("by a method"), True, line="FAULT in a method"),
    Case("made in a list", registered("in a list"), True, line="FAULT in a list"),
    Case("made in a loop", registered("in a loop"), True, line="def __init__"),
    Case("a gate of 0", gated(lambda m, h: 0.0), True, line="FAULT times 0"),
    Case(
        "a parameter times 0",
        lambda: (Cancelled(0).eval(), torch.randn(5, 8)),
        True,
        line="FAULT for nothing",
    ),
    Case(
        "that in training",
        lambda: (Cancelled(0.0).train(), torch.randn(5, 8)),
        True,
        {"mode": "train", "grad": "on"},
        "FAULT for nothing",
    ),
    Case("a small weight", lambda: (Cancelled(1e-3).eval(), torch.randn(5, 8)), False),
    Case("a gate of 1", gated(lambda m, h: 1.0), False),
    Case("a gate that begins at 0 and learns", gated(lambda m, h: m.begin, 0.0), False),
    Case("a gate that begins at 0, through tanh", gated(lambda m, h: m.begin.tanh(), 0.0), False),
    Case("a gate that the input closes", gated(lambda m, h: (h < 0).float()), False),
    Case("a weight that the caller gives", lambda: (Scaled().eval(), torch.randn(5, 8)), False),
    Case("used in training only", lambda: (OnlyInTraining().eval(), torch.randn(5, 8)), False),
    Case("LoRA at its beginning", lambda: (Adapted().eval(), torch.randn(5, 8)), False),
    Case("a BN that begins at 0", lambda: (ZeroBlock().eval(), torch.randn(4, 3, 6, 6)), False),
    Case("a state of zeros", lambda: (OneStep().eval(), torch.randn(5, 1, 8)), False),
    Case("experts", lambda: (Experts().eval(), torch.randn(30, 8)), False),
]
