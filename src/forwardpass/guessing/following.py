"""Inputs followed through a pass: the layers that they reach, and the calls that refuse them."""

from __future__ import annotations

import re
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from forwardpass.guessing.asking import Refused, Wanted
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.probing.calling import called
from forwardpass.recording.doorway import MODULE_CALLS, Calling
from forwardpass.recording.passes import Pass
from forwardpass.tensors.dtypes import NAMES
from forwardpass.tensors.modules import buffers_of, parameters_of

Sources = frozenset[str]
_SPACE = {1: ("time",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_CONVOLUTION = re.compile(r"conv(?:_transpose)?([123])d$")


class Met(NamedTuple):
    """A layer took what is made of these inputs.

    Attributes:
        names: what the layer calls the axes of what reached it, by their place from the end.
        below: rows of the table that whole numbers look up, or None.
        most: the largest of these whole numbers.
    """

    sources: Sources
    shape: tuple[int, ...]
    names: Mapping[int, str] = {}
    below: int | None = None
    most: int = 0


class Answer(NamedTuple):
    """What a call wants in the place of a tensor that is made of these inputs."""

    sources: Sources
    shape: tuple[int, ...]
    dtype: str
    wanted: Wanted

    def __str__(self) -> str:
        return f"a layer wants {self.wanted}, and got {self.dtype} {list(self.shape)}"


class Unmet(BaseException):
    """A call would go on with what is not meant. No Exception: forward may catch those."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer))
        self.answer = answer


class NoTensor(BaseException):
    """An input is used as no tensor is. No Exception: forward may catch those."""


class Following(TorchFunctionMode):
    """Follows inputs through a pass.

    Attributes:
        met: what was reached, in order.
        calls: how many took what is made of the inputs.
        graphs: inputs whose own numbers are places of rows in the batch.
        keyed: the inputs that were asked for a member by its name, and the name.
        unpacked: the input whose rows were taken apart last.
    """

    def __init__(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.met: list[Met] = []
        self.calls = 0
        self.graphs: set[str] = set()
        self.keyed: tuple[str, str] | None = None
        self.unpacked: str | None = None
        self._refused: list[Refused] = []
        self._inputs = {id(tensor): path for path, tensor in inputs.items()}
        self._memory = {_memory(tensor) for tensor in inputs.values()}
        self._sources: MutableMapping[torch.Tensor, Sources] = WeakIdKeyDictionary()
        self._state: MutableMapping[torch.Tensor, bool] = WeakIdKeyDictionary()
        self._entered = ExitStack()
        for path, tensor in inputs.items():
            self._sources[tensor] = frozenset((path,))
        for held in (parameters_of(module), buffers_of(module)):
            self._state.update((tensor, True) for _, tensor in held)

    def __enter__(self) -> Following:
        self._entered.enter_context(MODULE_CALLS.visited(self._around))
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._entered.close()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        sources = self._of((args, kwargs))
        if not sources:
            result = func(*args, **kwargs)
            if any(True for _ in self._weights((args, kwargs))):
                self._state.update((made, True) for made in _tensors(result))
            return result
        self._looked_into(func, args)
        self._meant(func, args, kwargs)
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            weights = tuple(self._weights((args, kwargs)))
            self._refused.append(Refused(func, tuple(args), kwargs, error, weights))
            raise
        self.calls += 1
        found = _CONVOLUTION.match(getattr(func, "__name__", ""))
        if found:
            names = dict(zip(range(-int(found[1]), 0), _SPACE[int(found[1])], strict=True))
            self.met.append(Met(self._of(args[0]), tuple(args[0].shape), names))
        for made in _tensors(result):
            self._sources[made] = sources | self._sources.get(made, frozenset())
        return result

    def answers(self, error: Exception | None) -> Iterator[Answer]:
        """What the calls that raised this error want: the innermost first, then those around it."""
        refused = [refused for refused in self._refused if refused.error is error]
        yield from self._asked(Refused.wants, refused)
        if refused and isinstance(refused[0].called, nn.Module):  # no function: code of its own
            yield from self._asked(Refused.nearer, reversed(refused))

    def _asked(
        self,
        how: Callable[[Refused, list[torch.Tensor]], Iterator[Wanted]],
        refused: Iterable[Refused],
    ) -> Iterator[Answer]:
        for this in refused:
            found = [tensor for tensor in _tensors((this.args, this.kwargs)) if self._of(tensor)]
            alike = [[t for t in found if t.shape == tensor.shape] for tensor in found]
            groups = [[tensor] for tensor in found] + [group for group in alike if len(group) > 1]
            for group in groups:
                for wanted in how(this, group):
                    yield _answer(self._of(group), group[0], wanted)

    def _around(self, beneath: Calling) -> Calling:
        def call(caller: FrameType, module: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
            names = _names(module)
            first = next(
                (v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None
            )
            if names and first is not None:
                self.met.append(Met(self._of(first), tuple(first.shape), names))
            try:
                return beneath(caller, module, args, kwargs)
            except Exception as error:
                if self._of((args, kwargs)):
                    self._refused.append(Refused(module, args, kwargs, error))
                raise

        return call

    def _of(self, tree: Any) -> Sources:
        found = Sources()
        for tensor in _tensors(tree):
            found |= self._sources.get(tensor, frozenset())
        return found

    def _weights(self, tree: Any) -> Iterator[torch.Tensor]:
        """The parameters and buffers in a tree, and what was made of such alone."""
        return (tensor for tensor in _tensors(tree) if tensor in self._state)

    def _looked_into(self, func: Any, args: Sequence[Any]) -> None:
        """Note where an input is used as a dict or a tuple is."""
        path = self._inputs.get(id(args[0])) if args else None
        if func in (torch.Tensor.__eq__, torch.Tensor.__ne__) and isinstance(args[1], str):
            raise NoTensor(f"{', '.join(self._of(args[0]))} is compared with the text {args[1]!r}")
        if path is not None and func is torch.Tensor.__getitem__ and isinstance(args[1], str):
            self.keyed = (path, args[1])
        self.unpacked = path if func in (torch.Tensor.unbind, torch.Tensor.__iter__) else None

    def _meant(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise Unmet where a call takes what is not meant, and note the tables that are used."""
        try:
            meant = list(_meant(func, args, kwargs))
        except (IndexError, TypeError, AttributeError):
            return  # called in a form of its own: torch will say whether that is right
        for tensor, wanted, rows, table in meant:
            sources = self._of(tensor)
            if not sources:
                continue
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
                if wanted.length:
                    wrong = not bool((tensor == wanted.length).all())
                elif wanted.dtype == "bool":
                    # As a float it would be added to the scores; code makes such a one of a mask.
                    wrong = id(tensor) in self._inputs and tensor.dtype != torch.bool
                else:
                    wrong = tensor.is_floating_point()
                if wrong:
                    raise Unmet(_answer(sources, tensor, wanted))
                if rows is None or tensor.dtype == torch.bool:
                    continue
                if _memory(tensor) in self._memory and self._of(table):
                    self.graphs |= sources
                # An input of zeros shows what code adds before it looks a row up.
                most = int(tensor.max()) if tensor.numel() else 0
            names = {-1: "tokens"} if isinstance(table, nn.Parameter) else {}
            self.met.append(Met(sources, tuple(tensor.shape), names, rows, most))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _answer(sources: Sources, tensor: torch.Tensor, wanted: Wanted) -> Answer:
    return Answer(sources, tuple(tensor.shape), NAMES.get(tensor.dtype, ""), wanted)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


_WHOLE, _MASK = Wanted("i64"), Wanted("bool")
Meant = tuple[Any, Wanted, int | None, torch.Tensor | None]


def _meant(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Meant]:
    """What a call means by its arguments although it would take others: numbers of rows, how many
    there are, and the table whose first axis they are on; a mask; lengths."""
    if func in (F.embedding, torch.embedding, F.embedding_bag):
        index, table = args[:2]
        if index.is_floating_point() and not table.is_floating_point():
            index, table = table, index  # torch.embedding has them the other way round
        yield index, _WHOLE, table.shape[0], table
    elif func is torch.Tensor.__getitem__ and isinstance(args[1], torch.Tensor):
        yield args[1], _WHOLE, args[0].shape[0], args[0]
    elif func in (torch.gather, torch.Tensor.gather, torch.index_select, torch.Tensor.index_select):
        dim = kwargs.get("dim", args[1])
        table = args[0] if dim == 0 else None
        yield kwargs.get("index", args[-1]), _WHOLE, args[0].shape[dim], table
    elif func is F.one_hot:
        classes = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
        yield args[0], _WHOLE, None if classes < 0 else classes, None
    elif func is F.multi_head_attention_forward:
        yield kwargs.get("key_padding_mask"), _MASK, None, None
    elif getattr(func, "__name__", "") == "_pack_padded_sequence":
        input, lengths, batch_first = args
        yield lengths, Wanted("i64", length=input.shape[1 if batch_first else 0]), None, None


def _names(module: Any) -> Mapping[int, str]:
    """What layers of sequences call the axis of their steps, by its place."""
    if isinstance(module, nn.RNNBase | nn.Transformer | nn.MultiheadAttention):
        first = module.batch_first
    elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        first = module.self_attn.batch_first
    else:
        return {}
    return {-2 if first else -3: "time"}


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
        watch = Following(module, mine)
        try:
            with watch:
                passed()
        except (Unmet, NoTensor, Exception):  # noqa: BLE001 - forward may raise anything on zeros
            return {}
    return bounds(watch.met)


def bounds(met: Sequence[Met]) -> dict[str, int]:
    """The fewest rows of the tables that each input looks up, less what code adds to its zeros."""
    found: dict[str, int] = {}
    for sources, _, _, below, most in met:
        for path in sources if below is not None else ():
            rows = (below or 0) - most
            found[path] = min(found.get(path, rows), rows)
    return found
