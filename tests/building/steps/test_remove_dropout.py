"""remove_dropout: what does nothing in evaluation is gone; what draws even so is not."""

from __future__ import annotations

import models
import pytest
import torch
from stepped import kinds, stepped
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass.errors import BuildError

FEATURES = "x: f32[batch 16]"
DROPOUTS = nn.modules.dropout._DropoutNd


class Path(nn.Module):
    """Whole rows are dropped in training, as in ConvNeXt and Swin."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        kept = torch.rand(len(x), *[1] * (x.dim() - 1)) >= self.share
        return x * kept / (1 - self.share)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(16, 16), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        p = self.dropout.p  # read, as attention layers do
        hidden = F.dropout(self.linear(x), p, training=self.training)
        return x + self.dropout(hidden)


def test_dropouts_of_every_kind_are_gone_and_functions_are_counted() -> None:
    shared = nn.AlphaDropout(0.2)
    module = nn.Sequential(Block(), nn.Dropout(0.5, inplace=True), shared, Path(0.3), shared)
    module.append(nn.FeatureAlphaDropout())
    made = stepped(module, FEATURES, "remove_dropout")
    assert made.did == (
        "5 Dropouts removed; 1 call of dropout as a function draws nothing in evaluation"
    )
    assert made.apart == 0
    assert not kinds(made.module, DROPOUTS)
    assert not kinds(made.module, Path)
    assert made.module[0].dropout.p == 0.1


def test_only_what_was_chosen_is_removed() -> None:
    module = nn.Sequential(nn.Linear(16, 4), nn.Dropout(), nn.Dropout())
    made = stepped(module, FEATURES, "remove_dropout where 1")
    assert kinds(made.module, DROPOUTS) == ["2"]


def test_a_transformer_layer_keeps_its_result() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    made = stepped(layer, "src: f32[batch 5 16]", "remove_dropout")
    assert made.did.startswith("3 Dropouts removed")
    assert made.apart < 1e-6


def test_lists_of_parts_and_a_model_of_transformers_stay_whole() -> None:
    model = models.bert()
    assert model.signature is not None
    inputs = [str(one) for one in model.signature.inputs]
    count = len(kinds(model.module, nn.Dropout))
    made = stepped(model.module, inputs, "remove_dropout")
    assert made.did.startswith(f"{count} Dropouts removed")
    assert made.apart < 1e-6
    assert len(made.module.encoder.layer) == 2


class Always(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


class MonteCarlo(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, True)


class Unregistered(nn.Module):
    """A Dropout in a plain list, which `eval()` does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [nn.Dropout()]

    def forward(self, x: Tensor) -> Tensor:
        return self.parts[0](x)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(-1, 2, 4, 2)
        return F.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.1)


@pytest.mark.parametrize("drawing", [Always(), MonteCarlo(), Attention(), Unregistered()])
def test_what_draws_in_evaluation_is_refused_with_its_line(drawing: nn.Module) -> None:
    module = nn.Sequential(nn.Dropout(), drawing)
    with pytest.raises(BuildError, match=r"draws in evaluation too \(.*\.py:\d+"):
        models.built(fwd.load(fwd.Model(module, FEATURES)) | "remove_dropout")


def test_a_hook_keeps_a_dropout() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout())
    module[1].register_forward_hook(lambda part, inputs, output: output + 1)
    made = stepped(module, FEATURES, "remove_dropout")
    assert made.did == "1 Dropout removed; left: 1 whose hooks see what goes through (1)"
    assert made.apart == 0


def test_noise_that_is_no_dropout_stays() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(x.shape)

    made = stepped(nn.Sequential(Noisy(), nn.Dropout()), FEATURES, "remove_dropout")
    assert kinds(made.module, Noisy) == ["0"]


def test_a_model_without_one_is_refused() -> None:
    with pytest.raises(BuildError, match="remove_dropout: no chosen module is a Dropout"):
        stepped(nn.Linear(16, 4), "input: f32[batch 16]", "remove_dropout")
    with pytest.raises(BuildError, match="1 call of dropout as a function draws nothing"):
        stepped(Block(), FEATURES, "remove_dropout where !dropout")
