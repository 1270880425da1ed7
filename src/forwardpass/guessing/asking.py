"""A call that raised on what reached it is asked what it would have taken, by calling it again.

No layer is known by name: the sizes that are tried are those that the call itself holds, the
weights and numbers that it was given, and those that its error names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from forwardpass.guessing.forms import CELLS, ROWS
from forwardpass.tensors.dtypes import NAMES, TORCH
from forwardpass.tensors.modules import attributes, store_of

_APART = (17, 19, 23, 29, 31)
_DEEP = 4
"""Changes at once of what a function gets: two axes more, with a size, and another dtype."""
_WORK = 2**22
"""Elements that are computed with to ask one call, about; a call counts as a few thousand."""
_RANKS = range(1, 6)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Wanted:
    """What a call takes in the place of a tensor that it refused.

    Attributes:
        dtype: in the notation; empty: as it is.
        more: axes that are lacking; negative: too many.
        sizes: of axes by their place.
        of: what says the sizes: weights (or words), numbers alone, which may follow from sizes of
            the inputs, or another tensor.
        length: it is the lengths of rows along an axis of this size; 0: it is not.
    """

    dtype: str = ""
    more: int = 0
    sizes: Mapping[int, int] = field(default_factory=dict[int, int])
    of: Literal["weights", "numbers", "other"] = "weights"
    length: int = 0

    @property
    def is_size(self) -> bool:
        """Whether nothing is wrong but sizes."""
        return bool(self.sizes) and not self.dtype and not self.more

    def __str__(self) -> str:
        sizes = ", ".join(f"{size} along axis {place}" for place, size in self.sizes.items())
        axes = f"{abs(self.more)} {'more' if self.more > 0 else 'fewer'} axes" if self.more else ""
        return ", ".join(part for part in (self.dtype, axes, sizes) if part) or "another form"


@dataclass(frozen=True, eq=False)
class Refused:
    """A call of a function or module that raised; of its arguments, `weights` are the module's."""

    called: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    error: Exception
    weights: tuple[torch.Tensor, ...] = ()

    def wants(self, tensors: Sequence[torch.Tensor]) -> Iterator[Wanted]:
        """What the call would have taken in the place of these tensors of one form: what is
        nearest to it."""
        tensor = tensors[0]
        work = nearest = 0
        for cost, wanted in self._tries(tensor):
            if nearest and cost > nearest:
                return
            cells = math.prod(_shape(tensor, wanted))
            if cells > CELLS:
                continue
            work += 2**12 + cells
            if work > _WORK:
                return
            if self._raised(tensors, wanted) is None:
                nearest = cost
                yield wanted

    def nearer(self, tensors: Sequence[torch.Tensor]) -> Iterator[Wanted]:
        """What the words of the error ask for, where the call gets further with it."""
        tensor = tensors[0]
        said = [int(number) for number in _NUMBER.findall(str(self.error)) if len(number) < 6]
        came = list(tensor.shape)
        ours = [place for place, n in enumerate(came) if n in said and n != ROWS]
        others = list(dict.fromkeys(n for n in said if n > 0 and n not in came))
        wants = [Wanted(more=n - len(came)) for n in said if n in _RANKS and n != len(came)]
        for places in dict.fromkeys([*((place,) for place in ours), tuple(ours)]):
            wants += [Wanted(sizes=dict.fromkeys(places, n)) for n in others if places]
        for wanted in wants:
            if math.prod(_shape(tensor, wanted)) > CELLS:
                continue
            error = self._raised(tensors, wanted)
            if error is None or _wording(error) != _wording(self.error):
                yield wanted

    def _tries(self, tensor: torch.Tensor) -> Iterator[tuple[int, Wanted]]:
        """Other tensors, with how many changes lead to each."""
        own, sizes, of = self._at_hand(tensor)
        deep = _DEEP if not isinstance(self.called, nn.Module) else 1
        for cost in range(1, deep + 1):
            for dtype, more in product(("", *own), (0, 1, -1, 2, 3)):
                left = cost - bool(dtype) - abs(more)
                if left >= 0 and tensor.dim() + more >= 0:
                    came = _grown(tensor.shape, more)
                    for changes in _changes(came, sizes, left):
                        yield cost, Wanted(dtype, more, changes, of)

    def _at_hand(self, tensor: torch.Tensor) -> tuple[list[str], list[int], Any]:
        """Dtypes and sizes that the call holds beside the tensor, and what says the sizes."""
        leaves, weights = tree_leaves((self.args, dict(self.kwargs))), list(self.weights)
        if isinstance(self.called, nn.Module):
            leaves += [v for v in attributes(self.called).values() if isinstance(v, int)]
            weights += [p for p in store_of(self.called, "_parameters").values() if p is not None]
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf is not tensor]
        numbers = [n for n in leaves if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        pairs = [a * b for a, b in combinations(numbers, 2)] if len(numbers) < 9 else []
        sizes = [n for t in (*weights, *tensors) for n in t.shape] + numbers + pairs
        dtypes = [*(t.dtype for t in weights), torch.bool, torch.int64]
        if not tensor.is_floating_point():
            dtypes.append(torch.float32)
        names = dict.fromkeys(NAMES[d] for d in dtypes if d in NAMES and d != tensor.dtype)
        told = weights or isinstance(self.called, nn.Module)
        of = "weights" if told else "other" if tensors else "numbers"
        known = sorted(dict.fromkeys(n for n in sizes if 0 < n < 2**16), key=lambda n: n == 1)
        return list(names), known, of  # an axis of 1 is taken by much that does not mean it

    def _raised(self, tensors: Sequence[torch.Tensor], wanted: Wanted) -> Exception | None:
        """What the call raises with what is wanted in the place of the tensors."""
        tensor, replaced = tensors[0], {id(tensor) for tensor in tensors}
        dtype = TORCH[wanted.dtype] if wanted.dtype else tensor.dtype
        instead = torch.zeros(_shape(tensor, wanted), dtype=dtype, device=tensor.device)

        def other(leaf: torch.Tensor) -> torch.Tensor:
            return instead if id(leaf) in replaced else leaf

        args, kwargs = tree_map_only(torch.Tensor, other, (self.args, dict(self.kwargs)))
        try:
            self.called(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it did not take this
            return error
        return None


def _shape(tensor: torch.Tensor, wanted: Wanted) -> list[int]:
    shape = _grown(tensor.shape, wanted.more)
    for place, size in wanted.sizes.items():
        shape[place] = size
    return shape


def _grown(shape: Sequence[int], more: int) -> list[int]:
    if more < 0:
        return list(shape)[:more]
    return [*shape, *(n for n in _APART if n not in shape)][: len(shape) + more]


def _changes(shape: list[int], sizes: list[int], number: int) -> Iterator[dict[int, int]]:
    """The sizes that `number` axes may get, those of the rows excepted."""
    rows = shape.index(ROWS) if ROWS in shape else -1
    places = [place for place in range(len(shape)) if place != rows]
    if number == 0:
        yield {}
    elif number == 1:
        for place, size in product(places, sizes):
            if shape[place] != size:
                yield {place: size}
        if len(places) > 1:
            yield from (dict.fromkeys(places, size) for size in sizes)
    elif number == 2:
        for (a, b), (x, y) in product(combinations(places, 2), product(sizes, sizes)):
            yield {a: x, b: y}


def _wording(error: Exception) -> str:
    return _NUMBER.sub("", f"{type(error).__name__}{error}")
