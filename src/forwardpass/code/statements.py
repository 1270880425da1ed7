"""Statements: where each one of a file begins, which lines it takes, in which function."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

Statement = ast.stmt | ast.ExceptHandler
_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SILENT = (ast.Global, ast.Nonlocal)


class FunctionLines(NamedTuple):
    """Lines of a file from `first` to `last`, and what they hold."""

    first: int
    last: int
    name: str


class Statements:
    """A file, taken apart.

    Attributes:
        lines: its text; none where it cannot be read.
        functions: with their decorators; one within another is a part of that, methods are not.
        begins: the first line of each statement that leaves a trace when it runs: not of texts,
            nor of declarations.
    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._starts: dict[int, int] = {}
        self._at: dict[int, Statement] = {}
        self._long: set[int] = set()
        self.functions: list[FunctionLines] = []
        self.begins: set[int] = set()
        try:
            tree = ast.parse("".join(lines))
        except (SyntaxError, ValueError):
            return
        found = sorted(((*_head(node), node) for node in ast.walk(tree)
                        if isinstance(node, Statement)), key=lambda h: h[0] - h[1])  # fmt: skip
        for first, last, node in found:  # those within others come after them
            self._at.setdefault(node.lineno, node)
            for line in range(first, last + 1):
                self._starts[line] = node.lineno
            if last > first:
                self._long.add(node.lineno)
            if not isinstance(node, _SILENT) and not _is_text(node):
                self.begins.add(node.lineno)
        self.functions = list(_functions(tree, ""))

    def start(self, line: int) -> int:
        """The first line of the statement, or of the head of one, that a line belongs to."""
        return self._starts.get(line, line)

    def at(self, start: int) -> Statement | None:
        """The outermost statement that begins at a line."""
        return self._at.get(start)

    def is_long(self, start: int) -> bool:
        """Whether the statement that begins there, or its head, has several lines."""
        return start in self._long

    def around(self, line: int) -> FunctionLines:
        """The function that a line is in; outside of any, the line alone."""
        found = (span for span in self.functions if span.first <= line <= span.last)
        return min(
            found, key=lambda span: span.last - span.first, default=FunctionLines(line, line, "")
        )

    def text(self, node: ast.AST) -> str:
        """What an expression of it says, in one line."""
        said = ast.get_source_segment("".join(self.lines), node) or ""
        return " ".join(said.split())


def source(file: str) -> Statements:
    """A file by the name that its code objects have; the cells of notebooks, too."""
    return _taken_apart(tuple(linecache.getlines(file)))


@lru_cache(maxsize=128)
def _taken_apart(lines: tuple[str, ...]) -> Statements:
    return Statements(list(lines))


def body_of(node: ast.AST) -> tuple[int, int] | None:
    """First and last line of what a statement holds; None where that stands beside its head, or
    where it holds nothing."""
    body: list[ast.stmt] = getattr(node, "body", [])
    if not body or _first(body[0]) <= getattr(node, "lineno", 0):
        return None
    return _first(body[0]), body[-1].end_lineno or body[-1].lineno


def _head(node: Statement) -> tuple[int, int]:
    body: list[ast.stmt] = getattr(node, "body", [])
    if isinstance(node, ast.Match):
        return node.lineno, node.subject.end_lineno or node.lineno
    if body:
        return _first(node), max(node.lineno, _first(body[0]) - 1)
    return node.lineno, node.end_lineno or node.lineno


def _first(node: Statement) -> int:
    """Its line, or that of its first decorator."""
    above = [d.lineno for d in node.decorator_list] if isinstance(node, _DEFINES) else []
    return min([node.lineno, *above])


def _is_text(node: Statement) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _functions(node: ast.AST, within: str, inside: bool = False) -> Iterator[FunctionLines]:
    """Functions, and the methods of classes; a function in another one is a part of that."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _DEFINES):
            yield from _functions(child, within, inside)
            continue
        is_function = not isinstance(child, ast.ClassDef)
        if is_function and not inside:
            yield FunctionLines(
                _first(child), child.end_lineno or child.lineno, within + child.name
            )
        yield from _functions(child, f"{within}{child.name}.", is_function)
