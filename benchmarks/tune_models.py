"""The twelve families of `lowering_models`, trained on real data: weights that a budget can tell.

Handwritten digits for what takes pictures, spectra or features; paragraphs of docstrings, letter
by letter, for what takes tokens. A process loads a family by `benchmarks/tune_models.py:bert`, with
the weights that lie in the folder of FORWARDPASS_TRAINED.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import lowering_models
from benchmarks.text_throughput import paragraphs
from forwardpass import Model
from forwardpass.building.subjects import arguments_of
from forwardpass.executing.encoding import Encoder
from forwardpass.nouns.rows import Rows
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.dtypes import tensors

TRAINED = "FORWARDPASS_TRAINED"
LONGEST = 64
PARAGRAPHS = 5_000
STEPS, BATCH = 400, 64

Columns = dict[str, Any]
Rows64 = np.ndarray[Any, np.dtype[np.int64]]
Loss = Callable[[nn.Module, Any, Tensor], Tensor]
"""Of a head that is thrown away, what the module returned, and the labels."""


class Task(NamedTuple):
    """What a family learns.

    Attributes:
        columns: rows, with the column `label`, a number or a row of numbers each.
        head: what stands behind the module while it learns.
        loss: what is made small.
        keep: the budget of its tuning.
    """

    columns: Columns
    head: nn.Module
    loss: Loss
    keep: str


@cache
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures of 8 x 8 from 0 to 1, and which digit they are."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return (found.images[order] / 16).astype(np.float32), found.target[order].astype(np.int64)


@cache
def letters() -> list[np.ndarray[Any, Any]]:
    """Paragraphs, cut at LONGEST letters, as numbers from 1 to 98; other letters are 98."""
    texts = paragraphs(PARAGRAPHS)
    lengths = np.random.default_rng(0).integers(LONGEST // 8, LONGEST + 1, len(texts))
    return [
        np.array([min(ord(c) - 31, 98) if ord(c) > 31 else 98 for c in text[:n]], np.int64)
        for text, n in zip(texts, lengths, strict=True)
    ]


def _pictures(path: str, height: int, width: int, channels: int) -> Columns:
    images, labels = digits()
    larger = np.repeat(np.repeat(images, height // 8, axis=1), width // 8, axis=2)
    whole = np.repeat(larger[:, None], channels, axis=1)
    return {path: np.ascontiguousarray(whole[:, 0] if not channels else whole), "label": labels}


def _scores(head: nn.Module, out: Any, label: Tensor) -> Tensor:
    scores = getattr(out, "logits", out)
    return F.cross_entropy(scores, label % scores.shape[-1])


def _pooled(head: nn.Module, out: Any, label: Tensor) -> Tensor:
    return F.cross_entropy(head(out.last_hidden_state.mean(1)), label)


def _kinds(head: nn.Module, out: Any, label: Tensor) -> Tensor:
    scores = getattr(out, "logits", out)
    return F.cross_entropy(scores.flatten(0, 1), label.flatten(), ignore_index=-100)


def _again(head: nn.Module, out: Any, label: Tensor) -> Tensor:
    return F.mse_loss(out["image"], label)


def _kind(letter: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of each letter what follows it: space, digit, capital, small letter, something else."""
    following = np.append(letter[1:], 1) + 31
    found = np.full(len(letter), 4)
    found[following == 32] = 0
    found[(following >= 48) & (following <= 57)] = 1
    found[(following >= 65) & (following <= 90)] = 2
    found[(following >= 97) & (following <= 122)] = 3
    return found


def _tokens(*paths: str, by_letter: bool) -> Columns:
    texts = letters()
    first: Columns = {paths[0]: texts}
    first |= {path: [np.zeros_like(text) for text in texts] for path in paths[1:]}
    if by_letter:
        return first | {"label": [_kind(text) for text in texts]}
    capital = [int((text[0] + 31) % 5) for text in texts]  # of the first letter; no mean tells it
    return first | {"label": np.array(capital, np.int64)}


def _autoencoded() -> Columns:
    images, _ = digits()
    return {"image": images[:, None], "label": images[:, None]}


def _features() -> Columns:
    images, labels = digits()
    return {
        "features": images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16),
        "label": labels,
    }


def _spectra() -> Columns:
    found = _pictures("input_features", 16, 64, 1)
    return found | {"input_features": found["input_features"][:, 0]}


ACCURACY = "flips <= 2%"
"""Two fifths of the digits are 719 rows, of which half can prove no less than 1.2 %."""
VECTORS = "cosine.mean >= 0.995"
_small = partial(nn.Linear, 32)

TASKS: dict[str, Callable[[], Task]] = {
    "cnn": lambda: Task(_pictures("pixels", 32, 32, 3), nn.Identity(), _scores, ACCURACY),
    "resnet": lambda: Task(_pictures("pixel_values", 32, 32, 3), nn.Identity(), _scores, ACCURACY),
    "convnext": lambda: Task(
        _pictures("pixel_values", 32, 32, 3), nn.Identity(), _scores, ACCURACY
    ),
    "vit": lambda: Task(_pictures("pixel_values", 32, 32, 3), nn.Identity(), _scores, ACCURACY),
    "bert": lambda: Task(
        _tokens("input_ids", "token_type_ids", by_letter=False), _small(5), _pooled, VECTORS
    ),
    "distilbert": lambda: Task(
        _tokens("input_ids", by_letter=True), nn.Identity(), _kinds, "flips.mean <= 1%"
    ),
    "gpt2": lambda: Task(_tokens("input_ids", by_letter=False), _small(5), _pooled, VECTORS),
    "t5": lambda: Task(_tokens("input_ids", by_letter=False), _small(5), _pooled, VECTORS),
    "lstm": lambda: Task(_tokens("ids", by_letter=True), nn.Identity(), _kinds, "flips.mean <= 1%"),
    "mlp": lambda: Task(_features(), nn.Identity(), _scores, ACCURACY),
    "autoencoder": lambda: Task(_autoencoded(), nn.Identity(), _again, "relative_error.mean <= 2%"),
    "whisper": lambda: Task(_spectra(), _small(10), _pooled, VECTORS),
}


def parts(count: int) -> tuple[Rows64, Rows64, Rows64]:
    """The rows that a family is trained on (two fifths), tuned on (two fifths), and judged on.

    A model is surer of rows that it was trained on: what holds on them says nothing of others. And
    neighbours are alike, so that the parts are drawn.
    """
    order = np.random.default_rng(0).permutation(count)
    return order[: count * 2 // 5], order[count * 2 // 5 : count * 4 // 5], order[count * 4 // 5 :]


def train(name: str) -> tuple[Model, float, float]:
    """A family after STEPS steps of Adam on its training part, and its loss before and after on the
    part that it is judged on."""
    torch.manual_seed(0)
    model, task = lowering_models.FAMILIES[name](), TASKS[name]()
    assert model.signature is not None
    columns = {path: values for path, values in task.columns.items() if path != "label"}
    label: Any = task.columns["label"]
    count = len(label)
    block = Encoder(model)(Rows(columns, np.arange(count), None)).block
    assert isinstance(block, Block)
    module = model.module.train()
    learner = torch.optim.Adam([*module.parameters(), *task.head.parameters()], lr=2e-3)
    varied = len(np.unique(block.sizes, axis=0)) > 1
    generator = np.random.default_rng(0)
    training, _, rest = parts(count)

    def loss(rows: np.ndarray[Any, Any]) -> Tensor:
        chosen = block.take(rows)
        sizes = chosen.sizes.max(axis=0).tolist() if len(chosen) else []
        assert model.signature is not None
        batch = chosen.collate(sizes)
        args, kwargs = arguments_of(module, model.signature, tensors(batch, model.signature))
        if isinstance(label, list):
            longest = max(len(label[row]) for row in rows)
            filled = [
                np.pad(label[r], (0, longest - len(label[r])), constant_values=-100) for r in rows
            ]
            target = torch.as_tensor(np.array(filled))
        else:
            target = torch.as_tensor(label[rows])
        return task.loss(task.head, module(*args, **kwargs), target)

    def grouped(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Rows of one length, where rows of several do not meet."""
        sizes = block.sizes[rows]
        return rows[(sizes == sizes[0]).all(axis=1)]

    with torch.no_grad():
        before = float(loss(grouped(rest[:512])))
    for _ in range(STEPS):
        learner.zero_grad()
        rows = grouped(generator.choice(training, 8 * BATCH if varied else BATCH))[:BATCH]
        loss(rows).backward()
        learner.step()
    module.eval()
    with torch.no_grad():
        return model, before, float(loss(grouped(rest[:512])))


def trained(folder: Path, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Train families into a folder; the loss of each before and after, on rows it never saw."""
    from safetensors.torch import save_model

    found: dict[str, tuple[float, float]] = {}
    for name in names:
        model, before, after = train(name)
        save_model(model.module, str(folder / f"{name}.safetensors"))
        found[name] = before, after
        print(f"{name}: loss {before:.3f} -> {after:.3f}", flush=True)
    return found


def _family(name: str) -> Model:
    from safetensors.torch import load_model

    model = lowering_models.FAMILIES[name]()
    load_model(model.module, str(Path(os.environ[TRAINED]) / f"{name}.safetensors"))
    model.module.eval()
    return model


cnn = partial(_family, "cnn")
resnet = partial(_family, "resnet")
convnext = partial(_family, "convnext")
vit = partial(_family, "vit")
bert = partial(_family, "bert")
distilbert = partial(_family, "distilbert")
gpt2 = partial(_family, "gpt2")
t5 = partial(_family, "t5")
lstm = partial(_family, "lstm")
mlp = partial(_family, "mlp")
autoencoder = partial(_family, "autoencoder")
whisper = partial(_family, "whisper")
