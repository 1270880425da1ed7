"""fold_batchnorm: what becomes part of a layer computes as before, and what would not is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stepped import kinds, stepped, trained
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass.errors import BuildError

IMAGE = "x: f32[batch 4 8 8]"
NORM = nn.modules.batchnorm._BatchNorm


class Made(nn.Module):
    """A module of parts, and a forward that is given."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.body = forward

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


PAIRS: dict[str, tuple[nn.Module, nn.Module, str]] = {
    "Conv1d": (nn.Conv1d(4, 6, 3, stride=2), nn.BatchNorm1d(6), "x: f32[batch 4 9]"),
    "Conv2d padded": (nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), IMAGE),
    "Conv2d same": (nn.Conv2d(4, 6, 3, padding="same"), nn.BatchNorm2d(6), IMAGE),
    "Conv2d reflected": (
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), IMAGE,
    ),
    "Conv2d without bias": (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), IMAGE),
    "Conv2d grouped": (nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), IMAGE),
    "Conv2d depthwise": (nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8), IMAGE),
    "Conv3d": (nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), "x: f32[batch 2 5 5 5]"),
    "ConvTranspose1d": (
        nn.ConvTranspose1d(4, 6, 3, stride=2), nn.BatchNorm1d(6), "x: f32[batch 4 9]",
    ),
    "ConvTranspose2d grouped": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, output_padding=1, bias=False),
        nn.BatchNorm2d(6), IMAGE,
    ),
    "Linear": (nn.Linear(16, 6), nn.BatchNorm1d(6), "x: f32[batch 16]"),
    "Linear without bias": (nn.Linear(16, 6, bias=False), nn.BatchNorm1d(6), "x: f32[batch 16]"),
    "without affine": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), IMAGE),
    "another epsilon": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, eps=0.3), IMAGE),
    "SyncBatchNorm": (nn.Conv2d(4, 6, 3), nn.SyncBatchNorm(6), IMAGE),
    "as many channels as positions": (
        nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), "x: f32[batch 4 8]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_every_layer_takes_its_norm_in(name: str) -> None:
    layer, norm, signature = PAIRS[name]
    made = stepped(trained(nn.Sequential(layer, norm, nn.ReLU())), signature, "fold_batchnorm")
    assert made.did == "1 of 1 BatchNorm folded into the layers before them"
    assert made.apart < 1e-5
    assert not kinds(made.module, NORM)
    assert isinstance(norm, NORM)


class Residual(nn.Module):
    """As in a ResNet: the sum takes what the second norm makes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn2, self.bn1 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)  # in this order
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(x + self.bn2(self.conv2(out)))


def test_names_and_the_order_of_parts_do_not_matter() -> None:
    made = stepped(trained(nn.Sequential(Residual(4), Residual(4))), IMAGE, "fold_batchnorm")
    assert made.did.startswith("4 of 4 BatchNorms")
    assert made.apart < 1e-5


def test_only_what_was_chosen_is_folded() -> None:
    made = stepped(
        trained(nn.Sequential(Residual(4), Residual(4))), IMAGE, "fold_batchnorm where 1.*, !*.bn2"
    )
    assert made.did.startswith("1 of 1 BatchNorm ")
    assert kinds(made.module, NORM) == ["0.bn2", "0.bn1", "1.bn2"]


def conv() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


def bn() -> nn.Module:
    return nn.BatchNorm2d(4)


def weight_normed() -> nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(conv())


def hooked(part: nn.Module) -> nn.Module:
    part.register_forward_hook(lambda module, inputs, output: None)
    return part


LEFT: dict[str, tuple[nn.Module, str]] = {
    "branch": (
        Made(lambda m, x: m.bn(y := m.conv(x)) + y, conv=conv(), bn=bn()),
        "layer's result goes elsewhere too (bn)",
    ),
    "comes out": (
        Made(lambda m, x: (m.bn(y := m.conv(x)), y), conv=conv(), bn=bn()),
        "layer's result goes elsewhere too (bn)",
    ),
    "a view of it comes out": (
        Made(lambda m, x: (m.bn(y := m.conv(x)), y.transpose(1, 2)), conv=conv(), bn=bn()),
        "layer's result goes elsewhere too (bn)",
    ),
    "activation between": (
        Made(lambda m, x: m.bn(F.relu(m.conv(x))), conv=conv(), bn=bn()),
        "input is what F.relu makes (bn)",
    ),
    "in place between": (
        Made(lambda m, x: m.bn(m.conv(x).relu_()), conv=conv(), bn=bn()),
        "input is what .relu_ makes (bn)",
    ),
    "concatenated": (
        Made(lambda m, x: m.bn(torch.cat([m.a(x), m.b(x)], 1)), a=nn.Conv2d(4, 2, 1),
             b=nn.Conv2d(4, 2, 1), bn=bn()),
        "input is what torch.cat makes (bn)",
    ),
    "first": (Made(lambda m, x: m.conv(m.bn(x)), conv=conv(), bn=bn()), "input comes from outside"),
    "two layers, one norm": (
        Made(lambda m, x: m.bn(m.a(x)) + m.bn(m.b(x)), a=conv(), b=conv(), bn=bn()),
        "input comes from several layers (bn)",
    ),
    "one layer, two norms": (
        Made(lambda m, x: m.a(m.conv(x)) + m.b(m.conv(x)), conv=conv(), a=bn(), b=bn()),
        "layer has weights that are used elsewhere too (a, b)",
    ),
    "weights used by a function": (
        Made(lambda m, x: m.bn(m.conv(x)) + F.conv2d(x, m.conv.weight, padding=1), conv=conv(),
             bn=bn()),
        "layer has weights that are used elsewhere too (bn)",
    ),
    "weight norm": (
        Made(lambda m, x: m.bn(m.conv(x)), conv=weight_normed(), bn=bn()),
        "weights, or those of its layer, are computed in the pass (bn)",
    ),
    "hook on the layer": (
        Made(lambda m, x: m.bn(m.conv(x)), conv=hooked(conv()), bn=bn()),
        "input is seen by a hook (bn)",
    ),
    "hook on the norm": (
        Made(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=hooked(bn())),
        "input is seen by a hook (bn)",
    ),
    "function": (
        Made(lambda m, x: F.batch_norm(m.conv(x), m.bn.running_mean, m.bn.running_var),
             conv=conv(), bn=bn()),
        "normalisation is called as a function, and stands in the code of forward",
    ),
    "statistics of the batch": (
        Made(lambda m, x: m.bn(m.conv(x)), conv=conv(),
             bn=nn.BatchNorm2d(4, track_running_stats=False)),
        "statistics are those of each batch (track_running_stats=False) (bn)",
    ),
    "statistics read elsewhere": (
        Made(lambda m, x: m.bn(m.conv(x)) + m.bn.running_mean.sum(), conv=conv(), bn=bn()),
        "statistics are read elsewhere too (bn)",
    ),
    "other channels": (
        Made(lambda m, x: m.bn(m.linear(x.flatten(2))), linear=nn.Linear(64, 4),
             bn=nn.BatchNorm1d(4)),
        "channels are not those of the layer before it (bn)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_would_not_compute_the_same_is_left_with_its_reason(name: str) -> None:
    module, reason = LEFT[name]
    with pytest.raises(BuildError) as caught:
        stepped(trained(module), IMAGE, "fold_batchnorm")
    assert str(caught.value).startswith("fold_batchnorm: no BatchNorm can be folded; left: ")
    assert f"whose {reason}" in str(caught.value)


def test_tied_weights_are_left() -> None:
    module = Made(lambda m, x: m.bn(m.a(x)) + m.b(x), a=conv(), b=conv(), bn=bn())
    module.b.weight = module.a.weight
    with pytest.raises(BuildError, match="layer has weights that are used elsewhere too"):
        stepped(trained(module), IMAGE, "fold_batchnorm")
    module.body = lambda m, x: m.bn(m.a(x))
    with pytest.raises(BuildError, match="layer has weights that are tied"):
        stepped(trained(module), IMAGE, "fold_batchnorm")


def test_a_norm_that_does_more_is_left() -> None:
    class Activated(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).relu()

    with pytest.raises(BuildError, match="module does more than normalise"):
        stepped(trained(nn.Sequential(conv(), Activated(4))), IMAGE, "fold_batchnorm")


def test_a_pair_that_is_called_twice_is_folded_once() -> None:
    module = Made(lambda m, x: m.bn(m.conv(F.relu(m.bn(m.conv(x))))), conv=conv(), bn=bn())
    made = stepped(trained(module), IMAGE, "fold_batchnorm")
    assert made.did.startswith("1 of 1")
    assert made.apart < 1e-5


def test_norms_after_norms_are_all_folded() -> None:
    made = stepped(trained(nn.Sequential(conv(), bn(), bn())), IMAGE, "fold_batchnorm")
    assert made.did.startswith("2 of 2")
    assert made.apart < 1e-5


def test_views_between_that_keep_the_channels() -> None:
    """As in LeViT and PointNet: the rows of a linear layer, or its channels, are moved."""
    flat = Made(
        lambda m, x: m.bn(m.linear(x.flatten(1, 2)).flatten(0, 1)).reshape(-1, 32, 6),
        linear=nn.Linear(8, 6), bn=nn.BatchNorm1d(6),
    )  # fmt: skip
    turned = Made(
        lambda m, x: m.bn(m.linear(x.flatten(1, 2)).transpose(1, 2)),
        linear=nn.Linear(8, 6), bn=nn.BatchNorm1d(6),
    )  # fmt: skip
    for module in (flat, turned):
        made = stepped(trained(module), IMAGE, "fold_batchnorm")
        assert made.did.startswith("1 of 1")
        assert made.apart < 1e-5


def test_a_layer_of_the_users_own_is_given_a_bias_only_where_it_uses_one() -> None:
    class Same(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)

    class Biasless(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight)

    module = nn.Sequential(Same(4, 4, 3, bias=False), bn(), Biasless(4, 4, 3, bias=False), bn())
    made = stepped(trained(module), IMAGE, "fold_batchnorm")
    assert made.did == (
        "1 of 2 BatchNorms folded into the layers before them; "
        "left: 1 whose layer takes no bias (3)"
    )
    assert made.module[2].bias is None
    assert module[0].bias is None
    assert made.apart < 1e-5


def test_functions_with_weights_of_their_own_take_norms_in() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(6, 4, 3, 3))
            self.offset = nn.Parameter(torch.randn(6))
            self.bn = nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(F.conv2d(x, self.kernel, self.offset))

    made = stepped(trained(Functional()), IMAGE, "fold_batchnorm")
    assert made.did.startswith("1 of 1")
    assert made.apart < 1e-5


def test_a_model_without_one_is_refused() -> None:
    with pytest.raises(BuildError, match=r"fold_batchnorm: the pass normalises by no BatchNorm"):
        stepped(nn.Linear(4, 2), "input: f32[batch 4]", "fold_batchnorm")


FAMILIES = {
    "ResNet": ("ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "MobileNetV2": ("MobileNetV2Config", {"depth_multiplier": 0.25, "image_size": 32}),
    "RegNet": (
        "RegNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 4},
    ),
    "Levit": (
        "LevitConfig",
        {"image_size": 32, "hidden_sizes": [16, 16, 16], "num_attention_heads": [2, 2, 2],
         "depths": [1, 1, 1], "key_dim": [8, 8, 8]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_norm_of_families_that_nobody_here_wrote(family: str) -> None:
    import transformers

    name, sizes = FAMILIES[family]
    config = getattr(transformers, name)(**sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = trained(getattr(transformers, f"{family}Model")(config))
    norms = len(kinds(module, NORM))
    made = stepped(module, "pixel_values: f32[batch 3 32 32]", "fold_batchnorm")
    assert made.did == f"{norms} of {norms} BatchNorms folded into the layers before them"
    assert made.apart < 1e-4
