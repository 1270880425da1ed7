"""The pass as people draw it, in one line.

x[4 64] ─▶ fc1: W[32 64]·x + b ─▶ relu ─▶ fc2: W[10 32]·x + b ─▶ y[4 10]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from forwardpass.nouns.calls import Call, ModuleCall, Value
from forwardpass.nouns.records import Layer, Record

_ARROW = " ─▶ "
_MOST = 10
_SILENT = {
    "lift_fresh", "detach", "detach_", "empty", "zeros", "ones", "full", "arange", "to", "clone",
    "_to_copy", "copy_", "contiguous", "scalar_tensor", "fill_", "zero_", "new_zeros", "empty_like",
}  # fmt: skip
_PLAIN = {
    "native_layer_norm": "layer_norm", "native_batch_norm": "batch_norm",
    "native_dropout": "dropout", "native_group_norm": "group_norm",
    "_softmax": "softmax", "_log_softmax": "log_softmax",
    "max_pool2d_with_indices": "max_pool2d", "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "mkldnn_rnn_layer": "rnn", "_transformer_encoder_layer_fwd": "encoder_layer", "mm": "@",
    "bmm": "@", "matmul": "@", "add": "+", "mul": "×", "sub": "−", "div": "÷", "add_": "+=",
    "_scaled_dot_product_flash_attention_for_cpu": "attention",
    "scaled_dot_product_attention": "attention", "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_efficient_attention": "attention",
}  # fmt: skip


def drawn(record: Record) -> str:
    """The first line of a record, folded for long models."""
    ends = [_named(record, path, serial) for path, serial in record.inputs.items()]
    inputs = ", ".join(_folded(ends, 3)) or "nothing"
    outputs = [
        _named(record, "y" if path == "output" else path, serial)
        for path, serial in record.outputs.items()
    ]
    steps = list(_calls(record, record.calls, {layer.affine: layer for layer in record.layers}))
    if len(steps) > _MOST:
        steps = _blocks(record)
    end = ", ".join(_folded(outputs, 3)) or ("✗" if record.failed else "nothing")
    return _ARROW.join([inputs, *_folded(steps, _MOST), end])


def _named(record: Record, path: str, serial: int) -> str:
    return f"{path}[{sizes(record.values[serial])}]"


def sizes(value: Value) -> str:
    """The shape of a value; of a nested tensor the number of samples and their lengths."""
    if value.nested is None:
        return " ".join(map(str, value.shape))
    lengths = [shape[0] for shape in value.nested if shape]
    return f"{len(value.nested)} × {min(lengths, default=0)}…{max(lengths, default=0)}"


def _calls(record: Record, calls: Sequence[Call], layers: dict[int, Layer]) -> Iterator[str]:
    """What each call does: a layer as W·x + b, other work by its name; views are left out."""
    shapes = {p.name: p.shape for p in record.parameters}
    for call in calls:
        if call.kind in ("view", "host") or call.short in _SILENT:
            continue
        layer = layers.get(call.index)
        if layer is None:
            yield _PLAIN.get(call.short, call.short.strip("_"))
            continue
        shape = " ".join(map(str, shapes.get(layer.weight, ())))
        times = "∗" if "conv" in call.short else "·"
        bias = " + b" if layer.bias else ""
        yield f"{layer.module or 'W'}: W[{shape}]{times}x{bias}"


def _blocks(record: Record) -> list[str]:
    """The pass by the modules that were called, at the first depth that has more than one."""
    layers = {layer.affine: layer for layer in record.layers}
    parent = 0
    while True:
        children = [m for m in enumerate(record.modules) if m[1].parent == parent]
        if len(children) != 1:
            break
        parent = children[0][0]
    steps: list[tuple[str, ModuleCall | None]] = []
    at = record.modules[parent].first if record.modules else 0
    stop = record.modules[parent].stop if record.modules else 0
    for _, child in children:
        own = record.calls[at : child.first]
        steps += [(text, None) for text in _calls(record, own, layers)]
        steps.append((child.kind, child))
        at = max(at, child.stop)
    steps += [(text, None) for text in _calls(record, record.calls[at:stop], layers)]
    found: list[str] = []
    for (kind, is_module), group in groupby(steps, key=lambda s: (s[0], s[1] is not None)):
        members = list(group)
        first, last = members[0][1], members[-1][1]
        if not is_module or first is None or last is None:
            found.append(kind if len(members) == 1 else f"{len(members)} × {kind}")
        elif len(members) == 1:
            found.append(f"{first.path}: {kind}")
        else:
            found.append(f"{first.path}…{last.path.rpartition('.')[2]}: {len(members)} × {kind}")
    return found


def _folded(items: list[str], most: int) -> list[str]:
    """Not more than `most` items: the middle becomes an ellipsis that says how many."""
    if len(items) <= most:
        return items
    head = most // 2
    tail = most - head - 1
    return [*items[:head], f"… {len(items) - head - tail} more …", *items[len(items) - tail :]]
