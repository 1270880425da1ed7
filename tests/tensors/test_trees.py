"""Named tensors and the nested values of a forward."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch

from forwardpass.errors import UsageError
from forwardpass.tensors.trees import flatten, nest

ONE, TWO = torch.zeros(1), torch.zeros(2)


@dataclass
class Scores:
    logits: torch.Tensor
    cache: object


def test_a_single_tensor_is_output_and_a_tuple_is_numbered() -> None:
    assert list(flatten(ONE)) == ["output"]
    assert list(flatten((ONE, None, TWO))) == ["output_0", "output_2"]


def test_mappings_dataclasses_and_named_tuples_go_by_name() -> None:
    pair = namedtuple("pair", "mean std")
    assert list(flatten({"a": ONE, "b": {"c": TWO, "d": "text"}})) == ["a", "b.c"]
    assert list(flatten(Scores(ONE, object()))) == ["logits"]
    assert list(flatten(pair(ONE, TWO))) == ["mean", "std"]
    assert list(flatten({"hidden": (ONE, [TWO])})) == ["hidden.0", "hidden.1.0"]


def test_what_is_no_tensor_is_left_out() -> None:
    assert flatten(None) == {}
    assert flatten({"loss": 0.5}) == {}


def test_paths_nest_into_arguments() -> None:
    args, kwargs = nest({"1": 2, "0": 1, "image.pixels": 3, "points.0": 4, "points.1": 5})
    assert args == (1, 2)
    assert kwargs == {"image": {"pixels": 3}, "points": [4, 5]}


@pytest.mark.parametrize("paths", [["1"], ["points.1"], ["0", "2"]])
def test_gaps_are_refused(paths: list[str]) -> None:
    with pytest.raises(UsageError):
        nest(dict.fromkeys(paths, 0))
