"""Conditions: what decided where two ways part, with the numbers that were compared."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, Final

import msgspec
import torch
from torch import nn

from forwardpass.code.frames import expression_at
from forwardpass.code.lines import LineTrace
from forwardpass.code.owners import models_frame, past_ours
from forwardpass.code.statements import source
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.ways import WayApart, followed, made_within
from forwardpass.recording.interception import Interception, aside
from forwardpass.recording.schemas import Schema
from forwardpass.tensors.modules import attributes, store_of

_MOST: Final = 6
"""Numbers that are told of a condition."""
_LONGEST: Final = 80
_ASKED: Final = {"shape", "ndim", "dtype", "device", "requires_grad"}
_SIZES: Final = {"size", "dim", "numel", "ndimension"}
_PLAIN: Final = (tuple, list, dict, torch.Size)


class ComparedPart(msgspec.Struct, frozen=True):
    """A part of a condition, as it is written, and what it was; "" where it was not computed."""

    text: str
    a: str
    b: str


class Condition(msgspec.Struct, frozen=True):
    """What decided.

    Attributes:
        kind: `if`, `while`, `for`, …; "" where the line holds no condition.
        text: the condition as it is written; the first line of the statement where there is none.
    """

    kind: str
    text: str
    compared: tuple[ComparedPart, ...]


def condition(exploration: Exploration, rows: tuple[int, int], parted: WayApart) -> Condition:
    """What decided, and what was compared, by one more pass of each row.

    Nothing of the user's is called for it: numbers are noted as the condition computes them, and
    names are looked up where that runs no code.
    """
    text = source(parted.place.file)
    node = text.at(parted.place.line)
    asked = None if node is None or parted.place.within else _asked(node)
    told = [_told(exploration, row, parted, asked) for row in rows]
    names = list(dict.fromkeys((*told[0], *told[1])))[-_MOST:]
    compared = tuple(
        ComparedPart(name, told[0].get(name, ""), told[1].get(name, "")) for name in names
    )
    kind = "" if asked is None else type(node).__name__.lower().removeprefix("async")
    line = parted.place.line
    whole = text.lines[line - 1].strip() if 0 < line <= len(text.lines) else ""
    return Condition(kind, whole if asked is None else text.text(asked), compared)


def _asked(node: ast.AST) -> ast.expr | None:
    """The expression by which a statement decides how to go on."""
    if isinstance(node, ast.If | ast.While | ast.Assert):
        return node.test
    if isinstance(node, ast.For):
        return node.iter
    return node.subject if isinstance(node, ast.Match) else None


def _told(
    exploration: Exploration, row: int, parted: WayApart, asked: ast.expr | None
) -> dict[str, str]:
    """What the parts of a condition were when it decided, by their text."""
    noting = _Noting(parted.place.line)
    line, visit = parted.begins
    visits = 0

    def begins(frame: FrameType) -> None:
        nonlocal visits
        visits += 1
        noting.frame = frame if visits == visit else None
        if noting.frame is not None and asked is not None:
            noting.told.update(_names(asked, frame))

    marks = {(parted.place.file, line): begins}

    @contextmanager
    def noted() -> Generator[None]:
        with noting, LineTrace(followed, marks):
            yield

    made_within(exploration, row, noted())
    return noting.told


class _Noting(Interception):
    """Notes each single number that an operator makes while a frame is at the statement that
    begins at a line, under what is written there."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.frame: FrameType | None = None
        self._line = line
        self.told: dict[str, str] = {}

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        came = func(*args, **kwargs)
        if self.frame is not None and self._is_there(self.frame):
            frame = models_frame(past_ours(sys._getframe(1)))  # pyright: ignore[reportPrivateUsage]
            said = None if came is None else _spelled(came)
            if frame is not None and said is not None:
                text = _written(frame.f_code, frame.f_lasti)
                self.told[text or str(func)] = said
        return came

    def _is_there(self, frame: FrameType) -> bool:
        lines = (frame.f_lineno, source(frame.f_code.co_filename).start(frame.f_lineno))
        if self._line not in lines:
            self.frame = None
        return self.frame is not None


def _written(code: CodeType, instruction: int) -> str:
    text = " ".join(expression_at(code, instruction).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _spelled(value: Any) -> str | None:
    """A single number, or what else is told in a word; None for anything larger."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.device.type == "meta" or value.is_nested:
            return None
        with aside():
            value = value.detach().reshape(()).item()
    if isinstance(value, bool | int | str | None):
        return str(value)[:_LONGEST]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, torch.Size | tuple) and all(type(size) is int for size in value):
        return str(tuple(value))
    return str(value) if isinstance(value, torch.dtype | torch.device) else None


def _names(asked: ast.expr, frame: FrameType) -> dict[str, str]:
    """The parts of an expression that can be looked up without running anything of the user's."""
    found: dict[str, str] = {}
    for node in ast.walk(asked):
        if isinstance(node, ast.Constant) or not isinstance(node, ast.expr):
            continue
        try:
            said = _spelled(_looked_up(node, frame))
        except LookupError:
            continue
        if said is not None:
            found[ast.unparse(node)] = said
    return found


def _looked_up(node: ast.expr, frame: FrameType) -> Any:
    """What a name, an attribute, an item or a size is. Raises LookupError where code would run."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return {**frame.f_globals, **frame.f_locals}[node.id]
    if isinstance(node, ast.Attribute):
        return _attribute(_looked_up(node.value, frame), node.attr)
    if isinstance(node, ast.Subscript):
        held, at = _looked_up(node.value, frame), _looked_up(node.slice, frame)
        return held[at] if type(held) in _PLAIN and type(at) in (int, str) else _unknown()
    if isinstance(node, ast.Call) and not node.keywords:
        given = [_looked_up(argument, frame) for argument in node.args]
        if isinstance(node.func, ast.Name) and node.func.id == "len" and len(given) == 1:
            held = given[0]
            return len(held) if type(held) in (*_PLAIN, str) else _unknown()
        if isinstance(node.func, ast.Attribute) and node.func.attr in _SIZES:
            held = _looked_up(node.func.value, frame)
            if type(held) is torch.Tensor and all(type(one) is int for one in given):
                return getattr(held, node.func.attr)(*given)
    return _unknown()


def _unknown() -> Any:
    raise LookupError


def _attribute(held: Any, name: str) -> Any:
    if isinstance(held, torch.Tensor):
        is_plain = type(held) in (torch.Tensor, nn.Parameter) and name in _ASKED
        return getattr(held, name) if is_plain else _unknown()
    if isinstance(held, nn.Module):
        names = ("_parameters", "_buffers", "_modules")
        stores = (attributes(held), *(store_of(held, store) for store in names))
        found = [store[name] for store in stores if name in store]
        if found:
            return found[0]
    found = inspect.getattr_static(held, name, None)
    return _unknown() if found is None or hasattr(type(found), "__get__") else found
