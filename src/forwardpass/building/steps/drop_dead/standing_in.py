"""Standing in: a part that gives tensors as large as those of another, and computes none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from forwardpass.building.steps._parts import keep_attributes
from forwardpass.building.steps.drop_dead.shapes import Size, size_of
from forwardpass.recording.doorway import Calling, calls_visited
from forwardpass.recording.passes import Pass
from forwardpass.tensors.modules import parts_of

_PLAIN = (bool, int, float, str, type(None))


class Untold(Exception):
    """Why what a part gives cannot be told, as it goes on after "whose"."""


class Handed(NamedTuple):
    """A result that is one of the tensors that were given, by its place among these."""

    place: int

    def made(self, given: Sequence[torch.Tensor], sizes: Sequence[int]) -> torch.Tensor:
        return given[self.place]


class Zeros(NamedTuple):
    """A result of its own: zeros of these sizes."""

    sizes: tuple[Size, ...]
    dtype: torch.dtype
    device: torch.device

    def made(self, given: Sequence[torch.Tensor], sizes: Sequence[int]) -> torch.Tensor:
        shape = [size.of(sizes) for size in self.sizes]
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


class Same(NamedTuple):
    """What is no tensor, and always the same."""

    value: Any

    def made(self, given: Sequence[torch.Tensor], sizes: Sequence[int]) -> Any:
        return self.value


class StandIn(nn.Module):
    """Gives what a part gave, in the same structure: zeros where that were results of its own."""

    def __init__(self, was: nn.Module, template: tuple[Any, Sequence[Any]]) -> None:
        super().__init__()
        self._structure, self._results = template
        keep_attributes(self, was)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = _tensors((args, kwargs))
        sizes = [size for tensor in given for size in tensor.shape]
        made = [result.made(given, sizes) for result in self._results]
        return pytree.tree_unflatten(made, self._structure)


class Seen(NamedTuple):
    """What a part was given and gave in one call: the shapes of tensors, and of results what they
    are: the place of what was given, a tensor on meta, or a plain value."""

    given: tuple[torch.Size, ...]
    structure: Any
    results: tuple[Any, ...]


def seen(passes: Iterable[Pass], wanted: Collection[nn.Module]) -> dict[int, list[Seen]]:
    """What parts give while passes are made, by their id. A size that the module refuses tells
    nothing."""
    found: dict[int, list[Seen]] = defaultdict(list)
    ids = {id(part) for part in wanted}

    def around(beneath: Calling) -> Calling:
        def call(
            caller: FrameType, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            result = beneath(caller, module, args, kwargs)
            if id(module) in ids:
                found[id(module)].append(_noted((args, kwargs), result))
            return result

        return call

    for this in passes:
        kinds = {type(part) for _, part in parts_of(this.module)}
        with this.staged() as (_, args, kwargs), calls_visited(kinds, around), suppress(Exception):
            this.module(*args, **kwargs)
    return found


def _noted(arguments: Any, result: Any) -> Seen:
    given = _tensors(arguments)
    leaves, structure = pytree.tree_flatten(result)
    places = {id(tensor): place for place, tensor in reversed(list(enumerate(given)))}

    def noted(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf if isinstance(leaf, _PLAIN) else type(leaf)
        if id(leaf) in places:
            return Handed(places[id(leaf)])
        return Zeros(tuple(Size((), offset=n) for n in leaf.shape), leaf.dtype, leaf.device)

    return Seen(tuple(t.shape for t in given), structure, tuple(map(noted, leaves)))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def template(calls: Sequence[Seen]) -> tuple[Any, list[Any]]:
    """The structure of what a part gives, and its results. Raises Untold."""
    first = calls[0]
    ranks = {tuple(map(len, call.given)) for call in calls}
    if len(ranks) > 1 or any(call.structure != first.structure for call in calls):
        raise Untold("calls are not all of one form")
    given = [[size for shape in call.given for size in shape] for call in calls]
    return first.structure, [
        _result(given, column) for column in zip(*(call.results for call in calls), strict=True)
    ]


def _result(given: Sequence[Sequence[int]], results: Sequence[Any]) -> Any:
    first = results[0]
    if isinstance(first, Zeros):
        same = all(
            isinstance(r, Zeros)
            and (r.dtype, r.device, len(r.sizes)) == (first.dtype, first.device, len(first.sizes))
            for r in results
        )
        if not same:
            raise Untold("results are not of one form")
        columns = zip(*([size.offset for size in r.sizes] for r in results), strict=True)
        sizes = [size_of(given, column) for column in columns]
        if any(size is None for size in sizes):
            raise Untold("results have sizes that do not follow from what is given")
        return Zeros(tuple(size for size in sizes if size is not None), first.dtype, first.device)
    if any(result != first for result in results):
        raise Untold("results are not always the same")
    if isinstance(first, type):
        raise Untold(f"results are in a {first.__name__}, which cannot be made again")
    return first if isinstance(first, Handed) else Same(first)
