"""Layout: lines of code with their comments, as wide as a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from forwardpass.nouns.records import Record

_WIDTH = 100
_STEP = "    "
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Line(NamedTuple):
    """A line of code, with a comment behind it; without code, a comment alone.

    A heading is a comment on what follows, and not part of what is compared.
    """

    code: str
    comment: str = ""
    heading: bool = False


def laid_out(head: Line, lines: Sequence[Line]) -> str:
    """A function: `def …:` and its lines, indented."""
    text = _wrapped(head.code, "")
    for line in lines:
        comment = " ".join(line.comment.split())  # names may hold what ends a line
        if not line.code:
            text += [f"{_STEP}# {comment}"]
            continue
        whole = f"{_STEP}{line.code}"
        if comment and len(whole) + len(comment) + 4 <= _WIDTH:
            text.append(f"{whole}  # {comment}")
            continue
        broken = _wrapped(line.code, _STEP)
        if comment and len(broken[-1]) + len(comment) + 4 <= _WIDTH:
            broken[-1] += f"  # {comment}"
        elif comment:
            text.append(f"{_STEP}# {comment}")
        text += broken
    return "\n".join(text) + "\n"


def _wrapped(code: str, indent: str) -> list[str]:
    """Code over as many lines as it needs, broken at the commas of its last bracket."""
    if len(indent) + len(code) <= _WIDTH or code.startswith('"""'):
        return [indent + code]
    body, end = (code[:-1], ":") if code.endswith(":") else (code, "")
    opening = _opening(body)
    if opening is None:
        name, equals, value = body.partition(" = ")
        if not equals:
            return [indent + code]
        return [f"{indent}{name} = (", *_sum(value, indent + _STEP), f"{indent})"]
    inner = indent + _STEP
    rows: list[str] = [inner]
    for part in _split(body[opening + 1 : -1], ", "):
        if rows[-1] != inner and len(rows[-1]) + len(part) + 2 > _WIDTH:
            rows[-1] = rows[-1].rstrip()
            rows.append(inner)
        rows[-1] += f"{part}, "
    rows[-1] = rows[-1].rstrip()
    return [f"{indent}{body[: opening + 1]}", *rows, f"{indent}{body[-1]}{end}"]


def _sum(value: str, indent: str) -> list[str]:
    first, *others = _split(value, " + ")
    return [indent + first, *(f"{indent}+ {part}" for part in others)]


def _opening(code: str) -> int | None:
    """Where the bracket opens that closes at the very end, if the code before it is one name or
    one call."""
    if code[-1] not in ")]}":
        return None
    depth = 0
    for place, letter in reversed(_outside_strings(code)):
        if letter in ")]}":
            depth += 1
        elif letter in "([{":
            depth -= 1
            if depth == 0:
                return place if place + 2 < len(code) and letter != "[" else None
    return None


def _split(text: str, at: str) -> list[str]:
    """`text` at each `at` that stands in no bracket and no string."""
    parts, depth, start = list[str](), 0, 0
    for place, letter in _outside_strings(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and text.startswith(at, place):
            parts.append(text[start:place])
            start = place + len(at)
    return [*parts, text[start:]]


def _outside_strings(code: str) -> list[tuple[int, str]]:
    """The letters of code that stand in no string, with their places."""
    inside = [place for match in _STRING.finditer(code) for place in range(*match.span())]
    return [(place, code[place]) for place in sorted(set(range(len(code))) - set(inside))]


def docstring(record: Record, constants: bool) -> str:
    """What a reader and a caller of the written module have to know."""
    forward = " ".join(record.forward.split())
    inputs = ", ".join(f"{path}: {record.values[s]}" for path, s in record.inputs.items())
    outputs = ", ".join(f"{path}: {record.values[s]}" for path, s in record.outputs.items())
    lines = [
        f"The forward pass of {forward}, as plain torch code.",
        "",
        *_filled(
            f"Written from a record of one pass ({record.mode} mode, grad {record.grad}, "
            f"{record.device}): the shapes, the branches that were taken and the numbers that "
            "Python computed are baked in.",
            hanging="",
        ),
        "",
        *_filled(f"inputs: {inputs}"),
        *_filled(f"outputs: {outputs}"),
        "state: the tensors of the module by name,",
        "    {**dict(module.named_parameters()), **dict(module.named_buffers())}",
    ]
    held = {v.name for v in record.values if v.origin == "attribute"}
    if held:
        lines += _filled(f"and its attributes {', '.join(sorted(held))}", "    ")
    for one in record.unseen:
        lines += _filled(f"not known of the pass: {one.said}")
    if constants:
        lines += _filled(
            "constants: tensors from outside of module and inputs, by their serial in the record: "
            "record.constants"
        )
    return '"""' + plainly("\n".join(lines)) + '\n"""\n\n'


def plainly(text: str) -> str:
    """A text that may stand in a docstring."""
    return text.replace("\\", "/").replace('"', "'")


def _filled(text: str, indent: str = "", hanging: str = "    ") -> list[str]:
    rows = [indent]
    for word in text.split(" "):
        if len(rows[-1]) + len(word) + 1 > _WIDTH:
            rows.append(indent or hanging)
        rows[-1] += f" {word}" if rows[-1].strip() else word
    return rows
