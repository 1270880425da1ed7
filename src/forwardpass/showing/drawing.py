"""The pass as people draw it, in one line.

x[4 64] ─▶ fc1: W[32 64]·x + b ─▶ relu ─▶ fc2: W[10 32]·x + b ─▶ y[4 10]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.records import Layer, Record
from forwardpass.operators import kinds

ARROW = " ─▶ "
_MOST = 10
"""Steps of a line that shows every call."""
_FEW = 7
"""Steps of a line that shows modules."""
_REAL = ("f", "bf", "c")
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
    return ARROW.join(pieces(record))


def pieces(record: Record) -> list[str]:
    """What the arrows of the first line stand between."""
    ends = [_named(record, path, serial) for path, serial in record.inputs.items()]
    inputs = ", ".join(_folded(ends, 3)) or "nothing"
    outputs = [
        _named(record, "y" if path == "output" else path, serial)
        for path, serial in record.outputs.items()
    ]
    steps = list(_calls(record, record.calls, {layer.affine: layer for layer in record.layers}))
    if len(steps) > _MOST and record.modules:
        steps = _blocks(record)
    end = ", ".join(_folded(outputs, 3)) or ("✗" if record.failed else "nothing")
    return [inputs, *_folded(steps, _MOST), end]


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
    for call in calls:
        if not _works(call):
            continue
        if call.kind == "host":
            yield f"{call.name}()"
            continue
        layer = layers.get(call.index)
        if layer is None:
            yield _PLAIN.get(call.short, call.short.strip("_"))
            continue
        held = record.held.get(layer.weight)
        shape = " ".join(map(str, held.shape if held is not None else ()))
        times = "∗" if "conv" in call.short else "·"
        bias = " + b" if layer.bias else ""
        yield f"{layer.module or 'W'}: W[{shape}]{times}x{bias}"


@dataclass
class _Drawn:
    """A piece of the pass: a module call, or what a call outside of one did."""

    said: str
    number: int = -1
    work: int = 0


def _works(call: Call) -> bool:
    """Whether a call is drawn: views, copies and constants are not, the way to NumPy is."""
    if call.kind == "host":
        return not call.is_operator
    made_up = call.kind == "compute" and (not call.inputs or kinds.reads_shape(call.short))
    copied = kinds.copies(call.short) or kinds.casts(call.short)
    written = kinds.bare(call.short) in ("copy", "fill", "zero")
    return call.kind != "view" and not (made_up or copied or written)


def _blocks(record: Record) -> list[str]:
    """The pass by the modules that were called.

    The largest module is opened as long as the line stays short: a wrapper says less than what is
    in it.
    """
    layers = {layer.affine: layer for layer in record.layers}
    children: dict[int, list[int]] = {}
    for number, entry in enumerate(record.modules):
        children.setdefault(entry.parent, []).append(number)
    working = [0, *accumulate(map(_works, record.calls))]
    opening = _Unfolding(record, layers, children, working)
    steps = opening.opened(0)
    while True:
        groups = list(_groups(record, steps))
        single = [group[0] for group in groups if len(group) == 1 and group[0].number in children]
        if not single:
            break
        largest = max(single, key=lambda step: step.work)
        at = steps.index(largest)
        more = [*steps[:at], *opening.opened(largest.number), *steps[at + 1 :]]
        alone = len(groups) == 1 or 2 * largest.work > working[-1]
        if not alone or len(list(_groups(record, more))) > _FEW:
            break
        steps = more
    return [_group_said(record, group, layers) for group in _groups(record, steps)]


@dataclass(frozen=True)
class _Unfolding:
    """What is looked up of a record while its modules are opened."""

    record: Record
    layers: dict[int, Layer]
    children: dict[int, list[int]]
    working: list[int]

    def opened(self, number: int) -> list[_Drawn]:
        """The steps in a module call: its children, and its own calls between them."""
        entry = self.record.modules[number]
        steps: list[_Drawn] = []
        at = entry.first
        for child in self.children.get(number, []):
            inner = self.record.modules[child]
            steps += self._own(at, inner.first)
            work = self.working[inner.stop] - self.working[inner.first]
            if work:
                steps.append(_Drawn(inner.kind, child, work))
            at = max(at, inner.stop)
        return steps + self._own(at, entry.stop)

    def _own(self, first: int, stop: int) -> list[_Drawn]:
        calls = [c for c in self.record.calls[first:stop] if self._is_shown(c)]
        return [_Drawn(text, work=1) for text in _calls(self.record, calls, self.layers)]

    def _is_shown(self, call: Call) -> bool:
        """Masks and positions, which are whole numbers, are left out beside modules."""
        values = self.record.values
        return not call.outputs or any(
            values[s].dtype.startswith(_REAL) or s in self.record.outputs.values()
            for s in call.outputs
        )


def _groups(record: Record, steps: Sequence[_Drawn]) -> Iterator[list[_Drawn]]:
    """Neighbours that say the same, together; modules only with those beside them in the tree."""

    def like(step: _Drawn) -> tuple[str, str | None]:
        if step.number < 0:
            return step.said, None
        return step.said, record.modules[step.number].path.rpartition(".")[0]

    for _, group in groupby(steps, key=like):
        yield list(group)


def _group_said(record: Record, group: Sequence[_Drawn], layers: dict[int, Layer]) -> str:
    said, count = group[0].said, len(group)
    if group[0].number < 0:
        return said if count == 1 else f"{count} × {said}"
    first, last = (record.modules[step.number] for step in (group[0], group[-1]))
    if count > 1:
        names = dict.fromkeys(record.modules[step.number].path for step in group)
        to = f"…{last.path.rpartition('.')[2]}" if len(names) > 1 else ""
        return f"{first.path}{to}: {count} × {said}"
    if group[0].work == 1:
        alone = list(_calls(record, record.calls[first.first : first.stop], layers))
        if alone and alone[0].startswith(f"{first.path}: W["):
            return alone[0]
    return f"{first.path}: {said}"


def _folded(items: list[str], most: int) -> list[str]:
    """Not more than `most` items: the middle becomes an ellipsis that says how many."""
    if len(items) <= most:
        return items
    head = most // 2
    tail = most - head - 1
    return [*items[:head], f"… {len(items) - head - tail} more …", *items[len(items) - tail :]]
