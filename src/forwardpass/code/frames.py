"""Frames: where in the source a call was written, and under which name.

While the pass runs, only pairs of code object and instruction are noted. Reading files and parsing
the expression at an instruction come afterwards, once a place.
"""

from __future__ import annotations

import ast
import dis
import linecache
import re
import sys
from collections.abc import Iterable
from functools import cache
from types import CodeType, FrameType
from typing import Any

from torch import nn

from forwardpass.code.owners import Owner, owner
from forwardpass.code.sources import shortened
from forwardpass.nouns.calls import Site

_INSTRUCTION_BYTES = 2

OURS, INSIDE, LAYER, USER, START = range(1, 6)
"""What a frame belongs to: to us; to functions of PyTorch, NumPy and Python; to PyTorch's layers;
to the model; and the frame with which the recorded pass begins, past which nobody looks."""
_KINDS = {Owner.OURS: OURS, Owner.LAYERS: LAYER} | dict.fromkeys(
    (Owner.USER, Owner.LIBRARY, Owner.STRING), USER
)

_STORE = dis.opmap["STORE_SUBSCR"]
_IMPORTED = re.compile(r"^\s*(?:import|from)\s.*?\b(?:as\s+)?(\w+)\s*$", re.MULTILINE)
_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@", ast.Pow: "**",
    ast.FloorDiv: "//", ast.Mod: "%", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.LShift: "<<", ast.RShift: ">>", ast.USub: "-", ast.UAdd: "+", ast.Invert: "~",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Not: "not",
}  # fmt: skip


_CALL = nn.Module._call_impl.__code__  # pyright: ignore[reportPrivateUsage]
_CALLING = frozenset(
    map(id, (_CALL, *(part for part in _CALL.co_consts if isinstance(part, CodeType))))
)
"""What calls `forward`: directly, and with hooks around it."""


class Frames:
    """The places that one pass came by, each with a number.

    Args:
        kinds: the classes of the modules that are recorded; their `forward` frames tell who is
            running.
    """

    def __init__(self, kinds: Iterable[type]) -> None:
        self._kinds: dict[int, int] = {}
        self._alive: list[CodeType] = []  # ids of code objects are compared, so these must stay
        self._sites: dict[tuple[int, int, int, int], int] = {}
        self._places: list[tuple[CodeType, int, CodeType, int]] = []
        self._forwards: set[int] = set()
        self._above: dict[int, FrameType | None] = {}
        for kind in kinds:
            code = getattr(getattr(kind, "forward", None), "__code__", None)
            if code is not None and id(code) not in self._forwards:
                self._forwards.add(id(code))
                self._alive.append(code)

    def _kind(self, code: CodeType) -> int:
        found = _KINDS.get(owner(code.co_filename), INSIDE)
        if found == OURS and code.co_name == START_NAME:
            found = START
        self._kinds[id(code)] = found
        self._alive.append(code)
        return found

    def here(self, frame: FrameType | None) -> tuple[int, FrameType | None]:
        """The number of the place that runs in `frame`, and the frame of the `forward` around it.

        The second is None where a function that is no forward made the call.
        """
        kinds, forwards, above = self._kinds, self._forwards, self._above
        written: FrameType | None = None
        forward: FrameType | None = None
        user: FrameType | None = None
        last = frame
        while frame is not None:
            code = frame.f_code
            kind = kinds.get(id(code))
            if kind is None:
                kind = self._kind(code)
            if kind == START:
                break
            if kind != OURS:
                last = frame
                if kind == LAYER and written is None:
                    written = frame
                if id(code) in forwards:
                    forward = forward or frame
                    if id(frame) in above:  # what stands above it was looked up before
                        user = above[id(frame)]
                        break
                if kind == USER:
                    user = frame
                    break
            frame = frame.f_back
        assert last is not None
        written = written or user or last
        user = user or written
        key = (id(user.f_code), user.f_lasti, id(written.f_code), written.f_lasti)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = len(self._places)
            self._places.append((user.f_code, user.f_lasti, written.f_code, written.f_lasti))
            self._alive += [user.f_code, written.f_code]
        return site, forward

    def hold(self, frame: FrameType) -> None:
        """Look up who stands above a forward's frame, once for all its calls; until `let_go`.

        Whoever calls this keeps the frame alive until then: it is known by its id.
        """
        outer: FrameType | None = frame
        while outer is not None:
            kind = self._kinds.get(id(outer.f_code)) or self._kind(outer.f_code)
            if kind in (USER, START):
                break
            if outer is not frame and id(outer) in self._above:
                outer = self._above[id(outer)]
                break
            outer = outer.f_back
        is_user = outer is not None and self._kinds.get(id(outer.f_code)) == USER
        self._above[id(frame)] = outer if is_user else None

    def let_go(self, frame: FrameType) -> None:
        """Forget a frame that was held."""
        self._above.pop(id(frame), None)

    def is_forward(self, frame: FrameType) -> bool:
        """Whether a frame runs the forward of one of the modules."""
        return id(frame.f_code) in self._forwards

    def is_start(self, frame: FrameType) -> bool:
        """Whether a frame is the one with which the pass begins."""
        return frame.f_code.co_name == START_NAME

    def sites(self) -> tuple[Site, ...]:
        """Every place, as file, line and function."""
        return tuple(
            Site(shortened(code.co_filename), _span(code, instruction)[0] or 0, code.co_qualname)
            for code, instruction, _, _ in self._places
        )

    def names(self) -> list[str]:
        """For every place, the name that the code wrote there; "" where it cannot be read, and
        where nn.Module calls what has no frame of Python: TorchScript."""
        return [
            "" if code.co_filename == _CALL.co_filename else name_at(code, instruction)
            for _, _, code, instruction in self._places
        ]


START_NAME = "forwardpass_starts_the_pass"


def caller(depth: int = 1) -> FrameType:
    """The frame that called the function that calls this."""
    return sys._getframe(depth + 1)  # pyright: ignore[reportPrivateUsage]


def is_called_by_torch(frame: FrameType) -> bool:
    """Whether nn.Module's own way of calling a module made this frame, as it does for a forward."""
    outer = frame.f_back
    return outer is not None and id(outer.f_code) in _CALLING


@cache
def _span(code: CodeType, instruction: int) -> tuple[int | None, ...]:
    """First line, last line, first column, last column of the expression at an instruction."""
    for place, position in enumerate(code.co_positions()):
        if place == instruction // _INSTRUCTION_BYTES:
            return position
    return (code.co_firstlineno, None, None, None)


@cache
def expression_at(code: CodeType, instruction: int) -> str:
    """The text of the expression, or of the statement, at an instruction; "" where it cannot be
    read."""
    line, last, start, stop = _span(code, instruction)
    if line is None or last is None or start is None or stop is None:
        return ""
    lines = [linecache.getline(code.co_filename, n).encode() for n in range(line, last + 1)]
    if not lines or not lines[0]:
        return ""
    lines[-1] = lines[-1][:stop]
    lines[0] = lines[0][start:]
    return b"".join(lines).decode(errors="replace").strip()


@cache
def name_at(code: CodeType, instruction: int) -> str:
    """The name of what the expression at an instruction calls: `F.gelu`, `@`, `.view`, `[…]`."""
    if code.co_code[instruction] == _STORE:
        return "[…] ="
    text = expression_at(code, instruction)
    if not text:
        return ""
    try:
        node = ast.parse(f"({text})", mode="eval").body
    except SyntaxError:
        try:
            statement: Any = ast.parse(text).body[0]
        except SyntaxError:
            return ""
        node = statement
    return _named(node, code.co_filename)


def _named(node: ast.AST, filename: str) -> str:
    if isinstance(node, ast.Expr):
        return _named(node.value, filename)
    if isinstance(node, ast.Await):
        return _named(node.value, filename)
    if isinstance(node, ast.Call):
        return _dotted(node.func, filename)
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return _OPERATORS.get(type(node.op), "")
    if isinstance(node, ast.AugAssign):
        return _OPERATORS.get(type(node.op), "") + "="
    if isinstance(node, ast.Compare):
        return _OPERATORS.get(type(node.ops[0]), "")
    if isinstance(node, ast.Subscript):
        return "[…]"
    if isinstance(node, ast.Attribute):
        return f".{node.attr}"
    return ""


def _dotted(function: ast.expr, filename: str) -> str:
    """`F.gelu` where the root is an imported name, else the method: `.view`."""
    names: list[str] = []
    node = function
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        if not names or node.id in _imported(filename):
            return ".".join([node.id, *reversed(names)])
        if node.id == "self" and len(names) == 1:
            return f"self.{names[0]}"
    return f".{names[0]}" if names else ""


@cache
def _imported(filename: str) -> frozenset[str]:
    """The names that a file imports, as far as one line tells each."""
    text = "".join(linecache.getlines(filename))
    return frozenset(_IMPORTED.findall(text)) | {"torch", "F", "nn"}
