"""non-finite: calls that make NaN or Inf; and twins that keep their operands in range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from planted import Case


class Fn(nn.Module):
    """A linear layer, and a function of its output."""

    def __init__(self, then: Callable[[Tensor], Tensor], scale: float = 1.0) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.then, self.scale = then, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.fc(x) * self.scale)


def softmax_by_hand(x: Tensor) -> Tensor:
    e = x.exp()  # FAULT exp overflows
    return e / e.sum(-1, keepdim=True)


def softmax_by_hand_mended(x: Tensor) -> Tensor:
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def log_of_relu(x: Tensor) -> Tensor:
    y = x.relu()
    return y.log()  # FAULT log of zero


def normalised(x: Tensor) -> Tensor:
    x = x * (x > 1e9)
    return x / x.norm(dim=-1, keepdim=True)  # FAULT divides by a norm of zero


def masked_rows(x: Tensor) -> Tensor:
    scores = x.masked_fill(torch.ones_like(x, dtype=torch.bool), float("-inf"))
    return scores.softmax(-1)  # FAULT all is masked


def half(x: Tensor) -> Tensor:
    y = x.half()  # FAULT does not fit into float16
    return y - y.mean()


def deviation(x: Tensor) -> Tensor:
    y = x[:, :1]
    return y / y.std(1, keepdim=True)  # FAULT the deviation of one number


def root(x: Tensor) -> Tensor:
    return (x.square().mean(-1) - 1e9).sqrt()  # FAULT root of a negative number


def masked(x: Tensor) -> Tensor:
    mask = torch.ones(4, dtype=torch.bool)
    mask[2:] = False
    return x.masked_fill(~mask, float("-inf")).softmax(-1)


def logits_that_are_ruled_out(x: Tensor) -> Tensor:
    return x.masked_fill(torch.arange(4) > 2, float("-inf"))


def log_clamped(x: Tensor) -> Tensor:
    y = x.relu()
    return y.log().clamp(min=-50)  # FAULT clamped afterwards


def divided_where(x: Tensor) -> Tensor:
    count = (x > 0).sum(-1, keepdim=True) * 0
    return torch.where(count > 0, (x.abs() + 1) / count, 0.0)  # FAULT covered by where


def written_over(x: Tensor) -> Tensor:
    y = 1 / x.relu()  # FAULT written over
    y[y.isinf()] = 0.0
    return y


def distances(x: Tensor) -> Tensor:
    apart = (x[:, :, None] - x[:, None, :]).square()
    eye = torch.eye(4, dtype=torch.bool)
    return apart.rsqrt().masked_fill(eye, 0.0)  # FAULT the diagonal is covered


def distances_mended(x: Tensor) -> Tensor:
    apart = (x[:, :, None] - x[:, None, :]).square()
    eye = torch.eye(4, dtype=torch.bool)
    return apart.masked_fill(eye, 1.0).rsqrt().masked_fill(eye, 0.0)


def mask_as_logarithm(x: Tensor) -> Tensor:
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0])
    return (x + mask.log()).softmax(-1)


def clamped_mask(x: Tensor) -> Tensor:
    mask = (torch.arange(4) < 2).float()
    return (x + mask.log().clamp(min=-1e4)).softmax(-1)


def mask_of_activations(x: Tensor) -> Tensor:
    mask = (x > x.mean(-1, keepdim=True)).float()
    return (x + mask.log().clamp(min=-1e4)).softmax(-1)


def chances(x: Tensor) -> Tensor:
    gate = (x * 1e4).sigmoid()
    return torch.logsumexp(torch.stack((gate.log(), x)), 0)


def sigmoid_by_hand(x: Tensor) -> Tensor:
    return 1 / (1 + (-x * 1e4).exp())


def largest_so_far(x: Tensor) -> Tensor:
    best = torch.full_like(x[:, :1], -torch.inf)
    for column in x.unbind(1):
        best = torch.maximum(best, column[:, None])
    return best


def finite_masks_that_add_up(x: Tensor) -> Tensor:
    low = torch.finfo(x.dtype).min
    mask = (torch.arange(4) > 1) * low
    return (x + (mask + mask)).softmax(-1)


def causal(x: Tensor) -> Tensor:
    scores = x[:, :, None] * x[:, None, :]
    hidden = torch.ones(4, 4, dtype=torch.bool).triu(1)
    scores[:, hidden] = -torch.inf
    return scores.softmax(-1).where(~hidden, 0.0)


class Spectrum(nn.Module):
    """The logarithm of inputs in which there is silence, cut off below."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.clamp(min=0).log10().clamp(min=-8))


class Poisoned(nn.Module):
    """One weight is NaN, as after a step that diverged."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)
        if faulty:
            with torch.no_grad():
                self.two.weight[1, 2] = float("nan")

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).relu())  # FAULT a weight is NaN


class Unwritten(nn.Module):
    """A buffer of which only a part is written before it is read."""

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        self.faulty = faulty
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        torch.use_deterministic_algorithms(True)  # so that what lies there is NaN each time
        out = torch.empty(x.shape[0] + 1, 4)  # FAULT the last row is never written
        torch.use_deterministic_algorithms(False)
        if not self.faulty:
            out.fill_(0.0)
        out[:-1] = self.fc(x)
        return out


def squares(largest: float, scale: float) -> Callable[[Tensor], Tensor]:
    def then(x: Tensor) -> Tensor:
        h = x.half()
        h = h * h  # FAULT squares beyond f16
        return h.float().clamp(max=largest) / scale

    return then


def squared_in_place(x: Tensor) -> Tensor:
    h = x.half()
    h.square_()  # FAULT squared in place
    return h.float().clamp(max=1e9) / 1e7


def root_mean_square(x: Tensor) -> Tensor:
    h = x.half()
    width = h.pow(2).mean(-1, keepdim=True)  # FAULT a mean square beyond f16
    return (h * width.rsqrt()).float()


def root_mean_square_mended(x: Tensor) -> Tensor:
    h = x.half()
    width = h.float().pow(2).mean(-1, keepdim=True)
    return (h * width.rsqrt()).float()


def clamped_when_infinite(x: Tensor) -> Tensor:
    h = x.half()
    h = h * h  # FAULT clamped when it was too late
    if h.isinf().any():
        h = h.clamp(-64504, 64504)
    return F.layer_norm(h.float(), (4,))


def gate_in_half(x: Tensor) -> Tensor:
    return (1 / (1 + (-x.half()).exp())).float()


def masks_in_half(x: Tensor) -> Tensor:
    low = torch.tensor(-65504.0, dtype=torch.float16)
    mask = (torch.arange(4) > 1) * low
    return (x.half() + mask + mask).softmax(-1).float()


def fn(then: Callable[[Tensor], Tensor], scale: float = 1.0) -> Callable[[], tuple[Any, Any]]:
    return lambda: (Fn(then, scale).eval(), torch.randn(3, 8))


def gpt2(faulty: bool) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=16)
        model = GPT2LMHeadModel(config).eval()
        if faulty:
            with torch.no_grad():
                model.transformer.h[0].ln_1.weight[0] = float("inf")
        mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
        given = {"input_ids": torch.randint(1, 30, (2, 5)), "attention_mask": mask}
        return model, {**given, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}

    return build


def given(value: float) -> Callable[[], tuple[Any, Any]]:
    def build() -> tuple[Any, Any]:
        x = torch.randn(3, 8)
        x[1, 2] = value
        return Fn(torch.relu).eval(), x

    return build


CASES = [
    Case("squares beyond f16, clamped", fn(squares(1e9, 1e7), 1e3), True, line="FAULT squares"),
    Case("squared in place, clamped", fn(squared_in_place, 1e3), True, line="FAULT squared in"),
    Case("a mean square beyond f16", fn(root_mean_square, 1e3), True, line="FAULT a mean square"),
    Case("clamped when infinite", fn(clamped_when_infinite, 1e3), True, line="FAULT clamped when"),
    Case("squares within f16", fn(squares(1e9, 1e7), 10), False,
         {"ignore": ["precision"]}),
    Case("a mean square in f32", fn(root_mean_square_mended, 100), False,
         {"ignore": ["precision"]}),
    Case("a gate by hand in f16", fn(gate_in_half, 1e2), False, {"ignore": ["precision"]}),
    Case("masks that add up in f16", fn(masks_in_half), False, {"ignore": ["precision"]}),
    Case("softmax by hand", fn(softmax_by_hand, 1e4), True, line="FAULT exp overflows"),
    Case("softmax by hand, less the maximum", fn(softmax_by_hand_mended, 1e4), False),
    Case("log of relu", fn(log_of_relu), True, line="FAULT log of zero"),
    Case("log1p of relu", fn(lambda x: x.relu().log1p()), False),
    Case("a norm of zero", fn(normalised), True, line="FAULT divides"),
    Case("F.normalize", fn(lambda x: F.normalize(x * (x > 1e9), dim=-1)), False),
    Case("all is masked", fn(masked_rows), True, line="FAULT all is masked"),
    Case("some is masked", fn(masked), False),
    Case("too large for float16", fn(half, 1e6), True, line="FAULT does not fit"),
    Case("bfloat16", fn(lambda x: (x * 1.0).sigmoid(), 1e2), False),
    Case("the deviation of one number", fn(deviation), True, line="FAULT the deviation"),
    Case("the root of a negative number", fn(root), True, line="FAULT root"),
    Case("the root of what is clamped", fn(lambda x: x.square().mean(-1).sqrt()), False),
    Case("a weight is NaN", lambda: (Poisoned(True).eval(), torch.randn(3, 8)), True,
         line="FAULT a weight"),
    Case("weights are whole", lambda: (Poisoned(False).eval(), torch.randn(3, 8)), False),
    Case("memory never written", lambda: (Unwritten(True).eval(), torch.randn(3, 8)), True,
         line="FAULT the last row"),
    Case("memory filled before", lambda: (Unwritten(False).eval(), torch.randn(3, 8)), False),
    Case("GPT-2 with an infinite weight", gpt2(True), True),
    Case("GPT-2, padded on the left", gpt2(False), False),
    Case("NaN in the data", given(float("nan")), True),
    Case("data that are finite", given(1.0), False),
    Case("log of zero, clamped", fn(log_clamped), True, line="FAULT clamped afterwards"),
    Case("division by zero, covered by where", fn(divided_where), True, line="FAULT covered by"),
    Case("a reciprocal, written over", fn(written_over), True, line="FAULT written over"),
    Case("distances, the diagonal covered", fn(distances), True, line="FAULT the diagonal"),
    Case("clamped before the logarithm", fn(lambda x: x.relu().clamp(min=1e-6).log()), False),
    Case("distances, masked before", fn(distances_mended), False),
    Case("a mask as a logarithm", fn(mask_as_logarithm), False),
    Case("that, clamped", fn(clamped_mask), False),
    Case("a mask of activations, clamped", fn(mask_of_activations), False),
    Case("chances of zero in logsumexp", fn(chances), False),
    Case("a sigmoid by hand", fn(sigmoid_by_hand), False),
    Case("the largest so far", fn(largest_so_far), False),
    Case("finite masks that add up", fn(finite_masks_that_add_up), False),
    Case("a causal mask, and zeros after it", fn(causal), False),
    Case("silence in a spectrum", lambda: (Spectrum().eval(), torch.randn(3, 8)), False),
    Case("logits ruled out by -inf", fn(logits_that_are_ruled_out), False),
]  # fmt: skip
