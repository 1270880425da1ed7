"""Logits in, labels and scores out: what a classifier's folder gives a Model as `decode`.

They work on the arrays of either library, and import none but NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from forwardpass.tensors.arrays import Array, to_numpy

Decode = Callable[[dict[str, Any]], Mapping[str, Any]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


def decoder(architecture: str, config: Any) -> Decode | None:
    """How the outputs of a classifier become rows; None for what is no classifier."""
    labels = [str(config.id2label[index]) for index in sorted(config.id2label)]
    if architecture.endswith("ForTokenClassification"):
        return TokenLabels(labels)
    if architecture.endswith("ForImageClassification"):
        return OneLabel(labels)
    if not architecture.endswith("ForSequenceClassification"):
        return None
    if config.problem_type == "multi_label_classification":
        return ManyLabels(labels)
    if config.problem_type == "regression":
        return Regression()
    return OneLabel(labels)


class OneLabel:
    """`label` with the largest softmax, and that as `score`; of an only label the sigmoid."""

    arrays = True

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        logits = _floats(outputs["logits"])
        scores = sigmoid(logits) if logits.shape[-1] == 1 else softmax(logits)
        best = scores.argmax(-1)
        return {"label": [self.labels[i] for i in best], "score": scores.max(-1)}

    def described(self, folder: Path) -> dict[str, Any]:
        """This decoder as data."""
        return {"kind": "one label", "labels": self.labels}

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """What `described` said."""
        return cls(description["labels"])


class ManyLabels:
    """`labels` whose sigmoid is above 0.5, and those as `scores`, in the order of the labels."""

    arrays = True

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        rows = sigmoid(_floats(outputs["logits"])).tolist()
        chosen = [
            [(name, s) for name, s in zip(self.labels, row, strict=True) if s > 0.5] for row in rows
        ]
        return {
            "labels": [[name for name, _ in row] for row in chosen],
            "scores": [[score for _, score in row] for row in chosen],
        }

    def described(self, folder: Path) -> dict[str, Any]:
        """This decoder as data."""
        return {"kind": "many labels", "labels": self.labels}

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """What `described` said."""
        return cls(description["labels"])


class TokenLabels:
    """`labels` and `scores` of each row: one for each of its tokens, special tokens included."""

    arrays = True

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        rows = [softmax(_floats(logits)) for logits in outputs["logits"]]
        return {
            "labels": [[self.labels[i] for i in row.argmax(-1)] for row in rows],
            "scores": [row.max(-1).tolist() for row in rows],
        }

    def described(self, folder: Path) -> dict[str, Any]:
        """This decoder as data."""
        return {"kind": "token labels", "labels": self.labels}

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """What `described` said."""
        return cls(description["labels"])


class Regression:
    """`value`, a number, or a list of numbers where the model gives several."""

    arrays = True

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        logits = _floats(outputs["logits"])
        return {"value": logits[:, 0] if logits.shape[-1] == 1 else logits}

    def described(self, folder: Path) -> dict[str, Any]:
        """This decoder as data."""
        return {"kind": "regression"}

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """What `described` said."""
        return cls()


class Score:
    """`score` of a cross-encoder, by its activation: a number, or a list where it gives several.

    Args:
        activation: a module of PyTorch. One that is known here by name needs no PyTorch.
    """

    arrays = True

    def __init__(self, activation: Any) -> None:
        self.activation = activation

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        logits = _floats(outputs["logits"])
        known = ACTIVATIONS.get(self._name)
        scores = known(logits) if known is not None else _computed(self.activation, logits)
        return {"score": scores[:, 0] if scores.shape[-1] == 1 else scores}

    def described(self, folder: Path) -> dict[str, Any] | None:
        """This decoder as data; None where its activation is known by no name."""
        return {"kind": "score", "activation": self._name} if self._name in ACTIVATIONS else None

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """What `described` said."""
        return cls(description["activation"])

    @property
    def _name(self) -> str:
        named = self.activation
        return named if isinstance(named, str) else type(named).__name__


def softmax(logits: Floats) -> Floats:
    """exp(x) ÷ sum of exp(x) along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def sigmoid(logits: Floats) -> Floats:
    """1 ÷ (1 + exp(−x))."""
    with np.errstate(over="ignore"):
        return np.float32(1) / (np.float32(1) + np.exp(-logits))


def _identity(logits: Floats) -> Floats:
    return logits


ACTIVATIONS: Final[Mapping[str, Callable[[Floats], Floats]]] = {
    "Identity": _identity, "Sigmoid": sigmoid, "Tanh": np.tanh,
}  # fmt: skip
DECODERS: Final[Mapping[str, Any]] = {
    "one label": OneLabel, "many labels": ManyLabels, "token labels": TokenLabels,
    "regression": Regression, "score": Score,
}  # fmt: skip
"""By the kind under which an artefact knows them."""


def _floats(value: Array) -> Floats:
    return to_numpy(value).astype(np.float32)


def _computed(activation: Any, logits: Floats) -> Floats:
    import torch

    with torch.no_grad():
        return activation(torch.from_numpy(logits)).numpy()
