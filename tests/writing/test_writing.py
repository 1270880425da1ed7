"""`to_python`: the text runs, gives the recorded outputs, and reads as a person would write it."""

from __future__ import annotations

import inspect
import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass.errors import UsageError
from forwardpass.keeping.states import State
from forwardpass.probing import record
from forwardpass.recording import Recording, opened, save
from forwardpass.tensors.trees import flatten
from forwardpass.writing import written

GRADS = ("off", "inference", "on")


def ran(done: Recording, text: str, given: Recording | None = None) -> dict[str, Tensor]:
    """What the text computes, from the inputs and the state of the recorded pass."""
    live = given or done
    space: dict[str, Any] = {}
    exec(compile(text, "written.py", "exec"), space)
    with live.this.staged() as (state, args, kwargs), torch.no_grad():
        held = {entry.name: entry.tensor for entry in state.held.values()}
        tensors = list(flatten((args, kwargs)).values())
        before = {name: tensor.clone() for name, tensor in held.items()}
        inputs = [tensor.clone() for tensor in tensors]
        extra = (
            [live.constants]
            if "constants" in inspect.signature(space["forward"]).parameters
            else []
        )
        outputs = space["forward"](*tensors, held, *extra)
        for name, tensor in held.items():
            assert torch.equal(tensor, before[name]), f"the text wrote {name}"
        for one, other in zip(tensors, inputs, strict=True):
            assert torch.equal(one, other), "the text wrote an input"
    return outputs


def holds(done: Recording, text: str | None = None) -> str:
    """Assert that the text gives the recorded outputs; the text."""
    text = written(done) if text is None else text
    outputs = ran(done, text)
    assert list(outputs) == list(done.returned)
    for path, expected in done.returned.items():
        came = outputs[path]
        assert came.dtype == expected.dtype
        assert came.shape == expected.shape
        if expected.is_floating_point():
            scale = float(expected.nan_to_num(0, 0, 0).abs().max()) if expected.numel() else 1.0
            off = 1e-5 * max(scale, 1e-6)
            assert torch.allclose(came, expected, rtol=0, atol=off, equal_nan=True), path
        else:
            assert torch.equal(came, expected), path
    return text


def functions(text: str) -> list[str]:
    return re.findall(r"^def (\w+)", text, re.MULTILINE)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


class Call(nn.Module):
    """A linear layer from 4 to 4, and any function of the module and its inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("table", torch.arange(4.0))
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


@dataclass
class Scores:
    logits: Tensor
    hidden: tuple[Tensor, None]


Pair = namedtuple("Pair", "first second")
X = torch.linspace(-1, 1, 12).reshape(3, 4)


def branch(m: Any, x: Tensor) -> Tensor:
    y = m.linear(x)
    return y * 2 if y.sum().item() > 1e9 else y / 3


def in_place_view(m: Any, x: Tensor) -> Tensor:
    y = m.linear(x)
    y[:, 1:3].mul_(2).add_(x[:, :2], alpha=0.5)
    y[0] = 1.0
    row = y.view(-1)
    y.t_().relu_()
    return y + row.view(3, 4).t()


def written_input(m: Any, x: Tensor) -> Tensor:
    x += 1
    m.table.mul_(2)
    return m.linear(x) + m.table


def constants(m: Any, x: Tensor) -> Tensor:
    big = torch.tensor([float(i) for i in range(40)])
    small = torch.tensor([0.1, float("inf"), -2.5e-8])
    flags = torch.tensor([True, False, True, False])
    whole = torch.tensor(3, dtype=torch.int32)
    return m.linear(x) * flags + big[:4] + small[0] * whole + torch.full((4,), float("-inf")).exp()


def indexing(m: Any, x: Tensor) -> tuple[Tensor, ...]:
    ids = torch.tensor([2, 0])
    y = m.linear(x)
    y[:, ids] = 0.5
    return y[ids], y[:, ids], y[y > 0], y[..., -1], y[::2, 1:], y[None, 1], y[ids[0]]


def many(m: Any, x: Tensor) -> tuple[Tensor, ...]:
    y = m.linear(x)
    high, places = y.max(1, keepdim=True)
    top = y.topk(2)
    parts = y.split([1, 3], 1)
    one, *others = y.repeat(1, 3).unbind(1)
    values, order = y.sort(-1, descending=True)
    return high, places, top.indices, *parts, one, others[3], order, values.var(0), y.std(1)


def mathematics(m: Any, x: Tensor) -> Tensor:
    y = m.linear(x)
    z = 1 - y.sigmoid() ** 2 + 2**y - y.clamp(-0.5, 0.5) + F.gelu(y, approximate="tanh")
    z = z + F.elu(y) + F.softplus(y) + F.hardtanh(y, 0, 6) + F.leaky_relu(y) + F.silu(-y)
    z = (
        z
        + torch.sub(y, x, alpha=2)
        + torch.where(x > 0, x, 0.0)
        + (x // 0.3) % 2
        + y.rsqrt().nan_to_num()
    )
    return z.softmax(-1).cumsum(0) + F.normalize(z) + F.group_norm(z, 2) + z.norm()


def dtypes(m: Any, x: Tensor) -> Tensor:
    half = m.linear(x).to(torch.bfloat16) @ m.linear.weight.to(torch.bfloat16).T
    low = F.linear(half, m.linear.weight.bfloat16(), m.linear.bias.bfloat16())
    return (
        low.to(torch.float64) + x.double() + torch.arange(4, dtype=torch.float64) * (x > 0).long()
    )


FUNCTIONS = {
    "dict": lambda m, x: {"logits": m.linear(x), "more": {"x": x, "w": m.linear.weight}},
    "tuple": lambda m, x: (m.linear(x), None, [x * 2, x]),
    "dataclass": lambda m, x: Scores(m.linear(x), (x + 1, None)),
    "named tuple": lambda m, x: Pair(m.linear(x), x.relu()),
    "reused": lambda m, x: m.linear(m.linear(x)),
    "branch": branch,
    "in-place": in_place_view,
    "einsum": lambda m, x: torch.einsum("bi,oi,bo->b", x, m.linear.weight, m.linear(x)),
    "written": written_input,
    "constants": constants,
    "indexing": indexing,
    "many": many,
    "mathematics": mathematics,
    "dtypes": dtypes,
    "numpy": lambda m, x: m.linear(x) + torch.from_numpy(x.detach().numpy() * 2),
    "nothing": lambda m, x: x,
    "kept": lambda m, x: torch.ops.aten.native_layer_norm(m.linear(x), [4], None, None, 1e-5)[1:],
    "sparse": lambda m, x: torch.sparse.mm(x.detach().to_sparse(), m.linear(x).T),
    "fft": lambda m, x: torch.fft.rfft(m.linear(x)).abs() + torch.view_as_real(x + 1j).sum(),
    "linalg": lambda m, x: torch.linalg.svd(m.linear(x))[1] + m.linear.weight.inverse()[0, :3],
    "vmap": lambda m, x: torch.vmap(lambda row: (m.linear(row) * row).sum())(x),
    "meshed": lambda m, x: torch.cat(torch.meshgrid(x[0], m.linear(x)[1], indexing="ij")),
}  # fmt: skip


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, grad: Any) -> None:
    holds(record(seeded(lambda: Call(FUNCTIONS[name])), X, grad=grad))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        y += x
        return self.relu(y)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], packed: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4, padding_idx=0)
        self.rnn = kind(4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.packed = packed

    def forward(self, ids: Tensor, lengths: Tensor) -> Any:
        x = self.embed(ids)
        if not self.packed:
            return self.rnn(x)
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.rnn(x)[0], batch_first=True)[0]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight
        self.scale = torch.tensor([2.0])  # a tensor that is no parameter and no buffer

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids) * self.scale)


def layers(count: int) -> nn.Module:
    return nn.Sequential(
        *[
            nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4), nn.LayerNorm(4))
            for _ in range(count)
        ]
    )


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])
LENGTHS = torch.tensor([4, 3])
MODULES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), X),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, dilation=2, padding="valid"), nn.BatchNorm2d(4), nn.ReLU(),
            nn.MaxPool2d(2, padding=1), nn.AvgPool2d(2, stride=1), nn.ConvTranspose2d(4, 2, 3, 2),
            nn.AdaptiveAvgPool2d((2, 3)), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 3),
        ),
        torch.linspace(-1, 1, 2 * 2 * 16 * 16).reshape(2, 2, 16, 16),
    ),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 2), nn.MaxPool1d(2)), X.expand(2, 3, 4)),
    "residual": (
        lambda: nn.Sequential(Residual(4), Residual(4)),
        torch.linspace(-1, 1, 2 * 4 * 25).reshape(2, 4, 5, 5),
    ),
    "lstm": (lambda: Recurrent(nn.LSTM, False), (IDS, LENGTHS)),
    "gru packed": (lambda: Recurrent(nn.GRU, True), (IDS, LENGTHS)),
    "lstm packed": (lambda: Recurrent(nn.LSTM, True), (IDS, LENGTHS)),
    "tied": (Tied, IDS),
    "layers": (lambda: layers(3), X),
    "encoder": (encoder, torch.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8)),
}  # fmt: skip


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str, grad: Any) -> None:
    make, inputs = MODULES[name]
    holds(record(seeded(make), inputs, grad=grad))


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("expanded", [False, True])
def test_transformer_encoder(expanded: bool, grad: Any) -> None:
    torch.manual_seed(0)
    done = record(seeded(encoder), torch.randn(2, 3, 8), grad=grad, expanded=expanded)
    text = holds(done)
    fused = "torch.ops.aten._transformer_encoder_layer_fwd.default(" in text
    assert fused == (not expanded and grad != "on")
    if not fused:
        assert functions(text).count("transformer_encoder_layer") == 1


def test_train_mode_draws_the_same_numbers() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    for grad in GRADS:
        text = holds(record(model, X, mode="train", grad=grad))  # type: ignore[arg-type]
        assert "drawn at random" in text


def transformers_models() -> dict[str, tuple[Callable[[], nn.Module], Any]]:
    transformers = pytest.importorskip("transformers")
    t: Any = transformers
    gpt2 = {"vocab_size": 30, "n_embd": 8, "n_layer": 3, "n_head": 2, "n_positions": 16}
    bert = {
        "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 16,
    }  # fmt: skip
    t5 = {
        "vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 3, "num_heads": 2,
        "decoder_start_token_id": 0,
    }  # fmt: skip
    vit = {**bert, "image_size": 8, "patch_size": 4}
    resnet = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [2, 2], "layer_type": "basic"}
    ids = {"input_ids": IDS, "attention_mask": (IDS > 0).long()}
    pixels = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)
    return {
        "gpt2": (lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2, use_cache=False)), ids),
        "bert": (lambda: t.BertModel(t.BertConfig(**bert)), ids),
        "t5": (
            lambda: t.T5Model(t.T5Config(**t5, use_cache=False)),
            {**ids, "decoder_input_ids": IDS[:, :2]},
        ),
        "vit": (lambda: t.ViTModel(t.ViTConfig(**vit)), pixels),
        "resnet": (
            lambda: t.ResNetForImageClassification(t.ResNetConfig(**resnet)),
            pixels.repeat(1, 1, 4, 4),
        ),
    }


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "vit", "resnet"])
def test_transformers(name: str, grad: Any) -> None:
    make, inputs = transformers_models()[name]
    text = holds(record(seeded(make), inputs, grad=grad))
    shared = {"gpt2": "gpt2_block", "bert": "bert_layer", "vit": "vit_layer"}.get(name)
    if shared:
        assert functions(text).count(shared) == 1
        assert not [f for f in functions(text) if f.startswith(f"{shared}_")]


def test_identical_layers_share_one_function() -> None:
    text = holds(record(seeded(lambda: layers(4)), X))
    assert functions(text) == ["sequential", "forward"]
    assert 'sequential(state, "3.", ' in text


def test_layers_that_differ_do_not() -> None:
    model = seeded(lambda: layers(3))
    model[1][1] = nn.ReLU()
    text = holds(record(model, X))
    assert len(functions(text)) == 3


def test_a_loaded_record_writes_the_same_text(tmp_path: Path) -> None:
    done = record(seeded(encoder), torch.randn(2, 3, 8), expanded=True)
    save(done, tmp_path / "pass.fwdrecord")
    assert written(opened(tmp_path / "pass.fwdrecord")) == written(done)
    done = record(seeded(lambda: Call(dtypes)), X)
    save(done, tmp_path / "pass.fwdrecord")
    text = written(opened(tmp_path / "pass.fwdrecord"))
    holds(done, text)


def test_golden() -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2), nn.Softmax(-1)
        )
    )
    text = re.sub(r"\.py:\d+", ".py:N", holds(record(model, X, grad="off")))
    assert text == (Path(__file__).parent / "written_mlp.txt").read_text(encoding="utf-8")


class Shared(nn.Module):
    """One memory under two names, written by the pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("whole", torch.ones(4))
        self.register_buffer("part", self.whole[:2])

    def forward(self, x: Tensor) -> Tensor:
        self.part.add_(1)
        return x + self.whole


def test_state_that_the_pass_writes_is_copied_with_its_aliases() -> None:
    text = holds(record(seeded(Shared), X, grad="off"))
    assert 'deepcopy({n: state[n] for n in ("part", "whole")})' in text


def test_one_tensor_given_twice_is_taken_twice() -> None:
    holds(record(seeded(lambda: Call(lambda m, x, y: m.linear(x) + y)), (X, X)))


def test_a_call_that_takes_an_object_is_refused() -> None:
    own = torch.UntypedStorage(16)
    done = record(seeded(lambda: Call(lambda m, x: torch.empty(0).set_(own, 0, (4,)) * 0 + x)), X)
    with pytest.raises(UsageError, match="takes a UntypedStorage, which has no spelling"):
        written(done)


def test_lines_are_no_wider_than_a_page() -> None:
    text = written(record(seeded(encoder), torch.randn(2, 3, 8)))
    assert max(map(len, text.splitlines())) <= 100


def test_what_has_no_spelling_is_refused_in_a_sentence() -> None:
    def looped(m: Any, x: Tensor) -> Tensor:
        from torch._higher_order_ops import cond

        return cond(x.sum() > 0, lambda x: x + 1, lambda x: x - 1, (x,))

    done = record(seeded(lambda: Call(looped)), X)
    if any(call.operator.startswith("higher_order.") for call in done.calls):
        with pytest.raises(UsageError, match="runs functions of its own"):
            written(done)


def test_state_names_are_those_of_the_module() -> None:
    model = seeded(Tied)
    done = record(model, IDS)
    assert {entry.name for entry in State(model).held.values()} >= {"embed.weight", "scale"}
    text = written(done)
    assert 'state["embed.weight"]' in text
    assert "attributes scale" in text
