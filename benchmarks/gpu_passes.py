"""How much of what a GPU multiplies do passes of BERT-base and of ResNet-50 reach?

Their shapes with random weights, eager and compiled, in f32 and in bf16; each by `fwd.profile`,
from host memory and back there. Share of the matmul rate that was measured for the dtype on this
device. With --quick small ones, on whatever there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

import forwardpass as fwd
from benchmarks.results import publish, quick, table
from forwardpass.errors import ForwardpassError
from forwardpass.executing import examples
from forwardpass.nouns.profiles import CurvePoint, Profile
from forwardpass.showing.profiles import limits_line, machine_line
from forwardpass.showing.wording import duration, rate

PLANS = ("@ eager", "| cast(bf16) @ eager", "@ inductor", "| cast(bf16) @ inductor")
"""Compiling comes last: it takes minutes."""


def bert(small: bool) -> fwd.Model:
    """BERT-base over 128 tokens."""
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64}  # fmt: skip
    config = BertConfig(**(sizes if small else {}))
    tokens = 16 if small else 128
    module = BertModel(config, add_pooling_layer=False)
    return placed(module, f"input_ids: i64[batch {tokens}]", "BERT-base")


def resnet(small: bool) -> fwd.Model:
    """ResNet-50 over images of 224 × 224."""
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    config = ResNetConfig(**(sizes if small else {}))
    side = 32 if small else 224
    module = ResNetForImageClassification(config)
    return placed(module, f"pixel_values: f32[batch 3 {side} {side}]", "ResNet-50")


def placed(module: nn.Module, inputs: str, name: str) -> fwd.Model:
    """A Model where the GPU is, if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return fwd.Model(module.eval().to(device), inputs, origin=name)


def macs_of_a_row(model: fwd.Model) -> float:
    """By the record of a batch of one."""
    drawn = examples.drawn(fwd.Forward(model, fwd.Plan.parse("")))
    device = next(model.module.parameters()).device
    inputs = {path: tensor.to(device) for path, tensor in drawn.items()}
    return fwd.record(model, inputs, grad="inference").totals.macs


def best(profile: Profile) -> CurvePoint:
    """The batch with the most rows a second."""
    curve = next(curve for curve in profile.passes[0].curves if curve.along == "batch")
    return max(curve.points, key=lambda point: point.rows_per_second.median)


def line(name: str, plan: str, profile: Profile, macs: float) -> list[str]:
    point, done = best(profile), profile.passes[0]
    limit = profile.limits.matmul_flops_per_second.get(done.dtype)
    flops = 2 * macs * point.rows_per_second.median
    return [
        name, f"`{plan}`".replace("|", "\\|"), f"{point.rows:,}", duration(point.seconds.median),
        f"{rate(point.rows_per_second.median)}", f"{flops / 1e12:.2f}",
        f"{100 * flops / limit:.0f}" if limit else "", f"{100 * profile.noise:.1f}",
    ]  # fmt: skip


def main() -> None:
    small = quick(__doc__)
    batches, budget = ((1, 4), 1.0) if small else ((1, 32, 128), 6.0)
    models: Sequence[tuple[str, Callable[[bool], fwd.Model]]] = (
        ("BERT-base", bert), ("ResNet-50", resnet),
    )  # fmt: skip
    lines: list[list[str]] = []
    failed: list[str] = []
    chosen = PLANS[:2] if small else PLANS
    made = {name: make(small) for name, make in models}
    macs = {name: macs_of_a_row(model) for name, model in made.items()}
    for plan in chosen:
        for name, model in made.items():
            forward = fwd.Forward(model, fwd.Plan.parse(plan))
            try:
                profile = fwd.profile(forward, batch=batches, budget_seconds=budget)
            except ForwardpassError as error:
                failed.append(f"{name} `{plan}` failed: {str(error).splitlines()[0]}")
                continue
            lines.append(line(name, plan, profile, macs[name]))
            _publish(lines, failed, profile, write=not small)  # what follows may be cut short


def _publish(
    lines: Sequence[Sequence[str]], failed: Sequence[str], profile: Profile, *, write: bool
) -> None:
    head = [
        "", "plan", "batch", "one batch", "rows/s", "Tflops/s", "% of the limit", "noise, %",
    ]  # fmt: skip
    text = (
        "The batch with the most rows a second, inputs and outputs in host memory; flops by "
        "recorded macs, beside the matmul rate of the dtype on this device."
    )
    about = f"{machine_line(profile.machine)}; {limits_line(profile.limits)}."
    parts = [text, table(head, lines), about, *failed]
    publish("gpu_passes", "Passes on a GPU", parts, write=write)


if __name__ == "__main__":
    main()
