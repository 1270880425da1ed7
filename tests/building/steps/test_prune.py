"""Units that carry nothing on are really gone; what cannot go stays, and is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass.building import Engine, Example, build
from forwardpass.errors import BuildError, UsageError
from forwardpass.executing.examples import drawn

FEATURES = "x: f32[batch 16]"
IMAGES = "x: f32[batch 3 8 8]"
TOKENS = "input_ids: i64[batch tokens=1..40]"


def pruned(module: nn.Module, inputs: str, step: str, *, rows: int = 64) -> Engine:
    """The engine of a module after a step that is fitted to rows drawn by the signature."""
    forward = fwd.load(fwd.Model(module.eval(), inputs)) | step
    return build(forward, example(forward, rows))


def example(forward: fwd.Forward, rows: int) -> Example:
    lengths = [{}, {}]
    assert forward.model.signature is not None
    for name in forward.model.signature.variable:
        lengths = [{name: 9}, {name: 14}]
    batches = [
        drawn(forward, batch=rows // 2, axes=sizes, seed=seed)
        for seed, sizes in enumerate(lengths, 1)
    ]
    return Example(
        forward.model.signature,
        drawn(forward, batch=3),
        at=lambda rows, sizes: drawn(forward, batch=len(rows), axes=sizes),
        data=[{path: value.numpy() for path, value in batch.items()} for batch in batches],
    )


def fitted_on(engine: Engine, rows: int = 64) -> list[Mapping[str, Any]]:
    data = example(engine.forward, rows).data
    assert data is not None
    return list(data)


def module_of(engine: Engine) -> nn.Module:
    return engine.replicas[0].module  # type: ignore[attr-defined]


def sizes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def closed(layer: nn.Module, units: Sequence[int]) -> None:
    """So far below 0 that a ReLU never lets them through."""
    with torch.no_grad():
        layer.bias[list(units)] = -1e3  # type: ignore[index]


class Computed(nn.Module):
    """Parts, and what computes with them."""

    def __init__(self, then: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.then = then
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self, x)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def mlp() -> nn.Sequential:
    net = nn.Sequential(
        nn.Linear(16, 64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        net[0].bias.fill_(1.0)
        net[3].bias.fill_(1.0)
    closed(net[0], range(10, 30))
    closed(net[3], [0, 31])
    return net


def test_dead_units_are_gone_and_outputs_are_as_they_were() -> None:
    net = mlp()
    before = {name: p.clone() for name, p in net.state_dict().items()}
    plain = build(
        fwd.load(fwd.Model(net, FEATURES)), example(fwd.load(fwd.Model(net, FEATURES)), 4)
    )
    engine = pruned(net, FEATURES, "prune(dead)")
    done = engine.applied[0]
    assert done.did.startswith(
        "22 of 96 units of 2 layers removed, which are 0 on all 64 rows of the data; 33% fewer"
    )
    assert sizes(module_of(engine)) == {
        "0.weight": (44, 16), "0.bias": (44,), "3.weight": (30, 44), "3.bias": (30,),
        "5.weight": (4, 30), "5.bias": (4,),
    }  # fmt: skip
    assert (module_of(engine)[0].out_features, module_of(engine)[3].in_features) == (44, 44)  # type: ignore[index]
    assert done.moved < 1e-6
    for batch in fitted_on(engine):
        np.testing.assert_allclose(engine(batch)["output"], plain(batch)["output"], atol=1e-6)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_channels_go_through_normalisation_pooling_and_flatten() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 5),
    )  # fmt: skip
    with torch.no_grad():
        net[4].bias.fill_(0)
        net[5].running_mean.fill_(0)  # type: ignore[union-attr]
        net[5].bias.fill_(0)
    closed(net[1], [2, 7])
    small = module_of(pruned(net, IMAGES, "prune(dead)"))
    assert [small[n].weight.shape[0] for n in (0, 1, 4, 5)] == [10] * 4  # type: ignore[index]
    assert small[9].weight.shape == (5, 40)  # type: ignore[index]
    assert small[4].groups == small[4].in_channels == small[1].num_features == 10  # type: ignore[index]
    assert len(small[1].running_var) == 10  # type: ignore[index]


def test_what_is_added_up_goes_together_or_stays() -> None:
    """Of a residual sum a channel goes where it is 0 in the sum."""

    def then(self: Any, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        return self.head((a + F.relu(self.b(a))).mean((2, 3)))

    parts = {"a": nn.Conv2d(3, 8, 1), "b": nn.Conv2d(8, 8, 1), "head": nn.Linear(8, 2)}
    net = Computed(then, **parts)
    for part in (net.a, net.b):
        part.bias.data.fill_(1)
    closed(net.a, [1, 4])
    closed(net.b, [4, 6])
    small = sizes(module_of(pruned(net, IMAGES, "prune(dead)")))
    assert small["a.weight"][0] == small["b.weight"][0] == small["b.weight"][1] == 7
    assert small["head.weight"] == (2, 7)


def test_concatenated_channels_are_found_by_their_places() -> None:
    def then(self: Any, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        b = F.relu(self.b(a))
        return self.head(torch.cat([b, a, b], 1).flatten(1))

    parts = {"a": nn.Conv2d(3, 4, 1), "b": nn.Conv2d(4, 6, 1), "head": nn.Linear(16 * 64, 2)}
    net = Computed(then, **parts)
    for part in (net.a, net.b):
        part.bias.data.fill_(9)
        part.weight.data.abs_()
    closed(net.b, [0, 5])
    engine = pruned(net, IMAGES, "prune(dead)")
    assert sizes(module_of(engine))["head.weight"] == (2, (4 + 2 * 4) * 64)
    assert engine.applied[0].moved < 1e-6


def test_gates_and_tied_weights_follow() -> None:
    """SwiGLU, and a table of words that is the head, too."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 24)
            self.gate, self.up, self.down = nn.Linear(24, 40), nn.Linear(24, 40), nn.Linear(40, 24)
            self.head = nn.Linear(24, 50, bias=False)
            self.head.weight = self.words.weight

        def forward(self, input_ids: Tensor) -> Tensor:
            h = self.words(input_ids)
            return self.head(h + self.down(F.silu(self.gate(h)) * self.up(h)))

    engine = pruned(Tied(), TOKENS, "prune(structured, 0.25)")
    small: Any = module_of(engine)
    assert small.head.weight is small.words.weight
    assert small.words.weight.shape == (50, 18)
    assert small.gate.weight.shape == small.up.weight.shape == (30, 18)
    assert small.down.weight.shape == (18, 30)
    assert engine.applied[0].did.startswith("16 of 64 units of")


def test_code_that_writes_sizes_in_keeps_its_layer_and_says_so() -> None:
    def then(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x)).view(-1, 4 * 64)
        return self.head(F.relu(self.fc(h)))

    parts = {"a": nn.Conv2d(3, 4, 1), "fc": nn.Linear(256, 20), "head": nn.Linear(20, 2)}
    engine = pruned(Computed(then, **parts), IMAGES, "prune(structured, 0.25)")
    assert sizes(module_of(engine))["a.weight"][0] == 4
    assert sizes(module_of(engine))["fc.weight"] == (15, 256)
    assert "not of a: with fewer of them its code raises RuntimeError: shape '[-1, 256]'" in (
        engine.applied[0].did
    )


def test_units_that_are_normalised_together_stay() -> None:
    net = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    closed(net[0], range(8))
    closed(net[3], [3])
    engine = pruned(net, FEATURES, "prune(dead)")
    assert sizes(module_of(engine))["0.weight"] == (32, 16)
    assert sizes(module_of(engine))["3.weight"] == (7, 32)
    assert "1 layer stays (0: they are normalised together)" in engine.applied[0].did


def test_attributes_that_are_sizes_are_changed_where_the_pass_proves_it() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.size, self.all_size = 4, 6, 24
            self.qkv, self.out = nn.Linear(16, 72), nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.unflatten(1, (1, 16)) * torch.arange(1.0, 6.0)[:, None]
            q, k, v = self.qkv(rows).split(self.all_size, -1)
            q, k, v = (h.view(-1, 5, self.heads, self.size).transpose(1, 2) for h in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
            return self.out(mixed.reshape(-1, 5, self.all_size))

    engine = pruned(Heads(), FEATURES, "prune(structured, 0.5)")
    small: Any = module_of(engine)
    assert (small.heads, small.size, small.all_size) == (2, 6, 12)
    assert small.qkv.weight.shape == (36, 16)
    assert small.out.weight.shape == (3, 12)
    assert engine.applied[0].did.startswith("2 of 4 units of 1 layer removed")


def test_what_contributes_least_goes_and_the_rest_is_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 3))
    with torch.no_grad():
        net[0].bias.fill_(1.0)
        net[2].weight[:, 5:10] *= 1e-3
    engine = pruned(net, FEATURES, "prune(structured, 0.25)")
    small: Any = module_of(engine)
    kept = [n for n in range(20) if not 5 <= n < 10]
    assert torch.equal(small[0].weight, net[0].weight[kept])
    assert torch.equal(small[2].weight, net[2].weight[:, kept])
    assert 0 < engine.applied[0].moved < 1e-2


def test_where_chooses_the_layers() -> None:
    net = mlp()
    engine = pruned(net, FEATURES, "prune(dead) where 3")
    assert sizes(module_of(engine))["0.weight"] == (64, 16)
    assert sizes(module_of(engine))["3.weight"] == (30, 64)


def test_a_unit_that_is_not_0_where_it_is_read_is_alive() -> None:
    """BatchNorm after the ReLU gives a unit that is 0 a number of its own."""
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 2))
    net[0].bias.data.fill_(9)
    closed(net[0], [2])
    net[2].bias.data.fill_(0.5)
    with pytest.raises(BuildError, match="no unit that can be removed is 0 on all 64 rows"):
        pruned(net, FEATURES, "prune(dead)")


def test_one_unit_of_a_dead_layer_stays() -> None:
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    closed(net[0], range(8))
    assert sizes(module_of(pruned(net, FEATURES, "prune(dead)")))["0.weight"] == (1, 16)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("prune(ded)", r"prune\(ded\): it is prune\(dead\) or prune\(structured, SHARE\)"),
        ("prune(dead, 0.2)", "takes no share"),
        ("prune(structured)", "a share is between 0 and 1"),
        ("prune(structured, 20)", "a share is between 0 and 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(step: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pruned(mlp(), FEATURES, step)


def test_without_data_it_is_refused() -> None:
    forward = fwd.load(fwd.Model(mlp(), FEATURES)) | "prune(dead)"
    with pytest.raises(BuildError, match="--calibrate DATA"):
        build(forward, Example(forward.model.signature, drawn(forward, batch=3)))


def test_where_there_is_nothing_to_remove_it_says_why() -> None:
    with pytest.raises(BuildError, match=r"no unit can be removed; 1 layer stays \(.*leave as"):
        pruned(nn.Sequential(nn.Linear(16, 4)), FEATURES, "prune(structured, 0.5)")


@settings(max_examples=8, deadline=None)
@given(
    widths=st.lists(st.integers(2, 12), min_size=1, max_size=3),
    seed=st.integers(0, 99),
    norm=st.booleans(),
)
def test_what_goes_is_what_is_0_at_every_position(widths: list[int], seed: int, norm: bool) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in zip([16, *widths], widths, strict=False):
        layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] * norm), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(widths[-1], 2)).eval()
    forward = fwd.load(fwd.Model(net, FEATURES))
    plain = build(forward, example(forward, 64))
    dead = 0
    rows = torch.cat([torch.as_tensor(batch["x"]) for batch in fitted_on(plain)])
    for layer in net:
        rows = layer(rows)
        if isinstance(layer, nn.ReLU):
            dead += min(int((rows == 0).all(0).sum()), rows.shape[1] - 1)
    try:
        engine = pruned(net, FEATURES, "prune(dead)")
    except BuildError:
        assert dead == 0
        return
    assert engine.applied[0].did.startswith(f"{dead} of {sum(widths)}") or len(widths) > 1
    assert int(engine.applied[0].did.split()[0]) == dead
    for batch in fitted_on(engine):
        torch.testing.assert_close(
            torch.as_tensor(engine(batch)["output"]), torch.as_tensor(plain(batch)["output"])
        )


def bert() -> tuple[nn.Module, str, str]:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=40, max_position_embeddings=48,
    )  # fmt: skip
    layer = "encoder.layer.0.attention"
    return (
        BertModel(config, add_pooling_layer=False),
        f"{layer}.self.value",
        f"{layer}.output.dense",
    )


def distilbert() -> tuple[nn.Module, str, str]:
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=60, dim=24, n_layers=1, n_heads=4, hidden_dim=40, max_position_embeddings=48
    )
    layer = "transformer.layer.0.attention"
    return DistilBertModel(config), f"{layer}.v_lin", f"{layer}.out_lin"


def gpt2() -> tuple[nn.Module, str, str]:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(
        vocab_size=60, n_embd=24, n_layer=1, n_head=4, n_positions=48, n_inner=40,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2Model(config), "h.0.attn.c_attn", "h.0.attn.c_proj"


@pytest.mark.parametrize("make", [bert, distilbert, gpt2])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_heads_of_transformers_go_whole(
    make: Callable[[], tuple[Any, str, str]], attention: str
) -> None:
    """What is left computes as if nobody read the heads that went, and the units of the MLP."""
    net, value, out = make()
    net.set_attn_implementation(attention)
    engine = pruned(net, TOKENS, "prune(structured, 0.25)")
    small: Any = module_of(engine)
    transposed = make is gpt2
    before, after = net.get_submodule(value).weight, small.get_submodule(value).weight
    whole, less = net.get_submodule(out).weight, small.get_submodule(out).weight
    if transposed:  # GPT-2 keeps its weights the other way, and three of them in one
        before, after, whole, less = (w.T for w in (before[:, 48:], after[:, 36:], whole, less))
    kept = [n for n, row in enumerate(before) if any(torch.equal(row, one) for one in after)]
    assert len(kept) == len(after) == 18
    assert all(kept[n : n + 6] == list(range(kept[n], kept[n] + 6)) for n in (0, 6, 12))
    assert torch.equal(less, whole[:, kept])
    assert "normalised together" in engine.applied[0].did


def test_heads_that_share_keys_and_turn_by_position_go_with_these() -> None:
    """Two heads of queries to one of keys, a causal mask, and rotary positions."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=8,
        num_key_value_heads=4, intermediate_size=40, max_position_embeddings=48,
    )  # fmt: skip
    net = LlamaModel(config)
    small = sizes(module_of(pruned(net, TOKENS, "prune(structured, 0.25)")))
    layer = "layers.0.self_attn"
    assert small[f"{layer}.q_proj.weight"] == (24, 32)
    assert small[f"{layer}.k_proj.weight"] == small[f"{layer}.v_proj.weight"] == (12, 32)
    assert small[f"{layer}.o_proj.weight"] == (32, 24)
    assert small["layers.0.mlp.gate_proj.weight"] == (30, 32)
