"""What the page keeps an answer under: the text that its own `keyOf` makes of a question."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

from forwardpass.exploring.asking import PageQuestion


def key_of(question: PageQuestion) -> str:
    """As JavaScript's JSON.stringify has it, with the arguments sorted: those that were given, and
    none that is only understood."""
    return _text([question.of, question.arguments])


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        held = cast("Mapping[str, Any]", value)
        pairs = [f"{_text(name)}:{_text(held[name])}" for name in sorted(held, key=_place)]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(one) for one in cast("list[Any]", value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _place(name: str) -> tuple[bool, int, bytes]:
    """Where a name stands in a JavaScript object that was made of sorted ones: those that are
    numbers of an array first, the others by their UTF-16."""
    number = int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else None
    is_index = number is not None and str(number) == name and number < 2**32 - 1
    return (
        not is_index,
        number if is_index and number else 0,
        name.encode("utf-16-be", "surrogatepass"),
    )


def _number(value: float) -> str:
    """A float as JavaScript's Number::toString has it: ECMA-262, 6.1.6.1.20."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    sign, places, power = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, places))
    assert isinstance(power, int)
    before = "-" if sign else ""
    point = len(digits) + power
    if len(digits) <= point <= 21:
        return before + digits + "0" * power
    if 0 < point <= 21:
        return f"{before}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{before}0.{'0' * -point}{digits}"
    more = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{before}{digits[0]}{more}e{'+' if point > 0 else '-'}{abs(point - 1)}"
