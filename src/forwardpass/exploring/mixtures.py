"""Mixtures: whether the output of half of one input and half of another is the mean of both."""

from __future__ import annotations

from typing import NamedTuple

import torch

from forwardpass.exploring.explorations import Exploration
from forwardpass.probing.changes import Change
from forwardpass.probing.edits import Edit
from forwardpass.tensors.arrays import spelled
from forwardpass.tensors.distances import tolerance


class Mixture(NamedTuple):
    """Two inputs and their mean.

    Attributes:
        second: by path, the other input. mean: ½a + ½b. words: what b is.
        why: there is no such input, in a sentence; empty where there is.
    """

    second: dict[str, torch.Tensor]
    mean: dict[str, torch.Tensor]
    words: str
    why: str = ""


class Residual(NamedTuple):
    """RMS of f(½a + ½b) − ½f(a) − ½f(b) ÷ RMS of the outputs; None where they are not finite.

    `rounding`: it is no more than rounding makes of an affine map.
    """

    value: float | None
    rounding: bool


def mixture(exploration: Exploration, row: int) -> Mixture:
    """The row with the next one that it can be mixed with, else with zeros."""
    first = exploration.probe((row,)).inputs
    mixed = [path for path, one in first.items() if _is_mixed(one)]
    if not mixed:
        kinds = ", ".join(f"{path} is {spelled(one)}" for path, one in first.items())
        return Mixture({}, {}, "", f"½a + ½b is no input: {kinds or 'no tensor goes in'}")
    for other in range(row + 1, row + exploration.count):
        there = exploration.probe((other % exploration.count,)).inputs
        alike = first.keys() == there.keys() and all(
            one.shape == there[path].shape and (path in mixed or torch.equal(one, there[path]))
            for path, one in first.items()
        )
        if alike:
            return _mixed(first, there, mixed, f"b is row {other % exploration.count}")
    zeros = {path: torch.zeros_like(one) if path in mixed else one for path, one in first.items()}
    return _mixed(first, zeros, mixed, "b is all zeros")


def residual_of(
    exploration: Exploration, row: int, mixed: Mixture, edits: tuple[Edit, ...] = ()
) -> Residual:
    """How far the model is from affine between these two. Raises PassError where a pass raises."""
    probe = exploration.probe((row,))
    a = probe.outputs(Change(edits=edits))
    b, between = (
        probe.outputs(Change(inputs=inputs, edits=edits)) for inputs in (mixed.second, mixed.mean)
    )
    off = size = count = 0.0
    dtypes: list[str] = []
    for path, one in a.items():
        if not _is_mixed(one):
            continue
        if (
            path not in b
            or path not in between
            or not one.shape == b[path].shape == between[path].shape
        ):
            return Residual(None, rounding=False)
        ends = [wide(one), wide(b[path])]
        middle = wide(between[path])
        off += float(((middle - (ends[0] + ends[1]) / 2).abs() ** 2).sum())
        size += sum(float((each.abs() ** 2).sum()) for each in (*ends, middle)) / 3
        count += one.numel()
        dtypes.append(spelled(one))
    if not count or not (off < float("inf") and size < float("inf")):
        return Residual(None, rounding=False)
    share = (off / size) ** 0.5 if size else 0.0
    return Residual(share, share <= tolerance(dtypes))


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In double precision."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _is_mixed(tensor: torch.Tensor) -> bool:
    plain = tensor.layout is torch.strided and not tensor.is_nested
    return plain and (tensor.is_floating_point() or tensor.is_complex())


def _mixed(
    first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], mixed: list[str], words: str
) -> Mixture:
    mean = {path: (first[path] + second[path]) / 2 for path in mixed}
    return Mixture({path: second[path] for path in mixed}, mean, words)
