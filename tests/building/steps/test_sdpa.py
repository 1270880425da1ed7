"""sdpa: attention in the forms that people write it is fused, or left, and that is said."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import models
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass import Model
from forwardpass.building import Engine
from forwardpass.building.steps.sdpa.attentions import is_fused
from forwardpass.errors import BuildError
from forwardpass.executing.examples import drawn
from forwardpass.nouns.forwards import Forward

HEADS, WIDTH = 4, 8
IDS = "ids: i64[batch tokens=1..64] pad 0"
MASK = "mask: i64[batch tokens] = valid(tokens)"
Attend = Callable[["ByHand", Tensor, Tensor, Tensor, Tensor], Any]


class ByHand(nn.Module):
    """One layer of attention; `attend(self, q, k, v, mask)` has them as [batch heads tokens width],
    and the mask as [batch tokens]."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, HEADS * WIDTH)
        self.qkv = nn.Linear(HEADS * WIDTH, 3 * HEADS * WIDTH)
        self.out = nn.Linear(HEADS * WIDTH, HEADS * WIDTH)
        self.bias = nn.Embedding(32, HEADS)
        self.temperature = nn.Parameter(torch.linspace(0.5, 2, HEADS).reshape(HEADS, 1, 1))
        self.softmax = nn.Softmax(dim=-1)
        self.dropout = nn.Dropout(0.3)
        self.attend = attend

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        batch, tokens = ids.shape
        parts = self.qkv(self.embed(ids)).view(batch, tokens, 3, HEADS, WIDTH)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        made = self.attend(self, q, k, v, mask)
        if not isinstance(made, tuple):
            return self.out(made.transpose(1, 2).reshape(batch, tokens, -1))
        first, *others = made
        return {
            "hidden": self.out(first.transpose(1, 2).reshape(batch, tokens, -1)),
            "other": torch.stack(others),
        }


def by_hand(attend: Attend) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Model(ByHand(attend), [IDS, MASK])


def fused_calls(module: nn.Module, inputs: dict[str, Any]) -> int:
    record = fwd.record(module, inputs)
    return sum(map(is_fused, record.calls))


def stepped(engine: Engine) -> nn.Module:
    return engine.replicas[0].module  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def check(model: Model, count: int, axes: list[dict[str, int]] | None = None) -> Engine:
    """After the step `count` attentions are fused, and other sizes give what they gave."""
    plain = models.built(Forward(model))
    engine = models.built(Forward(model) | "sdpa")
    said = engine.applied[0].did
    assert said.startswith(f"{count} attention"), said
    assert engine.applied[0].moved < 1e-4
    for sizes in axes or [{"tokens": 1}, {"tokens": 19}]:
        for rows in (1, 4):
            inputs = drawn(Forward(model), batch=rows, axes=sizes, seed=rows)
            torch.testing.assert_close(engine(inputs), plain(inputs), atol=2e-5, rtol=1e-4)
            assert fused_calls(stepped(engine), inputs) == count
    return engine


# -- forms -----------------------------------------------------------------------------------------


def plainest(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))
    return torch.matmul(self.dropout(scores.softmax(dim=-1)), v)


def scaled_by_a_tensor(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.mT / torch.sqrt(torch.tensor(WIDTH, dtype=torch.float32))
    return self.softmax(scores * self.temperature) @ v


def scaled_before(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.softmax((q * WIDTH**-0.5) @ k.transpose(2, 3), -1) @ v


def added_minimum(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    added = (1 - mask[:, None, None, :].to(q.dtype)) * torch.finfo(q.dtype).min
    scores = 0.35 * (q @ k.transpose(2, 3)) + added
    return F.dropout(F.softmax(scores, dim=-1), 0.1, training=self.training) @ v


def causal_infinity(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    length = q.shape[2]
    seen = torch.tril(torch.ones(length, length)).view(1, 1, length, length)
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    scores = scores.masked_fill(seen[:, :, :length, :length] == 0, float("-inf"))
    return F.softmax(scores, dim=-1) @ v


def padding_and_causal(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    scores = q @ k.transpose(-2, -1) / 3
    scores = scores.masked_fill(later, torch.finfo(scores.dtype).min)
    scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e9)
    return torch.softmax(scores, -1).to(v.dtype) @ v


def chosen(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    least = torch.full([], torch.finfo(q.dtype).min, dtype=q.dtype, device=q.device)
    scores = torch.where(mask[:, None, None, :].bool(), q @ k.mT, least)
    return scores.float().softmax(-1).type(v.dtype) @ v


def in_place(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2)
    scores *= WIDTH**-0.5
    scores.masked_fill_(~mask[:, None, None, :].bool(), -1e4)
    return scores.softmax(-1) @ v


def by_einsum(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(2.8).softmax(dim=3)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).transpose(1, 2)


def by_dotted_einsum(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = torch.einsum("... i d, ... j d -> ... i j", q, k).softmax(-1)
    return torch.einsum("... i j, ... j d -> ... i d", weights, v)


def multi_query(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = torch.einsum("bhqd,bkd->bhqk", q, k[:, 0]).softmax(-1)
    return torch.einsum("bhqk,bkd->bhqd", weights, v[:, 0])


def grouped(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    k, v = (one[:, :2].repeat_interleave(2, dim=1) for one in (k, v))
    scores = q @ k.transpose(2, 3) * WIDTH**-0.5
    return F.softmax(scores, -1, dtype=torch.float32).to(q.dtype) @ v


def shared_keys(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k[:, :1].mT).softmax(-1) @ v[:, :1]


def alibi(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    batch, heads, length, width = q.shape
    q, k, v = (one.reshape(batch * heads, length, width) for one in (q, k, v))
    slopes = torch.arange(1.0, heads + 1).repeat(batch)[:, None, None] / 8
    bias = slopes * torch.arange(length)[None, None, :]
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), beta=1.0, alpha=0.4)
    return torch.bmm(scores.softmax(-1), v).view(batch, heads, length, width)


def viewed(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    batch, heads, length, width = q.shape
    q, k, v = (one.reshape(batch * heads, length, width) for one in (q, k, v))
    scores = torch.bmm(q, k.transpose(1, 2)).view(batch, heads, length, -1)
    scores = scores + (1.0 - mask.float())[:, None, None, :] * -1e9
    weights = scores.softmax(-1).view(batch * heads, length, length)
    return torch.bmm(weights, v).view(batch, heads, length, width)


def relative(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    places = torch.arange(q.shape[2])
    bias = self.bias((places[:, None] - places[None, :]).clamp(-16, 15) + 16)
    bias = bias.permute(2, 0, 1)[None] + (1 - mask[:, None, None, :].float()) * -1e9
    return torch.matmul(torch.softmax(torch.matmul(q, k.transpose(3, 2)) + bias, dim=-1), v)


def one_head(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.bmm(q[:, 0], k[:, 0].permute(0, 2, 1))
    return torch.bmm(F.softmax(scores, dim=2), v[:, 0])[:, None].expand(q.shape)


def two_products(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Scores by content and by position, as in Transformer-XL."""
    places = self.embed.weight[: q.shape[2]].view(-1, HEADS, WIDTH).permute(1, 2, 0)
    return ((q @ k.mT + q @ places) / 4).softmax(-1) @ v


FORMS = [
    plainest, scaled_by_a_tensor, scaled_before, added_minimum, causal_infinity,
    padding_and_causal, chosen, in_place, by_einsum, by_dotted_einsum, multi_query, grouped,
    shared_keys, alibi, viewed, relative, one_head, two_products,
]  # fmt: skip


@pytest.mark.parametrize("attend", FORMS, ids=[form.__name__ for form in FORMS])
def test_each_form_is_fused_and_computes_the_same(attend: Attend) -> None:
    model = by_hand(attend)
    before = copy.deepcopy(model.module.state_dict())
    engine = check(model, 1)
    assert type(model.module) is ByHand
    assert all(
        torch.equal(before[name], value) for name, value in model.module.state_dict().items()
    )
    assert isinstance(stepped(engine), ByHand), "modules keep their class, parts and names"
    inputs = drawn(Forward(model), batch=2, axes={"tokens": 7})
    assert fused_calls(copy.deepcopy(stepped(engine)), inputs) == 1


TRACED = [
    pytest.param(
        form, id=form.__name__, marks=[] if form in (viewed, chosen) else [pytest.mark.soak]
    )
    for form in FORMS
]


@pytest.mark.parametrize("attend", TRACED)
def test_what_traces_a_fused_form_sees_the_fused_operator(attend: Attend) -> None:
    """A trace, and the exporter with axes that vary: the graph holds it once, and no softmax."""
    model = by_hand(attend)
    module = stepped(models.built(Forward(model) | "sdpa"))
    inputs = drawn(Forward(model), batch=3, axes={"tokens": 11})
    args = (inputs["ids"], inputs["mask"])
    auto = torch.export.Dim.AUTO
    shapes = ({0: auto, 1: auto}, {0: auto, 1: auto})
    with torch.no_grad():
        program = torch.export.export(module, args, dynamic_shapes=shapes, strict=False)
        trace: Any = torch.jit.trace(module, args, check_trace=False)
    targets = [str(node.target) for node in program.graph.nodes]
    assert sum("scaled_dot_product" in target for target in targets) == 1
    assert not [target for target in targets if "softmax" in target]
    assert str(trace.inlined_graph).count("aten::scaled_dot_product_attention") == 1
    assert "aten::softmax" not in str(trace.inlined_graph)
    other = drawn(Forward(model), batch=2, axes={"tokens": 23}, seed=5)
    expected = module(**other)
    torch.testing.assert_close(program.module()(*other.values()), expected)
    torch.testing.assert_close(trace(*other.values()), expected)


@pytest.mark.parametrize("attend", TRACED)
def test_torch_compile_takes_a_fused_form_as_one_graph(attend: Attend) -> None:
    model = by_hand(attend)
    module = stepped(models.built(Forward(model) | "sdpa"))
    targets: list[str] = []

    def backend(graph: Any, example: Any) -> Any:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compiler.reset()
    compiled: Any = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    inputs = drawn(Forward(model), batch=3, axes={"tokens": 11})
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs), module(**inputs))
    assert sum("scaled_dot_product" in target for target in targets) == 1
    assert not [target for target in targets if "softmax" in target]


# -- what is left, and said ------------------------------------------------------------------------


def given_out(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Any:
    weights = (q @ k.mT).softmax(-1)
    return weights @ v, weights.mean()


def looked_at(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = (q @ k.mT).softmax(-1)
    return (weights @ v) * weights.amax(-1, keepdim=True)


def over_queries(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-2) @ v


def capped(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (torch.tanh(q @ k.mT / 5) * 5).softmax(-1) @ v


def no_mask(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    return (q @ k.mT).masked_fill(later, -1.0).softmax(-1) @ v


def written_over(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    k = k.contiguous()
    scores = q @ k.mT
    k.zero_()
    return scores.softmax(-1) @ v


def normalised(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    weights = (q @ k.mT).softmax(-1)
    return (weights / (1e-9 + weights.sum(-1, keepdim=True))) @ v


def cleaned(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return torch.nan_to_num((q @ k.mT).softmax(-1)) @ v


def written_through_a_view(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = q @ k.mT
    scores = scores.view(scores.shape)
    scores += (1 - mask[:, None, None].float()) * -1e9
    return scores.softmax(-1) @ v


@torch.jit.script
def scripted(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, -1e9).softmax(-1)


def through_a_script(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return scripted(q @ k.mT, mask[:, None, None] == 0) @ v


LEFT = [
    (given_out, r"its weights are also read by .*mean"),
    (looked_at, r"its weights are also read by .*amax"),
    (over_queries, "does not go over the keys"),
    (capped, r"tanh at .*test_sdpa.py:\d+ stands between its product and its softmax"),
    (no_mask, "puts -1 in place of scores, which is no mask"),
    (normalised, r"/ at .* stands between its softmax and its product"),
    (cleaned, r"nan_to_num at .* stands between its softmax and its product"),
    (written_through_a_view, "written over in place while a view of them is held"),
    (through_a_script, "ByHand does not run with scores put off: .*scripted"),
    (written_over, r"zero_ at .* writes over what goes into it"),
]


@pytest.mark.parametrize(("attend", "why"), LEFT, ids=[form.__name__ for form, _ in LEFT])
def test_what_cannot_be_fused_is_left_with_the_reason(attend: Attend, why: str) -> None:
    with pytest.raises(BuildError, match=why) as caught:
        models.built(Forward(by_hand(attend)) | "sdpa")
    assert "of 1 attention none can be fused" in str(caught.value)


def test_weights_that_leave_are_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([ByHand(plainest), ByHand(plainest)])
            self.last = nn.Linear(32, 32)

        def forward(self, ids: Tensor, mask: Tensor) -> Any:
            hidden = self.layers[0](ids, mask) + self.layers[1](ids, mask)
            weights = (hidden @ self.last(hidden).mT).softmax(-1)
            return {"hidden": weights @ hidden, "attention": weights}

    model = Model(Net(), [IDS, MASK])
    engine = check(model, 2)
    assert engine.applied[0].did == (
        "2 attentions fused; 1 left: its weights leave the model as attention"
    )


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(
        BuildError,
        match="no softmax was found between two products",
    ):
        models.built(Forward(models.mlp()) | "sdpa")


def test_a_model_that_is_fused_already_is_refused() -> None:
    with pytest.raises(BuildError, match="2 attentions there, fused already"):
        models.built(Forward(models.bert()) | "sdpa")


def test_queries_that_no_key_answers_are_nan_in_one_and_not_in_the_other() -> None:
    """The mechanism sees it, where it reaches an output."""

    def nobody(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        now = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(0)
        return (q @ k.mT).masked_fill(now, -math.inf).softmax(-1) @ v

    def nobody_finite(self: ByHand, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        now = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(0)
        return (q @ k.mT).masked_fill(now, -1e4).softmax(-1) @ v

    with pytest.raises(BuildError, match="it was not applied"):
        models.built(Forward(by_hand(nobody)) | "sdpa")
    check(by_hand(nobody_finite), 1)


def test_an_exported_program_is_left_because_its_copies_would_be() -> None:
    model = by_hand(plainest)
    inputs = drawn(Forward(model), batch=3, axes={"tokens": 11})
    args, auto = (inputs["ids"], inputs["mask"]), torch.export.Dim.AUTO
    shapes = ({0: auto, 1: auto}, {0: auto, 1: auto})
    program = torch.export.export(model.module.eval(), args, dynamic_shapes=shapes)
    opened = Model(program.module(check_guards=False), [IDS, MASK])
    with pytest.raises(BuildError, match="GraphModule is copied by code of its own"):
        models.built(Forward(opened) | "sdpa")


def test_where_chooses_layers() -> None:
    model = eager_bert()
    engine = models.built(Forward(model) | "sdpa where encoder.layer.1.*")
    assert engine.applied[0].did == (
        "1 attention fused; 1 left: `where` leaves out encoder.layer.0.attention.self"
    )


# -- transformers ----------------------------------------------------------------------------------

EAGER: dict[str, Any] = {"attn_implementation": "eager"}
SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    **EAGER,
}  # fmt: skip
TOKENS = [
    "input_ids: i64[batch tokens=1..60] pad 0",
    "attention_mask: i64[batch tokens] = valid(tokens)",
]


def eager_bert() -> Model:
    from transformers import BertConfig, BertModel

    return Model(BertModel(BertConfig(vocab_size=60, **SMALL)), TOKENS)


def eager_distilbert() -> Model:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=32, **EAGER)
    return Model(DistilBertModel(config), TOKENS)


def eager_gpt2() -> Model:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=64, **EAGER)
    return Model(GPT2Model(config), TOKENS)


def eager_vit() -> Model:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(image_size=32, patch_size=8, **SMALL)
    return Model(ViTModel(config), "pixel_values: f32[batch 3 32 32]")


def eager_t5() -> Model:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        **EAGER,
    )  # fmt: skip
    return Model(T5EncoderModel(config), TOKENS)


def eager_whisper() -> Model:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        vocab_size=60, d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        num_mel_bins=8, max_source_positions=20, **EAGER, pad_token_id=0,
    )  # fmt: skip
    return Model(WhisperEncoder(config), "input_features: f32[batch 8 40]")


def eager_llama() -> Model:
    from transformers import LlamaConfig, LlamaModel

    return Model(LlamaModel(LlamaConfig(vocab_size=60, num_key_value_heads=1, **SMALL)), TOKENS)


def eager_bloom() -> Model:
    from transformers import BloomConfig, BloomModel

    return Model(
        BloomModel(BloomConfig(vocab_size=60, hidden_size=16, n_layer=2, n_head=2, **EAGER)), TOKENS
    )


def eager_deberta() -> Model:
    from transformers import DebertaV2Config, DebertaV2Model

    kinds: dict[str, Any] = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
    return Model(DebertaV2Model(DebertaV2Config(vocab_size=60, **kinds, **SMALL)), TOKENS)


TRANSFORMERS = [
    eager_bloom, eager_deberta,
    eager_bert, eager_distilbert, eager_gpt2, eager_vit, eager_t5, eager_whisper, eager_llama,
]  # fmt: skip


@pytest.mark.parametrize("make", TRANSFORMERS, ids=[make.__name__ for make in TRANSFORMERS])
def test_models_of_transformers(make: Callable[[], Model]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make()
    assert model.signature is not None
    axes = [{"tokens": 1}, {"tokens": 23}] if model.signature.variable else [{}]
    engine = check(model, 2, axes)
    assert engine.applied[0].did == "2 attentions fused"


SOAK = [pytest.param(name, marks=pytest.mark.soak) for name in ("aot", "inductor", "torchscript")]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", *SOAK])
def test_backends_lower_what_is_fused(backend: str) -> None:
    model = by_hand(added_minimum) if backend in ("aot", "inductor") else eager_bert()
    plain = models.built(Forward(model))
    lowered = models.built((Forward(model) | "sdpa") @ backend)
    inputs = drawn(Forward(model), batch=5, axes={"tokens": 9}, seed=2)
    for name, value in plain(inputs).items():
        torch.testing.assert_close(
            torch.as_tensor(lowered(inputs)[name]), value, atol=1e-4, rtol=1e-3
        )
