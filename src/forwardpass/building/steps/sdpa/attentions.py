"""Attention written out by hand, found on a record: product, softmax, product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from forwardpass.building.steps.sdpa.scores import leaves_no_weight
from forwardpass.nouns.calls import Call, Ref
from forwardpass.operators.kinds import bare, casts, copies, keeps_numbers, moves
from forwardpass.recording import Recording
from forwardpass.tensors.modules import held_by, parts_of

_PRODUCTS = frozenset({"baddbmm", "bmm", "matmul", "mm"})
_TERMS = frozenset({"add", "div", "masked_fill", "mul", "rsub", "sub", "where"})
_SOFTMAX = frozenset({"_safe_softmax", "_softmax", "softmax"})
_NUMBERS = {"fill": 1, "full": 1, "full_like": 1, "new_full": 2, "scalar_tensor": 0}
"""Operators that make one number, and the place where that stands."""
_FUSED = ("scaled_dot_product", "_native_multi_head_attention", "_transformer_encoder_layer")
_FAR = 24
"""Calls from softmax to a product, beyond which it is none of this softmax."""


def is_fused(call: Call) -> bool:
    """Whether PyTorch's fused operators of attention compute it."""
    return any(name in call.operator for name in _FUSED)


@dataclass
class Attention:
    """One attention of a record.

    Attributes:
        first: the product of queries and keys. softmax: what makes weights of it.
        last: the product of weights and values.
        between: the calls that stand between them.
        module: path of the innermost module in which all of them ran.
        left: why it may not be replaced, in words; "" where it may.
    """

    first: Call
    softmax: Call
    last: Call
    between: list[Call] = field(default_factory=list[Call])
    module: str = ""
    left: str = ""


def attentions(recording: Recording) -> list[Attention]:
    """Every attention of a record that is written out, in order."""
    finder = _Finder(recording)
    return [found for call in recording.calls if (found := finder.around(call)) is not None]


class _Finder:
    """Looks for attention around each softmax."""

    def __init__(self, recording: Recording) -> None:
        self._record = recording
        self._graph = recording.graph
        self._leaving = {serial: name for name, serial in recording.outputs.items()}

    def around(self, softmax: Call) -> Attention | None:
        """The attention whose weights a call makes; None where they weigh nothing."""
        if bare(softmax.operator) not in _SOFTMAX:
            return None
        before = self._product(softmax.inputs[0], softmax)
        after = self._weighed(softmax)
        if before is None or after is None:
            return None
        (first, up), (last, down) = before, after
        found = Attention(first, softmax, last, [*up, softmax, *down])
        found.module = self._around([first, *found.between, last])
        found.left = next(self._reasons(found, up, down), "")
        return found

    def _product(self, serial: int, reader: Call) -> tuple[Call, list[Call]] | None:
        """The product that scores come from, and what is done to them on the way."""
        wanted = self._record.values[serial].elements
        waiting: list[tuple[int, list[Call]]] = [(serial, [])]
        seen: set[int] = set()
        while waiting:
            serial, path = waiting.pop(0)
            call = self._graph.maker(serial)
            if call is None or call.index in seen or len(path) > _FAR:
                continue
            seen.add(call.index)
            name = bare(call.operator)
            if name in _PRODUCTS:
                return call, path[::-1]
            if name in _SOFTMAX or call.index >= reader.index:
                continue
            same = [s for s in call.inputs if self._record.values[s].elements == wanted]
            waiting += [(one, [*path, call]) for one in dict.fromkeys(same)]
        return None

    def _weighed(self, softmax: Call) -> tuple[Call, list[Call]] | None:
        """The product that reads the weights as its first operand, and what is done to them on the
        way."""
        values = self._record.values
        wanted = values[softmax.outputs[0]].elements
        waiting: list[tuple[int, list[Call]]] = [(softmax.outputs[0], [])]
        seen: set[int] = set()
        while waiting:
            serial, path = waiting.pop(0)
            for call in self._graph.readers(serial):
                name = bare(call.operator)
                if name in _PRODUCTS:
                    if call.inputs[1 if name == "baddbmm" else 0] == serial:
                        return call, path
                elif len(path) < _FAR and call.index not in seen and name not in _SOFTMAX:
                    seen.add(call.index)
                    same = [s for s in call.outputs if values[s].elements == wanted]
                    waiting += [(one, [*path, call]) for one in same]
        return None

    def _reasons(self, found: Attention, up: Sequence[Call], down: Sequence[Call]) -> Iterator[str]:
        """Why it may not be replaced."""
        record, softmax = self._record, found.softmax
        for call in up:
            name = bare(call.operator)
            if name not in _TERMS and not _passes(call):
                yield f"{self._at(call)} stands between its product and its softmax"
            if name in ("masked_fill", "where"):
                yield from self._fill(call)
        for call in down:
            if not _passes(call):
                yield f"{self._at(call)} stands between its softmax and its product"
        shape = record.values[softmax.inputs[0]].shape
        axis = softmax.arguments[1] if len(softmax.arguments) > 1 else softmax.keywords.get("dim")
        if not isinstance(axis, int) or axis % len(shape) != len(shape) - 1:
            yield f"its softmax at {record.site(softmax)} does not go over the keys"
        own = {call.index for call in (*found.between, found.last)}
        for call in (found.first, *found.between):
            for serial in call.outputs:
                what = "weights" if call.index >= softmax.index else "scores"
                if serial in self._leaving:
                    yield f"its {what} leave the model as {self._leaving[serial]}"
                other = next((c for c in self._graph.readers(serial) if c.index not in own), None)
                if other is not None:
                    yield f"its {what} are also read by {self._at(other)}"
        scores = {
            record.values[s].storage for c in (found.first, *found.between) for s in c.outputs
        }
        for call in (found.first, *found.between):
            for serial in call.inputs:
                if record.values[serial].storage in scores:
                    continue
                for made in self._graph.written(serial, found.last.index):
                    writer = record.calls[record.values[made].producer]
                    if writer.index > call.index:
                        yield f"{self._at(writer)} writes over what goes into it, in place"

    def _fill(self, call: Call) -> Iterator[str]:
        """Why what is filled in is no mask."""
        given = call.arguments[2]
        if bare(call.operator) == "where":
            sizes = [self._record.values[s].elements for s in call.inputs]
            given = next(
                (a for a, n in zip(call.arguments[1:], sizes[1:], strict=True) if n == 1), None
            )
        number = self._number(given)
        if number is None:
            yield f"what {self._at(call)} puts in place of scores is not one number that is known"
        elif not leaves_no_weight(number):
            yield f"{self._at(call)} puts {number:g} in place of scores, which is no mask"

    def _number(self, given: object) -> float | None:
        """The number that an argument is; None where nobody knows."""
        if isinstance(given, int | float):
            return float(given)
        serial = given.value if isinstance(given, Ref) else -1
        while serial >= 0:
            if serial in self._record.constants:
                constant = self._record.constants[serial]
                return float(constant) if constant.numel() == 1 else None
            call = self._graph.maker(serial)
            if call is None:
                value = self._record.values[serial]
                held = self._held.get(value.name)
                return held if value.origin in ("buffer", "parameter", "attribute") else None
            name = bare(call.operator)
            if name in _NUMBERS:
                return self._number(call.arguments[_NUMBERS[name]])
            serial = call.inputs[0] if call.inputs and (moves(name) or casts(name)) else -1
        return None

    @cached_property
    def _held(self) -> dict[str, float]:
        held = held_by(self._record.this.module).items()
        return {name: float(value) for name, value in held if value.numel() == 1}

    @cached_property
    def _registered(self) -> set[str]:
        return {path for path, _ in parts_of(self._record.this.module, every_name=True)}

    def _around(self, calls: Sequence[Call]) -> str:
        """The innermost module that all of these ran in."""
        modules = self._record.modules
        shared: list[int] | None = None
        for call in calls:
            at, chain = call.module, list[int]()
            while at >= 0:
                chain.append(at)
                at = modules[at].parent
            shared = chain if shared is None else [one for one in shared if one in chain]
        paths = [modules[at].path for at in shared or ()]
        return next((path for path in paths if path in self._registered), "")

    def _at(self, call: Call) -> str:
        return f"{call.name or call.short} at {self._record.site(call)}"


def _passes(call: Call) -> bool:
    """Whether scores come out of a call as they went in, in another shape or dtype."""
    name = bare(call.operator)
    return (
        copies(name) or casts(name) or keeps_numbers(name)
        or name in ("dropout", "expand", "native_dropout")
    )  # fmt: skip
