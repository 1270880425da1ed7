"""The shared models are recorded right in every mode; their macs are those PyTorch counts."""

from __future__ import annotations

from typing import Any

import models
import pytest
import torch
from test_awkward import batch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from untouched import untouched

from forwardpass import Model
from forwardpass.probing import record

PLAIN = ("mlp", "cnn", "pooled_convolution", "masked_mean", "strided", "tied", "bert", "gpt2_left")


def inputs(model: Model, size: int = 30) -> tuple[Any, ...] | dict[str, Any]:
    places, names = batch(model, size=size)
    return names if names else places


@pytest.mark.parametrize("grad", ["off", "on", "inference"])
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", models.MODELS)
def test_every_shared_model_validates_in_every_mode(name: str, mode: Any, grad: Any) -> None:
    model = models.MODELS[name]()
    given = inputs(model)
    with untouched(model.module, given):
        done = record(model.module, given, mode=mode, grad=grad)
        found = done.validate("e")
    assert not found.faults, repr(found)
    assert found.verdict == "valid", repr(found)
    assert (done.mode, done.grad) == (mode, grad)
    for call in done.calls:
        assert call.macs is not None
        assert (call.macs == 0) or call.kind != "view"
        for serial in call.outputs:
            assert done.values[serial].producer == call.index or call.kind == "view"


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_macs_are_half_of_what_pytorch_counts_as_flops(name: str, mode: Any) -> None:
    model = models.MODELS[name]()
    given = inputs(model)
    counter = FlopCounterMode(display=False)
    model.module.train(mode == "train")
    # The counter knows no fused attention on the CPU.
    with sdpa_kernel(SDPBackend.MATH):
        done = record(model.module, given, mode=mode, grad="on")
    with counter, torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        model.module(**given) if isinstance(given, dict) else model.module(*given)
    assert done.totals.macs == counter.get_total_flops() // 2
    fused = record(model.module, given, mode="eval", grad="on")
    assert fused.totals.macs == done.totals.macs
    assert done.totals.flops == 2 * done.totals.macs
    assert not done.totals.unknown


@pytest.mark.parametrize("name", models.MODELS)
def test_macs_do_not_depend_on_the_grad_mode(name: str) -> None:
    model = models.MODELS[name]()
    given = inputs(model, size=30)
    counts = {
        grad: record(model.module, given, mode="eval", grad=grad).totals.macs
        for grad in ("on", "off", "inference")
    }
    assert len(set(counts.values())) == 1, counts


@pytest.mark.parametrize("name", models.MODELS)
def test_the_recorded_outputs_are_those_of_the_plain_pass(name: str) -> None:
    from forwardpass.tensors.trees import flatten

    model = models.MODELS[name]()
    given = inputs(model, size=30)
    model.module.eval()
    done = record(model.module, given, grad="off", values="all")
    with torch.no_grad():
        plain = model.module(**given) if isinstance(given, dict) else model.module(*given)
    for path, tensor in flatten(plain).items():
        kept = done.tensors[done.outputs[path]]
        if name not in ("always_dropout", "counter_buffer"):
            assert torch.equal(kept.nan_to_num(), tensor.nan_to_num()), path


def test_the_totals_are_the_sums_of_the_calls_and_parameters() -> None:
    model = models.MODELS["bert"]()
    done = record(model, inputs(model), mode="eval", grad="off")
    assert done.totals.macs == sum(call.macs or 0 for call in done.calls)
    assert done.totals.elements == sum(call.elements for call in done.calls)
    assert done.totals.bytes == sum(call.bytes_read + call.bytes_written for call in done.calls)
    assert done.totals.parameters == sum(p.numel() for p in model.module.parameters())
    assert done.totals.calls == len(done.calls)


def test_a_convolution_a_linear_and_an_attention_by_hand() -> None:
    conv = nn.Conv2d(6, 4, (3, 5), stride=2, padding=1, groups=2)
    done = record(conv, torch.randn(2, 6, 9, 11), grad="off")
    height, width = conv(torch.randn(2, 6, 9, 11)).shape[-2:]
    assert done.totals.macs == 2 * 4 * height * width * (6 // 2) * 3 * 5
    transposed = nn.ConvTranspose1d(4, 6, 5, stride=2, groups=2)
    done = record(transposed, torch.randn(3, 4, 7), grad="off")
    assert done.totals.macs == 3 * 7 * 4 * (6 // 2) * 5
    done = record(nn.Linear(5, 7), torch.randn(2, 3, 5), grad="off")
    assert done.totals.macs == 2 * 3 * 5 * 7
    done = record(nn.MultiheadAttention(8, 2, batch_first=True).eval(),
                  (torch.randn(2, 5, 8),) * 3, grad="off")  # fmt: skip
    assert done.totals.macs == 2 * 5 * 4 * 8 * 8 + 2 * (2 * 5 * 5 * 8)


def test_the_forward_of_a_plan_is_recorded_as_the_copy_that_it_makes() -> None:
    from forwardpass.nouns.forwards import Forward

    model = models.MODELS["cnn"]()
    given = inputs(model)
    with untouched(model.module, given):
        folded = record(Forward(model) | "cast(bf16)", given)
    assert "bf16" in {
        folded.values[serial].dtype for call in folded.calls for serial in call.inputs
    }
    assert any("copy" in note for note in folded.notes)
    assert folded.validate("d").verdict == "valid"
