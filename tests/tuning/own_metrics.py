"""Functions as a user writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

LIMIT = 3


def accuracy(predictions: dict[str, Any], labels: Any) -> float:
    return float((predictions["x"].argmax(1) == labels).mean())


def right(predictions: dict[str, Any], labels: Any) -> Any:
    return predictions["x"].argmax(1) == labels


def loss(predictions: dict[str, Any], labels: Any) -> Any:
    return np.abs(predictions["x"]).mean(1)


def raises(predictions: dict[str, Any], labels: Any) -> float:
    raise KeyError("y")


def leaves(predictions: dict[str, Any], labels: Any) -> float:
    raise SystemExit(3)


def text(predictions: dict[str, Any], labels: Any) -> str:
    return "good"


def too_many(predictions: dict[str, Any], labels: Any) -> Any:
    return predictions["x"]


def nothing(predictions: dict[str, Any], labels: Any) -> float:
    return float("nan")
