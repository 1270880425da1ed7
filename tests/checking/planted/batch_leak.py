"""Rows that see each other, and the same models mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import Model
from planted import Case

Built = tuple[Any, Any]
TOKENS = "x: f32[batch time 8]"


class Norm(nn.Module):
    """Normalises over the batch, or over the features of each row."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        centre = h.mean(self.axis, keepdim=True)  # the axis of the mean
        return self.second(h - centre)


class Softmax(nn.Module):
    """Class scores by a softmax over `axis`."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.layer = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.layer(x), self.axis)  # the softmax of the scores


class Recurrent(nn.Module):
    """The last step of an LSTM over [batch time features]."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, batch_first=batch_first)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x)  # the recurrence
        return self.head(out[:, -1])


class Tagger(nn.Module):
    """A score for every step."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 12, batch_first=batch_first)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x)[0])  # the steps


class Attentive(nn.Module):
    """Attention over the tokens of [batch time features], and their mean."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x)  # the encoder
        return self.head(h.mean(1))


class OwnAttention(nn.Module):
    """Attention written by hand; heads are split off by a view, and moved, or only renamed."""

    def __init__(self, moved: bool) -> None:
        super().__init__()
        self.moved = moved
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def heads(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        if self.moved:
            return x.view(batch, time, 2, 4).transpose(1, 2)
        return x.reshape(2, time, batch, 4).transpose(0, 2)  # heads taken from the wrong axes

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.heads(part) for part in self.qkv(x).chunk(3, -1))
        if not self.moved:
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2)).mean(1)


class Flattened(nn.Module):
    """An image flattened from the wrong axis on: rows and channels change places."""

    def __init__(self, mended: bool) -> None:
        super().__init__()
        self.mended = mended
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 6 * 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(x))
        if self.mended:
            return self.head(h.flatten(1))
        return self.head(h.transpose(0, 1).reshape(len(x), -1))  # rows from channels


class OwnBatchNorm(nn.Module):
    """Statistics of the batch in eval mode, too."""

    def __init__(self, tracked: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4, track_running_stats=tracked)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.conv(x))  # the normalisation
        return h.amax((2, 3))


class Scaled(nn.Module):
    """Scaled by the largest number of the whole batch, or of each row."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        if self.own:
            return h / h.abs().amax(-1, keepdim=True)
        return h / h.abs().max()  # the largest of all


class Experts(nn.Module):
    """Two experts; `capacity` is what each may take, first come, first served."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.gate = nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        chosen = (self.gate(x)[:, 0] > 0).long()
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = (chosen == number).nonzero()[:, 0][: self.capacity]
            out[mine] = expert(x[mine])
        return out


class Contrast(nn.Module):
    """Scores of rows against rows, and the embedding: comparing is what it is for."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = F.normalize(self.layer(x), dim=-1)
        scores = h @ h.T
        return {"scores": scores, "embedding": h, "loss": scores.mean()}


class Loss(nn.Module):
    """Normalised by the batch on its way to a loss only; the logits are each row's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.layer(x)
        return {"logits": logits, "loss": (logits - logits.mean(0)).square().mean()}


class Side(nn.Module):
    """Logits of each row, and beside them something that `then` makes of the hidden states."""

    def __init__(self, then: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.then = then
        self.layer, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.layer(x))
        first = h if h.dim() == 2 else h[:, 0]
        return {"logits": self.head(first), "aux": self.then(h)}


class Written(nn.Module):
    """Rows are written one by one into memory that was allocated for all, in some order."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        out = torch.zeros_like(h) if self.kind == "zeros" else torch.empty_like(h)
        if self.kind == "permuted":
            out[torch.arange(len(h)).roll(1)] = h  # all rows
        elif self.kind in ("next", "zeros"):
            for row in range(len(h)):
                out[row] = h[row - 1]  # another row
        elif self.kind == "added":
            out.copy_(h)
            out[1:] += h[:-1]  # the row before
        elif self.kind == "centred":
            for row in range(len(h)):
                out[row] = h[row]
            out = out - out.mean(0)  # after the rows were written
        else:
            for row in range(len(h)):
                out[row] = h[row]
        return self.head(out)


class Unbatched(nn.Module):
    """One sequence of steps, or one cloud of points, without a batch: rows are meant to meet."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.fc, self.head, self.both = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(12, 2)
        self.conv, self.pool = nn.Conv1d(6, 6, 3, padding=1), nn.MaxPool1d(3, 1, 1)
        self.norm, self.image = nn.InstanceNorm1d(6), nn.Conv2d(1, 1, 3, padding=1)
        self.decoder = nn.TransformerDecoderLayer(6, 2, 12, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        kind, h = self.kind, self.fc(x).relu()
        if kind == "convolution":
            return self.head(self.conv(h.T).T.relu())
        if kind == "convolution as a function":
            return self.head(F.conv1d(h.T, self.conv.weight, padding=1).T.relu())
        if kind == "one picture":
            return self.head(self.image(h[None])[0])
        if kind == "pooling":
            return self.head(self.pool(h.T).T)
        if kind == "instance norm":
            return self.head(self.norm(h.T).T)
        if kind == "running sum":
            return self.head(h.cumsum(0))
        if kind == "running maximum":
            return self.head(h.cummax(0).values)
        if kind == "decoder":
            return self.head(self.decoder(h, h))
        if kind == "attention":
            return self.head((h @ h.T).softmax(-1) @ h)
        if kind == "neighbours":
            near = torch.cdist(x, x).topk(3, largest=False).indices
            return self.head(h[near].amax(1))
        if kind == "differences":
            return self.head(x - torch.cat([x[:1], x[:-1]]))
        if kind == "cloud":
            h = self.fc(x - x.mean(0)).relu()
            return h, h.amax(0)
        if kind == "cloud and its points":
            return self.both(torch.cat([h, h.amax(0, keepdim=True).expand_as(h)], -1))
        return self.head(x.cumsum(0))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return torch.cat([last[0], last[1]], -1)


def tokens(batch: int = 4, time: int = 5) -> Tensor:
    return torch.randn(batch, time, 8)


def experts(capacity: int) -> Built:
    """The last row is the only one for its expert."""
    module, x = Experts(capacity).eval(), torch.randn(6, 8)
    x[-1] = -x[0]
    x[:-1] = x[0] + 0.1 * x[:-1]
    with torch.no_grad():
        module.gate.bias.sub_(module.gate(torch.zeros(1, 8))[0])
    return module, x


def bert(across: bool) -> Built:
    """With a pooler that takes the mean of the first tokens of all rows, or the row's own."""
    from transformers import BertConfig, BertModel

    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=40, hidden_size=8, max_position_embeddings=16, **layers)
    module = BertModel(config).eval()

    class Pooler(nn.Module):
        def forward(self, states: Tensor) -> Tensor:
            first = states[:, 0]
            return first - first.mean(0) if across else first  # the pooler

    module.pooler = Pooler()
    return module, {"input_ids": torch.randint(1, 40, (3, 6))}


def vit() -> Built:
    from transformers import ViTConfig, ViTModel

    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(hidden_size=8, image_size=8, patch_size=4, **sizes)
    return ViTModel(config).eval(), {"pixel_values": torch.randn(3, 3, 8, 8)}


def case(
    name: str, make: Callable[[], Built], line: str | None, faulty: bool = True, **how: Any
) -> Case:
    return Case(name, make, faulty, how, line)


def of(module: Callable[[], nn.Module], *shape: int, signed: str = "") -> Callable[[], Built]:
    def build() -> Built:
        made = module().eval()
        return (Model(made, signed) if signed else made), torch.randn(*shape)

    return build


def of64(module: Callable[[], nn.Module]) -> Callable[[], Built]:
    """In 64 bits, where rounding is far below the tolerance of a solver."""
    return lambda: (module().double().eval(), torch.randn(8, 8, dtype=torch.float64))


def named(module: Callable[[], nn.Module], signed: str) -> Callable[[], Built]:
    return lambda: (Model(module().eval(), signed), {"x": tokens()})


class Slight(nn.Module):
    """A thousandth of the mean over the batch is taken off; or over the features."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return h - 1e-3 * h.mean(self.axis, keepdim=True)  # a thousandth


class Equilibrium(nn.Module):
    """A fixed point: all rows stop together, or each by its own error, or after so many steps."""

    def __init__(self, stop: str) -> None:
        super().__init__()
        self.stop = stop
        self.layer = nn.Linear(8, 8)
        with torch.no_grad():
            self.layer.weight *= 0.7

    def forward(self, u: Tensor) -> Tensor:
        z = torch.zeros_like(u)
        for _ in range(60):
            new = torch.tanh(self.layer(z) + u)  # a step of all rows
            done = (new - z).abs().amax(-1, keepdim=True) < 1e-6
            z = torch.where(done, z, new) if self.stop == "own" else new
            if self.stop != "never" and bool(done.all()):
                break
        return z


class Sampler(nn.Module):
    """Samples by `draw` from what a layer makes of each row."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw
        self.layer, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.draw(self.layer(x)))


def centred_draw(h: Tensor) -> Tensor:
    h = h - h.mean(0)  # centred by the batch, then drawn
    return torch.poisson(h.exp())


def noisy_draw(h: Tensor) -> Tensor:
    h = h - h.mean(0)  # centred by the batch, then noise
    return torch.normal(h, 1.0)


def dropped_softmax(h: Tensor) -> Tensor:
    return F.dropout(h, 0.3, True).softmax(0)  # over the batch, after dropout


def counted_beside(h: Tensor) -> Tensor:
    torch.poisson(h.exp())
    return h.softmax(0)  # over the batch, beside a sampler


def later_noise(h: Tensor) -> Tensor:
    counts = torch.poisson(h.exp())
    return h + counts + torch.randn_like(h)


def gamma(h: Tensor) -> Tensor:
    return torch.distributions.Gamma(h.exp(), torch.ones(())).sample()


def dirichlet(h: Tensor) -> Tensor:
    return torch.distributions.Dirichlet(h.exp()).sample()


def chosen(h: Tensor) -> Tensor:
    return F.one_hot(torch.multinomial(h.softmax(-1), 3, True), 16).sum(1).float()


def counted(h: Tensor) -> Tensor:
    return torch.binomial(torch.full_like(h, 9.0), h.sigmoid())


UNBATCHED = (
    "convolution", "convolution as a function", "one picture", "pooling", "instance norm",
    "running sum", "running maximum", "decoder", "attention", "neighbours", "differences", "cloud",
    "cloud and its points", "",
)  # fmt: skip
LEAKING: dict[str, Callable[[Tensor], Any]] = {
    "a score": lambda h: h.sum((1, 2)).softmax(0),
    "in a list": lambda h: ["scores", (h.sum(2) / h.sum(),)],
    "ranks": lambda h: h.sum((1, 2)).argsort().argsort(),
    "above the mean": lambda h: h.sum((1, 2)) > h.sum((1, 2)).mean(),
    "tokens of all rows": lambda h: (h - h.mean(0)).flatten(0, 1),
    "tokens, time first": lambda h: (h - h.mean(0)).transpose(0, 1).flatten(0, 1),
    "all scores": lambda h: h.sum(2).flatten().softmax(0),
    "expanded": lambda h: h.mean((0, 1), keepdim=True).expand(len(h), 1, 6),
}
OWN: dict[str, Callable[[Tensor], Any]] = {
    "own score": lambda h: h.sum(2).softmax(1),
    "own tokens": lambda h: (h - h.mean(1, keepdim=True)).flatten(0, 1),
    "own tokens, time first": lambda h: h.transpose(0, 1).flatten(0, 1),
    "flat heads": lambda h: torch.einsum("btc,bsc->bts", h, h).softmax(-1).flatten(0, 1),
    "centroid": lambda h: h.mean((0, 1)),
    "balance of a batch": lambda h: [h.softmax(-1).mean((0, 1)).square().sum()],
    "what was found": lambda h: h[h > 0.3],
    "where it was found": lambda h: (h.sum(-1) > 0).nonzero(),
    "how many were found": lambda h: (h > 0).sum(),
    "rows against rows": lambda h: h[:, 0] @ h[:, 0].T,
    "own choice": lambda h: h.sum(-1).argmax(1),
    "flat valid": lambda h: (h.sum(-1) > 0).flatten(),
}


SAMPLERS: dict[str, Callable[[Tensor], Tensor]] = {
    "poisson": lambda h: torch.poisson(h.exp()),
    "poisson, flattened": lambda h: torch.poisson(h.exp().flatten()).view_as(h),
    "gamma": gamma,
    "dirichlet": dirichlet,
    "binomial": counted,
    "rrelu": lambda h: F.rrelu(h, training=True),
    "rrelu in place": lambda h: F.rrelu(h, training=True, inplace=True),
    "multinomial": chosen,
    "bernoulli": lambda h: torch.bernoulli(h.sigmoid()),
    "normal": lambda h: torch.normal(h, h.exp()),
    "dropout": lambda h: F.dropout(h, 0.3, True),
    "noise after a sampler": later_noise,
}


CASES = [
    case("centred, then poisson", of(lambda: Sampler(centred_draw), 8, 8), "then drawn"),
    case("centred, then noise", of(lambda: Sampler(noisy_draw), 8, 8), "then noise"),
    case("softmax after dropout", of(lambda: Sampler(dropped_softmax), 8, 8), "after dropout"),
    case("softmax beside a sampler", of(lambda: Sampler(counted_beside), 8, 8), "beside a sampler"),
    *(case(f"samples: {name}", of(lambda draw=draw: Sampler(draw), 8, 8), None, False,
           ignore=["train-mode"]) for name, draw in SAMPLERS.items()),
    case("mean over the batch", of(lambda: Norm(0), 4, 8), "# the axis of the mean"),
    case("softmax over the batch", of(lambda: Softmax(0), 4, 8), "# the softmax"),
    case("lstm without batch_first", of(lambda: Recurrent(False), 4, 5, 8), "# the recurrence"),
    case("tagger without batch_first", named(lambda: Tagger(False), TOKENS), "# the steps"),
    case("encoder without batch_first", of(lambda: Attentive(False), 4, 5, 8), "# the encoder"),
    case("heads from wrong axes", of(lambda: OwnAttention(False), 4, 5, 8), "wrong axes"),
    case("rows from channels", of(lambda: Flattened(False), 3, 3, 6, 6), "# rows from channels"),
    case("untracked batch norm", of(lambda: OwnBatchNorm(False), 4, 1, 6, 6), "# the norm"),
    case("scaled by the batch", of(lambda: Scaled(False), 4, 8), "# the largest of all"),
    case("pooler across rows", lambda: bert(True), "# the pooler"),
    case("in training, too", lambda: (Norm(0), torch.randn(4, 8)), "# the axis of the mean"),
    case("two rows", of(lambda: Norm(0), 2, 8), "# the axis of the mean"),
    case("a thousandth of the mean", of(lambda: Slight(0), 4, 8), "# a thousandth"),
    case("a stop of all rows", of64(lambda: Equilibrium("all")), "# a step of all rows"),
    case("a stop of each row", of64(lambda: Equilibrium("own")), None, False),
    case("no stop", of64(lambda: Equilibrium("never")), None, False),
    case("a thousandth of the row", of(lambda: Slight(1), 4, 8), None, False),
    case("experts with little room", lambda: experts(2), None),
    *(case(f"beside: {name}", of(lambda then=then: Side(then), 4, 5, 8), f'"{name}"')
      for name, then in LEAKING.items()),
    case("rows written, all at once", of(lambda: Written("permuted"), 4, 8), "# all rows"),
    case("rows written one by one", of(lambda: Written("next"), 4, 8), "# another row"),
    case("rows written into zeros", of(lambda: Written("zeros"), 4, 8), "# another row"),
    case("rows added to", of(lambda: Written("added"), 4, 8), "# the row before"),
    case("centred after writing", of(lambda: Written("centred"), 4, 8), "# after the rows"),
    *(case(f"beside: {name}", of(lambda then=then: Side(then), 4, 5, 8), None, False)
      for name, then in OWN.items()),
    *(case(f"no batch: {kind}", of(lambda kind=kind: Unbatched(kind), 9, 6), None, False,
           ignore=["unused"]) for kind in UNBATCHED),
    *(case(f"signed: {kind}",
           of(lambda kind=kind: Unbatched(kind), 9, 6, signed="x: f32[batch 6]"), line)
      for kind, line in {"convolution": "self.conv(h.T)", "running sum": "h.cumsum(0)",
                         "attention": "h @ h.T", "cloud": "x.mean(0)"}.items()),
    case("rows written where they belong", of(lambda: Written(""), 4, 8), None, False),
    case("mean over features", of(lambda: Norm(1), 4, 8), None, False),
    case("softmax over classes", of(lambda: Softmax(1), 4, 8), None, False),
    case("lstm with batch_first", of(lambda: Recurrent(True), 4, 5, 8), None, False),
    case("tagger with batch_first", named(lambda: Tagger(True), TOKENS), None, False),
    case("time first", of(lambda: Tagger(False), 5, 4, 8), None, False),
    case("one sequence", of(lambda: nn.GRU(8, 6), 5, 8), None, False),
    case("encoder with batch_first", of(lambda: Attentive(True), 4, 5, 8), None, False),
    case("heads from their axis", of(lambda: OwnAttention(True), 4, 5, 8), None, False),
    case("flattened rows", of(lambda: Flattened(True), 3, 3, 6, 6), None, False),
    case("tracked batch norm", of(lambda: OwnBatchNorm(True), 4, 1, 6, 6), None, False),
    case("scaled by the row", of(lambda: Scaled(True), 4, 8), None, False),
    case("pooler of each row", lambda: bert(False), None, False),
    case("vit", vit, None, False),
    case("experts with room", lambda: experts(6), None, False),
    case("rows against rows", of(Contrast, 4, 8), None, False),
    case("loss over the batch", of(Loss, 4, 8), None, False),
    case(
        "batch norm in training",
        lambda: (OwnBatchNorm(True).train(), torch.randn(4, 1, 6, 6)), None, False,
    ),
    case(
        "packed", lambda: (Packed().eval(), (tokens(), torch.tensor([5, 2, 4, 1]))), None, False
    ),
    case("one row", of(lambda: Norm(0), 1, 8), None, False),
]  # fmt: skip
