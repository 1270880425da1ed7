"""What layers want of the tensors that reach them: dtype, rank, sizes, and where the batch is.

`Watch` follows the inputs of a pass through it and stops at the first layer that cannot take what
came. It sees the functions of torch that are called (`F.linear`, `x @ weight`), and the modules
that check before they call one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.probing.subjects import subject
from forwardpass.recording.passes import Pass
from forwardpass.tensors.dtypes import NAMES

_SPACE = {1: ("time",), 2: ("height", "width"), 3: ("depth", "height", "width")}


@dataclass(frozen=True)
class Want:
    """What a layer wants of one tensor.

    Attributes:
        layer: what wants it, to tell one from another.
        dtype: in the notation, such as `f32`; empty for any.
        rank: how many axes; 0 for any.
        sizes: of axes, by their place, often from the end.
        batch: the place of the batch axis, where the layer says.
        below: whole numbers must be at least 0 and below this.
        names: of axes, by their place from the end.
        given: whether this is wanted only of an input itself, not of what is made of one.
    """

    layer: int
    dtype: str = ""
    rank: int = 0
    sizes: Mapping[int, int] = field(default_factory=dict[int, int])
    batch: int | None = None
    below: int | None = None
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    given: bool = False


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


class Watch(TorchFunctionMode):
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

    def __enter__(self) -> Watch:
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
        for tensor, want in _of_function(func, args, kwargs):
            self._meet(tensor, want)
        result = func(*args, **kwargs)
        for made in tree_leaves(result):
            if isinstance(made, torch.Tensor):
                self._sources[made] = sources | self._sources.get(made, frozenset())
        return result

    def called(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module is about to be called. Its hooks see positional arguments alone."""
        if threading.get_ident() == self._thread:
            for tensor, want in _of_module(module, args):
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


# -- functions -----------------------------------------------------------------------------------

Wants = Iterator[tuple[Any, Want]]


def _of_function(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Wants:
    rule = _RULES.get(func)
    if rule is not None:
        try:
            yield from rule(*args, **kwargs)
        except (TypeError, AttributeError, IndexError):
            return  # called in a form of its own: torch will say whether that is right
    elif getattr(func, "__name__", "") in _BROADCAST and len(args) > 1:
        yield from _broadcast(args[0], args[1])
        yield from _broadcast(args[1], args[0])


def _linear(input: Any, weight: Any, *rest: Any, **more: Any) -> Wants:
    yield input, Want(id(weight), NAMES.get(weight.dtype, ""), sizes={-1: weight.shape[1]})


def _bilinear(input1: Any, input2: Any, weight: Any, *rest: Any, **more: Any) -> Wants:
    yield input1, Want(id(weight), NAMES[weight.dtype], sizes={-1: weight.shape[1]})
    yield input2, Want(-id(weight), NAMES[weight.dtype], sizes={-1: weight.shape[2]})


def _embedding(input: Any, weight: Any, *rest: Any, **more: Any) -> Wants:
    if not input.dtype.is_floating_point and weight.dtype.is_floating_point:
        yield input, Want(id(weight), "i64", below=weight.shape[0], names={-1: "tokens"})
    elif weight.dtype in (torch.int64, torch.int32):  # torch.embedding has them the other way round
        yield weight, Want(id(input), "i64", below=input.shape[0], names={-1: "tokens"})
    else:
        yield input, Want(id(weight), "i64")


def _matmul(a: Any, b: Any, *rest: Any, **more: Any) -> Wants:
    if isinstance(b, nn.Parameter) and b.dim() >= 1:
        size = b.shape[-2] if b.dim() > 1 else b.shape[0]
        yield a, Want(id(b), NAMES.get(b.dtype, ""), sizes={-1: size})
    elif isinstance(a, nn.Parameter) and a.dim() >= 1:
        place = -2 if b.dim() > 1 else -1
        yield b, Want(id(a), NAMES.get(a.dtype, ""), sizes={place: a.shape[-1]})


def _rmatmul(b: Any, a: Any) -> Wants:
    return _matmul(a, b)


def _convolution(k: int, *, transposed: bool = False) -> Callable[..., Wants]:
    def rule(
        input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
        *rest: Any, groups: int | None = None, **more: Any,
    ) -> Wants:  # fmt: skip
        place = 2 if transposed else 1
        groups = rest[place] if groups is None and len(rest) > place else groups or 1
        channels = weight.shape[0] if transposed else weight.shape[1] * groups
        names = dict(zip(range(-k, 0), _SPACE[k], strict=True))
        yield (
            input,
            Want(
                id(weight), NAMES.get(weight.dtype, ""), k + 2, {1: channels}, batch=0, names=names
            ),
        )

    return rule


def _layer_norm(input: Any, normalized_shape: Any, *rest: Any, **more: Any) -> Wants:
    shape = tuple(normalized_shape)
    weight = rest[0] if rest else more.get("weight")
    layer = hash((id(weight), shape))
    yield input, Want(layer, sizes={i - len(shape): size for i, size in enumerate(shape)})


def _group_norm(input: Any, groups: int, weight: Any = None, *rest: Any, **more: Any) -> Wants:
    if weight is not None:
        yield input, Want(id(weight), sizes={1: weight.numel()})


def _attention(query: Any, key: Any, value: Any, width: int, *rest: Any, **more: Any) -> Wants:
    yield query, Want(id(rest[1]), sizes={-1: width})
    if not more.get("use_separate_proj_weight"):
        yield key, Want(id(rest[1]) + 1, sizes={-1: width})
    padding = more.get("key_padding_mask")
    if padding is not None:
        # As a float it would be added to the scores; code makes such a one of a mask.
        yield padding, Want(id(rest[1]) + 2, "bool", given=True)


def _mask(input: Any, mask: Any, *rest: Any, **more: Any) -> Wants:
    yield mask, Want(0, "bool")


def _condition(condition: Any, *rest: Any, **more: Any) -> Wants:
    yield condition, Want(0, "bool")


def _index(table: Any, index: Any, *rest: Any, **more: Any) -> Wants:
    if isinstance(index, torch.Tensor) and index.dtype != torch.bool:
        yield index, Want(id(table), "i64", below=table.shape[0])


def _taken_along(table: Any, dim: Any, index: Any, *rest: Any, **more: Any) -> Wants:
    yield index, Want(id(table), "i64", below=table.shape[dim])


def _one_hot(input: Any, classes: int = -1, *rest: Any, **more: Any) -> Wants:
    classes = more.get("num_classes", classes)
    yield input, Want(0, "i64", below=None if classes < 0 else classes)


_BROADCAST = {"add", "sub", "mul", "div", "__add__", "__radd__", "__mul__", "__rmul__", "__sub__",
              "__rsub__", "__truediv__", "add_", "mul_"}  # fmt: skip


def _broadcast(input: Any, constant: Any) -> Wants:
    """Sizes of what a parameter or buffer is added to, or multiplied with."""
    if isinstance(constant, nn.Parameter) and isinstance(input, torch.Tensor):
        sizes = {
            place: constant.shape[place]
            for place in range(-constant.dim(), 0)
            if constant.shape[place] != 1 and input.dim() >= -place and input.shape[place] != 1
        }
        if sizes:
            yield input, Want(id(constant), sizes=sizes)


_RULES: dict[Any, Callable[..., Wants]] = {
    F.linear: _linear,
    F.bilinear: _bilinear,
    F.embedding: _embedding,
    torch.embedding: _embedding,
    F.embedding_bag: _embedding,
    torch.matmul: _matmul,
    torch.mm: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.Tensor.mm: _matmul,
    torch.Tensor.__matmul__: _matmul,
    torch.Tensor.__rmatmul__: _rmatmul,
    F.conv1d: _convolution(1),
    F.conv2d: _convolution(2),
    F.conv3d: _convolution(3),
    F.conv_transpose1d: _convolution(1, transposed=True),
    F.conv_transpose2d: _convolution(2, transposed=True),
    F.conv_transpose3d: _convolution(3, transposed=True),
    F.layer_norm: _layer_norm,
    F.rms_norm: _layer_norm,
    F.group_norm: _group_norm,
    F.multi_head_attention_forward: _attention,
    torch.Tensor.masked_fill: _mask,
    torch.Tensor.masked_fill_: _mask,
    torch.masked_fill: _mask,
    torch.where: _condition,
    torch.Tensor.__invert__: _condition,
    torch.Tensor.__getitem__: _index,
    torch.gather: _taken_along,
    torch.Tensor.gather: _taken_along,
    torch.index_select: _taken_along,
    torch.Tensor.index_select: _taken_along,
    F.one_hot: _one_hot,
}

# -- modules -------------------------------------------------------------------------------------

_DIMENSIONS = re.compile(r"([123])d$")


def _of_module(module: nn.Module, args: tuple[Any, ...]) -> Wants:
    tensors = [value for value in args if isinstance(value, torch.Tensor)]
    want = taken(module)
    if want is None or not tensors or tensors[0] is not args[0]:
        return
    yield tensors[0], want
    if isinstance(module, (nn.Transformer, nn.TransformerDecoderLayer)) and len(tensors) > 1:
        yield tensors[1], want


def taken(module: nn.Module) -> Want | None:
    """What a layer of torch.nn says of its first argument, or None."""
    dtype = next((NAMES.get(p.dtype, "") for p in module._parameters.values() if p is not None), "")  # pyright: ignore[reportPrivateUsage]
    layer = id(module)
    match module:
        case nn.RNNBase():
            return Want(
                layer, dtype, 3, {-1: module.input_size}, 0 if module.batch_first else 1,
                names={-2 if module.batch_first else -3: "time"},
            )  # fmt: skip
        case nn.RNNCellBase():
            return Want(layer, dtype, 2, {-1: module.input_size}, 0)
        case nn.MultiheadAttention():
            return _sequence(layer, dtype, module.embed_dim, first=module.batch_first)
        case nn.TransformerEncoderLayer() | nn.TransformerDecoderLayer():
            attention = module.self_attn
            return _sequence(layer, "", attention.embed_dim, first=attention.batch_first)
        case nn.Transformer():
            return _sequence(layer, "", module.d_model, first=module.batch_first)
        case nn.Linear():
            return Want(layer, dtype, 0, {-1: module.in_features})
        case nn.Embedding() | nn.EmbeddingBag():
            return Want(layer, "i64", 0)
        case _:
            pass
    found = _DIMENSIONS.search(type(module).__name__)
    if found is None or not type(module).__module__.startswith("torch.nn."):
        return None
    k = int(found[1])
    channels = getattr(module, "in_channels", getattr(module, "num_features", None))
    flat = isinstance(module, nn.BatchNorm1d)
    return Want(
        layer, dtype, 0 if flat else k + 2,
        {} if not isinstance(channels, int) or not channels else {1: channels},
        None if flat else 0,
        names={} if flat else dict(zip(range(-k, 0), _SPACE[k], strict=True)),
    )  # fmt: skip


def _sequence(layer: int, dtype: str, width: int, *, first: bool) -> Want:
    return Want(
        layer, dtype, 3, {-1: width}, 0 if first else 1, names={-2 if first else -3: "time"}
    )


# -- passes --------------------------------------------------------------------------------------


@contextmanager
def staged(
    module: nn.Module, inputs: Mapping[str, torch.Tensor]
) -> Generator[tuple[dict[str, torch.Tensor], Callable[[], Any]]]:
    """Copies of the inputs by path, and what makes a pass with them, in eval mode.

    The module is left as it was.
    """
    called = subject(Forward(Model(module)), inputs)
    this = Pass.of(
        module, called.arguments, called.keywords,
        grad="inference", mode="eval", renamed=called.renamed,
    )  # fmt: skip
    with this.staged() as (_, args, kwargs):
        yield this.named(args, kwargs), lambda: module(*args, **kwargs)


def tables(module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Below what the whole numbers of each input must be, by the tables that they look up.

    `inputs` are zeros. Empty where no pass goes through: that pass is not ours to judge.
    """
    with staged(module, inputs) as (mine, passed):
        watch = Watch(mine, -1)
        try:
            with watch:
                passed()
        except (Unmet, Exception):  # noqa: BLE001 - forward may raise anything on zeros
            return {}
    return bounds(watch)


def bounds(watch: Watch) -> dict[str, int]:
    """The fewest rows of the tables that each input looks up, less what code adds to its zeros."""
    found: dict[str, int] = {}
    for sources, _, want, most in watch.met:
        for path in sources if want.below is not None else ():
            rows = (want.below or 0) - most
            found[path] = min(found.get(path, rows), rows)
    return found
