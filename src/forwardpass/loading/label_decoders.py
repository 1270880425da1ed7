"""Logits in, labels and scores out: what a classifier's folder gives a Model as `decode`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

Decode = Callable[[dict[str, Any]], Mapping[str, Any]]


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

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        logits = outputs["logits"].float()
        scores = logits.sigmoid() if logits.shape[-1] == 1 else logits.softmax(-1)
        score, best = scores.max(-1)
        return {"label": [self.labels[i] for i in best.tolist()], "score": score.numpy()}


class ManyLabels:
    """`labels` whose sigmoid is above 0.5, and those as `scores`, in the order of the labels."""

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        rows = outputs["logits"].float().sigmoid().tolist()
        chosen = [
            [(name, s) for name, s in zip(self.labels, row, strict=True) if s > 0.5] for row in rows
        ]
        return {
            "labels": [[name for name, _ in row] for row in chosen],
            "scores": [[score for _, score in row] for row in chosen],
        }


class Regression:
    """`value`, a number, or a list of numbers where the model gives several."""

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        logits: torch.Tensor = outputs["logits"].float()
        return {"value": logits[:, 0].numpy() if logits.shape[-1] == 1 else logits.numpy()}


class Score:
    """`score` of a cross-encoder, by its activation: a number, or a list where it gives several."""

    def __init__(self, activation: nn.Module) -> None:
        self.activation = activation

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            scores: torch.Tensor = self.activation(outputs["logits"].float())
        return {"score": scores[:, 0].numpy() if scores.shape[-1] == 1 else scores.numpy()}


class TokenLabels:
    """`labels` and `scores` of each row: one for each of its tokens, special tokens included."""

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    def __call__(self, outputs: dict[str, Any]) -> dict[str, Any]:
        labels: list[list[str]] = []
        scores: list[list[float]] = []
        for logits in outputs["logits"]:
            score, best = logits.float().softmax(-1).max(-1)
            labels.append([self.labels[i] for i in best.tolist()])
            scores.append(score.tolist())
        return {"labels": labels, "scores": scores}
