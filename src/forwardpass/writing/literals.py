"""Literals: the arguments of a call, as they stand in Python source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

import torch

from forwardpass.errors import UsageError
from forwardpass.nouns.calls import Call, Ref, Value
from forwardpass.recording.schemas import schema_of
from forwardpass.tensors.dtypes import TORCH

_DEFAULTS = (torch.float32, torch.int64, torch.bool)
_FULLY_SPELLED = 8
"""Elements of a constant that is written out; larger ones are given to `forward`."""


class SpelledArguments:
    """The arguments of one call by the names of its schema, as text and as they are.

    Args:
        call: what is spelled.
        values: of the record.
        expression: the text that stands for a value, by its serial.
        used: of the tensors that the call returns, those that somebody reads, by place.
    """

    def __init__(
        self,
        call: Call,
        values: Sequence[Value],
        expression: Callable[[int], str],
        used: Sequence[bool],
    ) -> None:
        self.call, self.values, self._expression = call, values, expression
        self.used = used
        self.operator = found(call.operator)
        self.positional: tuple[Any, ...] = call.arguments
        self.keywords: Mapping[str, Any] = call.keywords
        self._names: tuple[str, ...] = ()
        self._given: dict[str, Any] = {}
        if self.operator is not None:
            schema = schema_of(self.operator)
            kinds = _kinds(self.operator)
            self._names = schema.names
            self.positional = tuple(
                restored(value, kinds[name])
                for name, value in zip(schema.names, call.arguments, strict=False)
            )
            self.keywords = {k: restored(v, kinds[k]) for k, v in call.keywords.items()}
            self._given = {
                **schema.defaults,
                **dict(zip(schema.names, self.positional, strict=False)),
                **self.keywords,
            }

    @property
    def short(self) -> str:
        return self.call.short

    @property
    def overload(self) -> str:
        return self.call.operator.rpartition(".")[2]

    @property
    def first_only(self) -> bool:
        """Whether nobody reads more than the first tensor that the call returns."""
        return not any(self.used[1:])

    @property
    def out(self) -> Value:
        """The first tensor that the call returns."""
        return self.values[self.call.outputs[0]]

    def raw(self, name: str) -> Any:
        """An argument as it was given, or its default."""
        return self._given[name]

    def has(self, name: str) -> bool:
        """Whether the operator takes such an argument."""
        return name in self._given

    def value(self, name: str) -> Value | None:
        """The tensor that an argument is."""
        ref = self._given.get(name)
        return self.values[ref.value] if isinstance(ref, Ref) else None

    def text(self, name: str) -> str:
        """An argument as text."""
        return self.literal(self._given[name])

    def literal(self, value: Any) -> str:
        """Any argument as text. Raises UsageError for what no text makes, such as a function."""
        if isinstance(value, Ref):
            return self._expression(value.value)
        if isinstance(value, list | tuple):
            return f"[{', '.join(self.literal(item) for item in cast('list[Any]', value))}]"
        if is_generator(value):
            return "None"
        text = literal(value)
        if text is None:
            raise UsageError(
                f"to_python: call {self.call.index}, {self.call.operator}, takes a "
                f"{type(value).__name__}, which has no spelling in Python source; record the pass "
                "without it, or export the module"
            )
        return text

    def named(self, *names: str, **leave_out: Any) -> str:
        """Arguments as `, name=text`, but those that are as in `leave_out`."""
        return "".join(
            f", {name}={self.text(name)}"
            for name in (*names, *leave_out)
            if name in names or self.raw(name) != leave_out[name]
        )

    def rest(self, start: int) -> str:
        """The given arguments from place `start` on, truth values and options by name."""
        parts: list[str] = []
        by_name = False
        for place, value in enumerate(self.positional[start:], start):
            by_name = by_name or isinstance(value, bool) or value is None
            name = f"{self._names[place]}=" if by_name else ""
            parts.append(name + self.literal(value))
        for name, value in self.keywords.items():
            if not _is_default_option(name, value):
                parts.append(f"{name}={self.literal(value)}")
        return ", ".join(parts)

    def exact(self) -> str:
        """The call of the operator itself, with exactly the arguments of the record."""
        if self.call.operator.startswith("higher_order."):
            raise UsageError(
                f"to_python: call {self.call.index}, {self.call.operator}, runs functions of its "
                "own that a record does not hold; record the pass without it"
            )
        parts = [self.literal(value) for value in self.positional]
        parts += [f"{name}={self.literal(value)}" for name, value in self.keywords.items()]
        return f"torch.ops.{self.call.operator.replace('::', '.')}({', '.join(parts)})"


def _is_default_option(name: str, value: Any) -> bool:
    return (
        (name in ("dtype", "layout", "device", "generator", "memory_format") and value is None)
        or (name == "pin_memory" and not value)
        or (name == "device" and value == torch.device("cpu"))
        or (name == "layout" and value == torch.strided)
        or (name == "memory_format" and value == torch.preserve_format)
    )


def is_generator(value: Any) -> bool:
    """Whether an argument is a random generator of the model's own, or was before it was saved."""
    return isinstance(value, torch.Generator) or (isinstance(value, str) and value == "<Generator>")


@cache
def _kinds(operator: Any) -> dict[str, str]:
    return {argument.name: str(argument.real_type) for argument in operator._schema.arguments}


@cache
def found(name: str) -> Any:
    """The operator of that name; None where nobody has registered it."""
    namespace, _, rest = name.replace("::", ".").partition(".")
    packet, _, overload = rest.partition(".")
    try:
        operator = getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    except (AttributeError, RuntimeError):
        return None
    return operator if hasattr(operator, "_schema") else None


def literal(value: Any) -> str | None:
    """A number, a word, a dtype, a device, a layout, as source; None for anything else."""
    if value is None or isinstance(value, bool | int | str):
        return repr(value) if not isinstance(value, str) else quoted(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if isinstance(value, complex):
        return f"complex({literal(value.real)}, {literal(value.imag)})"
    if isinstance(value, torch.device):
        return f"torch.device({quoted(str(value))})"
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return str(value)
    return None


def quoted(text: str) -> str:
    """A string as source, in double quotes."""
    plain = repr(text)
    if plain.startswith('"'):
        return plain
    inner = plain[1:-1].replace("\\'", "'").replace('"', '\\"')
    return f'"{inner}"'


def restored(value: Any, kind: str) -> Any:
    """An argument that went through JSON, as the operator takes it; `kind` is its schema's type."""
    if isinstance(value, dict):
        return Ref(cast("dict[str, int]", value)["value"])
    if isinstance(value, list | tuple):
        return [restored(item, kind) for item in cast("list[Any]", value)]
    if not isinstance(value, str):
        return value
    if "ScalarType" in kind:
        return TORCH.get(value) or getattr(torch, value)
    if "Device" in kind:
        return torch.device(value)
    if "Layout" in kind or "MemoryFormat" in kind:
        return getattr(torch, value)
    if "str" not in kind:
        return float(value) if value in ("inf", "-inf", "nan") else value
    return value


def constant(tensor: torch.Tensor | None) -> str | None:
    """A small tensor as `torch.tensor(…)`; None for one that has to be given to `forward`."""
    if tensor is None or tensor.layout is not torch.strided or tensor.is_nested:
        return None
    if (
        tensor.numel() > _FULLY_SPELLED
        or tensor.numel() == 0
        or tensor.device.type == "meta"
        or not tensor.is_contiguous()
        or tensor.is_quantized
        or tensor.is_complex()
        or type(tensor) not in (torch.Tensor, torch.nn.Parameter)
    ):
        return None
    options = "" if tensor.dtype in _DEFAULTS else f", dtype={tensor.dtype}"
    if tensor.device.type != "cpu":
        options += f', device="{tensor.device}"'
    return f"torch.tensor({_numbers(tensor)}{options})"


def _numbers(tensor: torch.Tensor) -> str:
    if tensor.dim():
        return f"[{', '.join(_numbers(part) for part in tensor.unbind())}]"
    with torch.no_grad():
        number = tensor.item()
    if tensor.dtype is torch.float32 and math.isfinite(number):
        short = f"{number:.7g}"  # what reads well, if it is the same number
        if float(torch.tensor(float(short))) == number:
            return repr(float(short))
    return literal(number) or "0"
