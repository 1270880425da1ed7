"""Outputs inferred from probes: strided, coinciding and constant axes."""

from __future__ import annotations

from collections.abc import Callable

import models
import numpy as np
import pytest
import torch
from torch import nn

from forwardpass import Model
from forwardpass.errors import UsageError
from forwardpass.executing.encoding import checked
from forwardpass.nouns.forwards import Forward
from forwardpass.preparing.outputs import infer, verify


class Shaped(nn.Module):
    def __init__(self, shape: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> object:
        return self.shape(x)


def inferred(shape: Callable[[torch.Tensor], object], inputs: str, *row: int) -> list[str]:
    model = Model(Shaped(shape), inputs)
    block, _ = checked(model.signature, {"x": [np.ones(row, np.float32)]}, 1)
    return [str(output) for output in infer(models.built(Forward(model)), block, 0)]


TOKENS = "x: f32[batch tokens]"


def test_constants_the_batch_and_names() -> None:
    assert inferred(lambda x: x.new_zeros(len(x), 7, x.shape[1]), TOKENS, 5) == [
        "output: f32[batch 7 tokens]"
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 10])
def test_a_constant_that_coincides_with_a_batch_or_a_length_stays_a_constant(size: int) -> None:
    assert inferred(lambda x: x.new_zeros(len(x), size), TOKENS, size) == [
        f"output: f32[batch {size}]"
    ]
    assert inferred(lambda x: {"a": x, "b": x.new_zeros(size, 3)}, TOKENS, size) == [
        "a: f32[batch tokens]"
    ]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 2, 1), (3, 1, 0), (10, 5, 0), (4, 4, 0), (2, 7, 3), (400, 320, 0)],
)
def test_strides_are_told_exactly(kernel: int, stride: int, padding: int) -> None:
    def shape(x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(len(x), 4, (x.shape[1] + 2 * padding - kernel) // stride + 1)

    (output,) = inferred(shape, TOKENS, 900)
    from forwardpass.nouns.signatures import Output

    told = Output.parse(output)
    for tokens in (400, 401, 719, 720, 721, 900, 4567):
        assert told.shape(2, {"tokens": tokens}) == tuple(shape(torch.zeros(2, tokens)).shape)


def test_a_composition_of_convolutions_is_one_stride() -> None:
    model = models.strided()
    bare = Model(model.module, "samples: f32[batch 1 samples=25..4000]")
    block, _ = checked(bare.signature, {"samples": [np.ones((1, 100), np.float32)]}, 1)
    (output,) = infer(models.built(Forward(bare)), block, 0)
    for samples in range(25, 300):
        assert output.shape(1, {"samples": samples}) == model.signature.outputs[0].shape(
            1, {"samples": samples}
        )


def test_two_axes_are_told_apart() -> None:
    images = "x: f32[batch 3 h=8..64%8 w=8..64%8]"
    assert inferred(
        lambda x: x.new_zeros(len(x), x.shape[3], 5, x.shape[2] // 8), images, 3, 16, 24
    ) == ["output: f32[batch w 5 (h+0)//8]"]


def test_a_batch_axis_in_another_place() -> None:
    assert inferred(lambda x: x.new_zeros(2, len(x), 8), "x: f32[batch 4]", 4) == [
        "output: f32[2 batch 8]"
    ]


@pytest.mark.parametrize(
    "model", [models.scalar_loss(), models.similarities(), models.constant_axis(2)]
)
def test_what_holds_no_value_a_row_is_left_out(model: Model) -> None:
    block, _ = checked(model.signature, {"features": np.zeros((1, 16), np.float32)}, 1)
    names = [output.path for output in infer(models.built(Forward(model)), block, 0)]
    assert names in (["logits"], ["embedding"])


def test_axes_that_cannot_be_told_must_be_declared() -> None:
    with pytest.raises(UsageError, match="follows h and w together; declare it"):
        inferred(lambda x: x.flatten(1), "x: f32[batch h w]", 4, 6)
    with pytest.raises(UsageError, match=r"is not \(name \+ k\) // d of tokens"):
        inferred(lambda x: x.repeat(1, 2), TOKENS, 5)


def test_nothing_that_belongs_to_rows() -> None:
    with pytest.raises(UsageError, match=r"no tensor with one value a row.*output"):
        inferred(lambda x: x.sum(), TOKENS, 5)


def test_a_wrong_declaration_is_said() -> None:
    model = Model(nn.Linear(16, 4), "features: f32[batch 16]", "output: f32[batch 5]")
    block, _ = checked(model.signature, {"features": np.zeros((1, 16), np.float32)}, 1)
    with pytest.raises(UsageError, match=r"returned \[2, 4\] for 2 rows, not \[2, 5\]"):
        verify(models.built(Forward(model)), block, 0)
    missing = Model(models.dict_output().module, models.FEATURES, "logit: f32[batch 4]")
    with pytest.raises(
        UsageError, match="'logit', which forward did not return; did you mean 'logits'"
    ):
        verify(models.built(Forward(missing)), block, 0)


def test_a_declared_name_renames_a_single_output() -> None:
    model = Model(nn.Linear(16, 4), "features: f32[batch 16]", "logits: f32[batch 4]")
    assert list(models.built(Forward(model))({"features": torch.zeros(1, 16)})) == ["logits"]


def _nested(x: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor(list(x), layout=torch.jagged)


def _eight_bits(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float8_e4m3fn)


def _unnamed(x: torch.Tensor) -> object:
    return {"": x}


def _named_as_in_onnx(x: torch.Tensor) -> object:
    return {"box:0": x}


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (torch.Tensor.to_sparse, "to_dense"),
        (_nested, "to_padded_tensor"),
        (_eight_bits, "float8_e4m3fn"),
        (_unnamed, "names are"),
        (_named_as_in_onnx, "'box:0'"),
    ],
)
def test_outputs_that_are_no_arrays_under_a_name_say_so(
    shape: Callable[[torch.Tensor], object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        inferred(shape, "x: f32[batch 2]", 2)
