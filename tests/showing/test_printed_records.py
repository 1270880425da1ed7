"""Records, Validations and Watched as they are printed in 80 columns.

`printed/` holds them. Change a file on purpose, and look at it: FORWARDPASS_WRITE_PRINTED=1 writes
them anew.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import forwardpass as fwd
from forwardpass.errors import PassError
from forwardpass.nouns.validations import Exempt, Fault, Foreign, Validation
from forwardpass.showing.drawing import drawn
from forwardpass.showing.terminal import text

PRINTED = Path(__file__).parent / "printed"


def taken(model: nn.Module, inputs: Any, **more: Any) -> fwd.Record:
    try:
        return fwd.record(model.eval(), inputs, grad="inference", **more)
    except PassError as error:
        return error.record


def mlp() -> nn.Module:
    parts = {"fc1": nn.Linear(64, 32), "act": nn.ReLU(), "fc2": nn.Linear(32, 10)}
    return nn.Sequential(OrderedDict(parts))


def cnn() -> nn.Module:
    def block(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(3, 8), *block(8, 16), nn.Flatten(), nn.Linear(256, 10))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, 12)


class Flags(nn.Module):
    """Reused, in place, random, and a number that goes to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.fc(self.fc(x))
        x += 1
        x = F.dropout(x, 0.5, True)
        if x.sum().item() > 1e9:
            x = -x
        return {"logits": x}


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x))


def watched() -> Any:
    model = mlp().eval()
    with fwd.watch(model) as records, torch.no_grad():
        for _ in range(3):
            model(torch.ones(1, 64))
        for rows in (5, 5, 7):
            model(torch.ones(rows, 64))
    return records


def validation(**more: Any) -> Validation:
    fields: dict[str, Any] = {
        "level": "f", "verdict": "valid", "calls": 1234, "replayed": 1234, "exact": 1200,
        "sampled": 96, "moved": 2,
    }  # fmt: skip
    return Validation(**{**fields, **more})


def incomplete() -> Validation:
    return validation(
        level="d", verdict="incomplete", replayed=1200,
        exempt=(Exempt(7, "aten.bernoulli_.float", "it draws random numbers"),),
        orphans=(Foreign(31, 9, "aten.add.Tensor", "f32[2 3], first read at model.py:31"),),
        constants=(Foreign(5, 2, "aten.mul.Tensor", "i64[3] of host numbers at model.py:12"),),
        unseen=("the generator of cpu moved, and no random call was seen",),
        formulas_missing=("aten.sum.default",),
    )  # fmt: skip


def invalid() -> Validation:
    said = "replayed, element [0,7] is 1.25 and was recorded as 0.5"
    return validation(
        level="e",
        verdict="invalid",
        faults=(
            Fault("b", 12, "aten.addmm.default", said),
            Fault("d", 12, "aten.addmm.default", said),
            Fault("d", -1, "", "output logits differs"),
        ),
    )


NOUNS: dict[str, Callable[[], Any]] = {
    "mlp": lambda: taken(mlp(), {"x": torch.ones(4, 64)}),
    "cnn": lambda: taken(cnn(), torch.ones(2, 3, 16, 16)),
    "encoder_fused": lambda: taken(encoder(), torch.ones(2, 8, 32)),
    "encoder_expanded": lambda: taken(encoder(), torch.ones(2, 8, 32), expanded=True),
    "flags": lambda: taken(Flags(), torch.ones(2, 8)),
    "failed": lambda: taken(Failing(), torch.ones(2, 4)),
    "watched": watched,
    "valid": validation,
    "incomplete": incomplete,
    "invalid": invalid,
}


def masked(printed: str) -> str:
    """Without what differs from one version of PyTorch, or of this file, to the next."""
    printed = re.sub(r"torch \d\S*", "torch VERSION", printed)
    printed = re.sub(r"path  [0-9a-f]{16}", "path  HASH", printed)
    return re.sub(r"(\w\.py):\d+", r"\1:LINE", printed) + "\n"


@pytest.mark.parametrize("name", NOUNS)
def test_as_it_is_printed(name: str) -> None:
    printed = text(NOUNS[name]())
    assert max(map(len, printed.splitlines())) <= 80
    assert all(line == line.rstrip() for line in printed.splitlines())
    path = PRINTED / f"{name}.txt"
    if os.environ.get("FORWARDPASS_WRITE_PRINTED"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(masked(printed), encoding="utf-8")
    assert masked(printed) == path.read_text(encoding="utf-8")


# -- the first line ------------------------------------------------------------------------------


def test_the_first_line_of_the_design() -> None:
    line = drawn(taken(mlp(), {"x": torch.ones(4, 64)}))
    assert line == "x[4 64] ─▶ fc1: W[32 64]·x + b ─▶ relu ─▶ fc2: W[10 32]·x + b ─▶ y[4 10]"


def bert() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
                        intermediate_size=32)  # fmt: skip
    return BertModel(config), {"input_ids": torch.ones(2, 7, dtype=torch.int64)}


def resnet() -> tuple[nn.Module, Any]:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2],
                          layer_type="basic")  # fmt: skip
    return ResNetModel(config), {"pixel_values": torch.ones(1, 3, 32, 32)}


class Wrapped(nn.Module):
    """What is done around a wrapped model is drawn, too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = encoder(), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean(1)).softmax(-1)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (
            bert,
            "input_ids[2 7] ─▶ embeddings: BertEmbeddings ─▶ encoder.layer.0…3: 4 × BertLayer ─▶ "
            "pooler: BertPooler ─▶ last_hidden_state[2 7 16], pooler_output[2 16]",
        ),
        (
            resnet,
            "pixel_values[1 3 32 32] ─▶ embedder: ResNetEmbeddings ─▶ encoder.stages.0…1: 2 × "
            "ResNetStage ─▶ pooler: AdaptiveAvgPool2d ─▶ last_hidden_state[1 16 4 4], "
            "pooler_output[1 16 1 1]",
        ),
        (
            lambda: (Wrapped(), torch.ones(2, 8, 32)),
            "x[2 8 32] ─▶ body.layers.0…11: 12 × TransformerEncoderLayer ─▶ mean ─▶ "
            "head: W[5 32]·x + b ─▶ softmax ─▶ y[2 5]",
        ),
    ],
    ids=["bert", "resnet", "wrapped"],
)
def test_the_first_line_of_long_models(made: Any, line: str) -> None:
    model, inputs = made()
    record = taken(model, inputs, expanded=True)
    assert drawn(record) == line
    lines = text(record).splitlines()
    top = lines[: next(i for i, each in enumerate(lines) if each.startswith("forward"))]
    assert " ".join(each.strip() for each in top) == line, "it breaks before arrows only"


def test_a_long_chain_is_folded() -> None:
    class Chain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(50):
                x = (x + 1).relu().exp().tanh()
            return x

    line = drawn(taken(Chain(), torch.ones(2)))
    assert line.count("─▶") <= 12
    assert "more …" in line


def test_a_way_through_numpy_is_drawn() -> None:
    class Numpy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() * 2) + 1

    assert drawn(taken(Numpy(), torch.ones(2, 3))) == "x[2 3] ─▶ .numpy() ─▶ + ─▶ y[2 3]"


# -- in notebooks, and names that would do harm ---------------------------------------------------

EVIL = "\x1b[31m<b>[bold]x[/]"


class Evil(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {EVIL: x + 1}


@pytest.mark.parametrize("noun", ["record", "failed", "watched", "validation"])
def test_names_cannot_inject(noun: str) -> None:
    class Raising(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError(EVIL)

    if noun == "record":
        thing: Any = taken(Evil(), {"x": torch.ones(2)})
    elif noun == "failed":
        thing = taken(Raising(), torch.ones(2))
    elif noun == "watched":
        code = compile("\ndef call(model, x):\n    return model(x)\n", f"/tmp/{EVIL}.py", "exec")
        space: dict[str, Any] = {}
        exec(code, space)
        model = nn.Linear(2, 2)
        with fwd.watch(model) as thing:
            space["call"](model, torch.ones(1, 2))
    else:
        thing = validation(verdict="invalid", faults=(Fault("b", 1, EVIL, EVIL),), unseen=(EVIL,))
    printed, html = str(thing), thing._repr_html_()
    assert "\x1b" not in printed
    joined = re.sub(r"\s", "", printed)
    assert "\\x1b[31m<b>[bold]x[/]" in joined
    assert "\x1b" not in html
    assert "<b>" not in html
    assert "&lt;b&gt;" in re.sub(r"\s|</?span[^>]*>", "", html)


def test_html_is_a_fragment_of_its_own() -> None:
    html = taken(mlp(), torch.ones(1, 64))._repr_html_()
    assert html.startswith("<pre")
    assert "W[32 64]·x + b" in html
    assert "<html" not in html


def test_a_notebook_has_bars_of_what_counts_most() -> None:
    module = nn.Sequential()
    module.add_module("<b>wide", nn.Linear(4, 64))
    module.add_module("narrow", nn.Linear(64, 2))
    done = taken(module, torch.ones(1, 4))
    html = done._repr_html_()
    assert "multiply-accumulates, by module" in html
    assert html.index("&lt;b&gt;wide") < html.index("narrow")
    assert "<b>" not in html
    widths = [float(wide) for wide in re.findall(r"width:([\d.]+)px", html)]
    assert widths == [240.0, 120.0]
    terms = done.explain("narrow[0, 1]")._repr_html_()
    assert terms.count("width:") == 9
    assert terms.count("repeating-linear-gradient") == terms.split("<table")[1].count("−")
