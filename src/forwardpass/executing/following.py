"""Inputs that are followed through a pass, up to the first layer that cannot take what came.

A `Following` sees the functions of torch that are called (`F.linear`, `x @ weight`), and the
modules that check what they get before they call one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from forwardpass.executing.wanting import Want, of_function, of_module
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.probing.calling import called
from forwardpass.recording.passes import Pass
from forwardpass.tensors.dtypes import NAMES


class Unmet(BaseException):
    """A tensor reached a layer that does not take it. No Exception: forward may catch those."""

    def __init__(self, sources: frozenset[str], tensor: torch.Tensor, want: Want) -> None:
        super().__init__(f"{list(tensor.shape)} {tensor.dtype} for {want}")
        self.sources = sources
        self.shape = tuple(tensor.shape)
        self.dtype = NAMES.get(tensor.dtype, "")
        self.want = want


class Met(NamedTuple):
    """A layer got what it wants: of which inputs, in what shape, and the largest whole number."""

    sources: frozenset[str]
    shape: tuple[int, ...]
    want: Want
    most: int


class Following(TorchFunctionMode):
    """Follows inputs through a pass, and raises Unmet at the first layer that cannot take them.

    Args:
        inputs: by path. Afterwards `met` holds the wants that were met.
        rows: size of the batch axis.
    """

    def __init__(self, inputs: Mapping[str, torch.Tensor], rows: int) -> None:
        super().__init__()
        self.met: list[Met] = []
        self._rows = rows
        self._inputs = {id(tensor) for tensor in inputs.values()}
        self._sources: MutableMapping[torch.Tensor, frozenset[str]] = WeakIdKeyDictionary()
        self._thread = threading.get_ident()
        self._hook: Any = None
        for path, tensor in inputs.items():
            self._sources[tensor] = frozenset((path,))

    def __enter__(self) -> Following:
        self._hook = nn.modules.module.register_module_forward_pre_hook(self.called)
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._hook.remove()
        super().__exit__(*raised)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        sources = self._of((args, kwargs))
        if not sources:
            return func(*args, **kwargs)
        for tensor, want in of_function(func, args, kwargs):
            self._meet(tensor, want)
        result = func(*args, **kwargs)
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor):
                self._sources[made] = sources | self._sources.get(made, frozenset())
        return result

    def called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module is about to be called. Its hooks see positional arguments alone."""
        if threading.get_ident() == self._thread:
            for tensor, want in of_module(module, args):
                self._meet(tensor, want)

    def _of(self, tree: Any) -> frozenset[str]:
        found = frozenset[str]()
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                found |= self._sources.get(leaf, frozenset())
        return found

    def _meet(self, tensor: Any, want: Want) -> None:
        sources = self._of(tensor)
        if not sources or (want.given and id(tensor) not in self._inputs):
            return
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            if not _takes(tensor, want, self._rows):
                raise Unmet(sources, tensor, want)
            # An input of zeros shows what code adds before it looks a row up.
            most = int(tensor.max()) if want.below is not None and tensor.numel() else 0
        self.met.append(Met(sources, tuple(tensor.shape), want, most))


def _takes(tensor: torch.Tensor, want: Want, rows: int) -> bool:
    if want.dtype and NAMES.get(tensor.dtype) not in _alike(want.dtype):
        return False
    if want.rank and tensor.dim() != want.rank:
        return False
    for place, size in want.sizes.items():
        if not -tensor.dim() <= place < tensor.dim() or tensor.shape[place] != size:
            return False
    if want.batch is not None and rows in tensor.shape and tensor.shape[want.batch] != rows:
        return False
    if want.below is None or not tensor.numel():
        return True
    return int(tensor.min()) >= 0 and int(tensor.max()) < want.below


def _alike(dtype: str) -> tuple[str, ...]:
    return ("i64", "i32", "i16", "i8", "u8") if dtype == "i64" else (dtype,)


@contextmanager
def staged(
    module: nn.Module, inputs: Mapping[str, torch.Tensor]
) -> Generator[tuple[dict[str, torch.Tensor], Callable[[], Any]]]:
    """Copies of the inputs by path, and what makes a pass with them, in eval mode.

    The module is left as it was.
    """
    call = called(Forward(Model(module)), inputs)
    this = Pass.of(
        module, call.arguments, call.keywords,
        grad="inference", mode="eval", renamed=call.renamed,
    )  # fmt: skip
    with this.staged() as (_, args, kwargs):
        yield this.named(args, kwargs), lambda: module(*args, **kwargs)


def tables(module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Below what the whole numbers of each input must be, by the tables that they look up.

    `inputs` are zeros. Empty where no pass goes through: that pass is not ours to judge.
    """
    with staged(module, inputs) as (mine, passed):
        watch = Following(mine, -1)
        try:
            with watch:
                passed()
        except (Unmet, Exception):  # noqa: BLE001 - forward may raise anything on zeros
            return {}
    return bounds(watch)


def bounds(watch: Following) -> dict[str, int]:
    """The fewest rows of the tables that each input looks up, less what code adds to its zeros."""
    found: dict[str, int] = {}
    for sources, _, want, most in watch.met:
        for path in sources if want.below is not None else ():
            rows = (want.below or 0) - most
            found[path] = min(found.get(path, rows), rows)
    return found
