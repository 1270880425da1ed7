"""channels_last: convolutions lie pixel by pixel in the record, and users see what they saw."""

from __future__ import annotations

import models
import pytest
import torch
from stepped import stepped, trained
from torch import Tensor, nn
from torch.nn import functional as F

import forwardpass as fwd
from forwardpass.errors import BuildError

IMAGE = "x: f32[batch 4 8 8]"


def lies_last(tensor: Tensor) -> bool:
    last = tensor.is_contiguous(memory_format=torch.channels_last)
    return last and not tensor.is_contiguous()


class Net(nn.Module):
    """Looks at channels by `.view`, as old classifiers do."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 5, 1), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(5 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.features(x)
        return self.head(hidden.view(x.size(0), -1))


def test_convolutions_lie_last_and_a_view_is_given_what_it_takes() -> None:
    made = stepped(trained(Net()), IMAGE, "channels_last")
    assert made.did == (
        "3 of 3 2-d convolutions computed with channels last; laid when they enter: x; laid as "
        "usual after: features.6"
    )
    assert made.apart < 1e-5
    assert lies_last(made.module.features[0].weight)
    record = fwd.record(made.module, torch.randn(2, 4, 8, 8), grad="inference")
    strides = [
        record.values[call.outputs[0]].strides for call in record.calls if "conv" in call.operator
    ]
    assert strides == [(384, 1, 48, 6), (96, 1, 24, 6), (80, 1, 20, 5)]


def test_what_a_function_made_is_laid_by_the_part_before_it() -> None:
    class Functional(Net):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.features[0](x)).view(x.shape[0], -1)

    made = stepped(Functional(), IMAGE, "channels_last")
    assert "laid as usual after: features.0" in made.did
    assert made.apart < 1e-6


def test_what_leaves_lies_as_usual() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 6, 3)

        def forward(self, x: Tensor, bias: Tensor) -> dict[str, Tensor]:
            y = self.conv(x)
            return {"y": y, "flat": y.flatten(2) + bias}

    model = fwd.Model(Two(), [IMAGE, "bias: f32[batch 6 36]"])
    engine = models.built(fwd.load(model) | "channels_last")
    came = engine({"x": torch.randn(3, 4, 8, 8), "bias": torch.zeros(3, 6, 36)})
    assert all(tensor.is_contiguous() for tensor in came.values())
    assert "enter: x" in engine.applied[0].did


def test_only_inputs_that_lead_to_the_chosen_convolutions_are_laid() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.conv(F.pad(x, (1, 1, 1, 1))[..., 1:-1, 1:-1]) + mask.view(
                len(mask), 4, 8, 8
            )

    model = fwd.Model(Masked(), [IMAGE, "mask: f32[batch 4 64]"])
    engine = models.built(fwd.load(model) | "channels_last")
    assert "laid when they enter: x" in engine.applied[0].did
    assert lies_last(engine.replicas[0].module.conv.weight)


def test_tied_weights_stay_tied_and_transposed_convolutions_are_laid() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3))
    module[1].weight = module[0].weight
    made = stepped(module, "input: f32[batch 4 8 8]", "channels_last")
    assert made.did.startswith("3 of 3")
    assert made.module[0].weight is made.module[1].weight


def test_a_model_without_images_is_refused() -> None:
    module = nn.Sequential(nn.Conv1d(4, 6, 3), nn.Flatten())
    with pytest.raises(BuildError, match="channels_last: the pass computes no 2-d convolution"):
        stepped(module, "input: f32[batch 4 9]", "channels_last")
