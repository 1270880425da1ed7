"""What layers want of the tensors that reach them: dtype, rank, sizes, and where the batch is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

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


# -- functions -----------------------------------------------------------------------------------

Wants = Iterator[tuple[Any, Want]]


def of_function(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Wants:
    """What a call of a function of torch wants of its arguments."""
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


def of_module(module: nn.Module, args: tuple[Any, ...]) -> Wants:
    """What a module of torch.nn wants of the arguments that it is called with."""
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
