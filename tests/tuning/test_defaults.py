"""The budget of who names none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from forwardpass import Model, Rows
from forwardpass.loading.label_decoders import ManyLabels, OneLabel, Regression, TokenLabels
from forwardpass.loading.pooling import Pooling, SentenceEncoder
from forwardpass.tuning.defaults import defaults
from forwardpass.tuning.labels import labels_of

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(40, 6)).astype(np.float32)
FLIPS, COSINE = "flips <= 0.5%", "cosine.mean >= 0.995"
RELATIVE, ACCURACY = "relative_error.mean <= 1%", "accuracy >= baseline - 0.5%"
NAMES = list("abcdef")


def plain(decode: Any = None, module: Any = None) -> Model:
    return Model(module or nn.Linear(6, 6), "x: f32[batch 6]", decode=decode)


def lengths_of_one(values: Any) -> Any:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def sums_of_one(values: Any) -> Any:
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


TOKENS = RANDOM.normal(size=(40, 5, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("outputs", "model", "lines", "why"),
    [
        ({"o": sums_of_one(VECTORS)}, plain(), [FLIPS], "the numbers of o sum to one"),
        ({"o": sums_of_one(TOKENS)}, plain(), [FLIPS], "the numbers of o sum to one"),
        ({"o": lengths_of_one(VECTORS)}, plain(), [COSINE], "the rows of o have the length one"),
        ({"o": VECTORS}, plain(), [FLIPS, COSINE], "nothing tells whether o holds scores"),
        ({"o": VECTORS[:, 0]}, plain(), [RELATIVE], "o is one number a row"),
        ({"o": VECTORS[:, :1]}, plain(), [RELATIVE], "o is one number a row"),
        ({"o": VECTORS.argmax(1)}, plain(), [FLIPS], "o holds whole numbers"),
        ({"o": TOKENS[..., None]}, plain(), [COSINE], "o is an array of 3 axes a row"),
        ({"o": [row[:n] for n, row in zip([2, 3] * 20, TOKENS, strict=True)]}, plain(),
         [FLIPS, COSINE], "nothing tells whether o holds scores"),
        ({"logits": VECTORS}, plain(OneLabel(NAMES)), [FLIPS], "decode says a class by logits"),
        ({"logits": VECTORS}, plain(ManyLabels(NAMES)), [COSINE], "several classes of a row"),
        ({"logits": VECTORS}, plain(Regression()), [COSINE], "decode says no class by logits"),
        ({"logits": VECTORS[:, :1]}, plain(Regression()), [RELATIVE], "one number a row"),
        ({"logits": TOKENS}, plain(TokenLabels(NAMES)), [FLIPS], "decode says a class by logits"),
        ({"a": lengths_of_one(VECTORS), "b": VECTORS[:, 0]}, plain(), [COSINE, RELATIVE],
         "the rows of a have the length one, as embeddings do; b is one number a row"),
    ],
)  # fmt: skip
def test_the_budget_is_that_of_the_outputs(
    outputs: Any, model: Model, lines: list[str], why: str
) -> None:
    found = defaults(outputs, model, None)
    assert [str(keep) for keep in found.keeps] == lines
    assert why in found.why


def test_pooled_embeddings_need_no_length_of_one() -> None:
    encoder = plain(module=SentenceEncoder(nn.Identity(), Pooling(("mean",)), []))
    found = defaults({"sentence_embedding": VECTORS}, encoder, None)
    assert ([str(keep) for keep in found.keeps], found.why) == (
        [COSINE], "sentence_embedding are embeddings",
    )  # fmt: skip


def test_labels_come_first() -> None:
    labels = labels_of(Rows({"class": VECTORS.argmax(1)}, np.arange(40)), "class", plain())
    found = defaults({"o": VECTORS}, plain(), labels)
    assert [str(keep) for keep in found.keeps] == [ACCURACY]
    assert found.why == "there are labels, class"
