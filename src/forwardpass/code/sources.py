"""Source code: the file behind a site, how a file is called, a statement's lines, where a name is
assigned. Each file is read and parsed once."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from types import CodeType, FunctionType

from forwardpass.nouns.calls import Site

_Span = tuple[int, int]


@cache
def shortened(filename: str) -> str:
    """A file as a reader knows it: from the package on, or from the working directory."""
    for root in sorted(filter(None, sys.path), key=len, reverse=True):
        root = os.path.abspath(root)
        if root != os.getcwd() and filename.startswith(root + os.sep):
            return filename[len(root) + 1 :]
    relative = os.path.relpath(filename) if os.path.isabs(filename) else filename
    return filename if relative.startswith("..") else relative


def file_of(file: str, line: int = 1) -> str:
    """The file that a site names: sites leave out the working directory, or the folder in which
    Python found the package. The name itself where there is no such file."""
    if os.path.isabs(file) or file in linecache.cache:
        return file
    for folder in ("", *sys.path):
        path = os.path.join(os.path.abspath(folder), file)
        if os.path.isfile(path) and len(linecache.getlines(path)) >= line:
            return path
    return file


@contextmanager
def lines_held(lines: Mapping[str, Sequence[str]]) -> Generator[None]:
    """Until the block ends these files have these lines, whatever stands in them by now: what runs
    is what was loaded."""
    before = {file: linecache.cache.get(file) for file in lines}
    for file, held in lines.items():
        # One without a time is not read again.
        linecache.cache[file] = (sum(map(len, held)), None, list(held), file)
    try:
        yield
    finally:
        for file, entry in before.items():
            linecache.cache.pop(file, None)
            if entry is not None:
                linecache.cache[file] = entry


def line_at(site: Site) -> str:
    """The source line of a site, "" where it cannot be read."""
    return linecache.getline(file_of(site.file, site.line), site.line)


def lines_at(site: Site) -> Iterator[str]:
    """The line of a site, and the first and the last line of the statement that it is in."""
    lines = linecache.getlines(file_of(site.file, site.line))
    if not 0 < site.line <= len(lines):
        return
    around = [s for s in _statements("".join(lines)) if s[0] <= site.line <= s[1]]
    first, last = min(around, key=lambda s: s[1] - s[0], default=(site.line, site.line))
    for line in dict.fromkeys((site.line, first, last)):
        yield lines[line - 1]


def passage(site: Site, around: int = 2) -> tuple[int, tuple[str, ...]]:
    """The lines of the statement that a site is in, and so many around it, with the number of the
    first; none where the file cannot be read."""
    lines = linecache.getlines(file_of(site.file, site.line))
    if not 0 < site.line <= len(lines):
        return site.line, ()
    spans = [s for s in _statements("".join(lines)) if s[0] <= site.line <= s[1]]
    first, last = min(spans, key=lambda s: s[1] - s[0], default=(site.line, site.line))
    first, last = max(1, first - around), min(len(lines), last + around)
    return first, tuple(line.rstrip("\n") for line in lines[first - 1 : last])


@lru_cache(maxsize=32)
def _statements(text: str) -> tuple[_Span, ...]:
    """First and last line of each statement; of one that holds others, only of its head."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ()
    return tuple(_span(node) for node in ast.walk(tree) if isinstance(node, ast.stmt))


def _span(node: ast.stmt) -> _Span:
    body = getattr(node, "body", None)
    if isinstance(node, ast.Match) or body:
        below = node.lineno if not body else body[0].lineno - 1
        return node.lineno, max(node.lineno, below)
    return node.lineno, node.end_lineno or node.lineno


def parsed(function: FunctionType) -> tuple[ast.AST, int] | None:
    """The source of a function as a tree, and the line of its file at which line 1 of the tree
    stands; None where it cannot be read. Of a wrapper, what it
    wraps."""
    return _parsed(inspect.unwrap(function).__code__)


@lru_cache(maxsize=4096)
def _parsed(code: CodeType) -> tuple[ast.AST, int] | None:
    try:
        return _tree(_block(code)), code.co_firstlineno
    except (SyntaxError, ValueError):  # it does not end where the indentation does
        pass
    try:
        lines, first = inspect.getsourcelines(code)  # which takes every word apart
        return _tree(lines), first
    except (OSError, TypeError, SyntaxError, ValueError):
        return None


def _tree(lines: list[str]) -> ast.AST:
    return ast.parse(inspect.cleandoc("\n" + "".join(lines)))


def _block(code: CodeType) -> list[str]:
    """The lines of a function, from its first decorator to the next line that is indented no
    deeper. Where a text or a bracket goes on past that line, they are cut off within it, and do
    not parse. Raises ValueError where there are no lines, or no `def`.
    """
    lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 :]
    if not lines:
        raise ValueError(f"{code.co_filename} has no line {code.co_firstlineno}")
    margin, head = _indent(lines[0]), 0
    if lines[0].lstrip().startswith("@"):
        head = next((n for n, line in enumerate(lines) if _defines(line, margin)), 0)
    if code.co_name == "<lambda>" or not _defines(lines[head], margin):
        raise ValueError(f"{code.co_name} is no def")
    for place, line in enumerate(lines[head + 1 :], head + 1):
        # What begins with a closing bracket goes on: `) -> Tensor:`.
        if line.strip() and _indent(line) <= margin and line.lstrip()[0] not in "#)]}":
            return lines[:place]
    return lines


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _defines(line: str, margin: int) -> bool:
    return _indent(line) == margin and line.lstrip().startswith(("def ", "async def "))


def assigned(kind: type, name: str, within: str) -> Site | None:
    """Where the method `within` of a class, or of one that it derives from, assigns to
    `self.name`, or calls a method of it; None where that cannot be read."""
    for owner in kind.__mro__:
        method = owner.__dict__.get(within)
        if not inspect.isfunction(method):
            continue
        method = inspect.unwrap(method)
        read = parsed(method)
        if read is None:
            return None
        tree, first = read
        own = method.__code__.co_varnames[:1]
        for node in ast.walk(tree):
            if any(_is_own(target, name, own) for target in _targets(node)):
                line = first + node.lineno - 1  # pyright: ignore[reportAttributeAccessIssue]
                return Site(shortened(method.__code__.co_filename), line, method.__qualname__)
    return None


def _targets(node: ast.AST) -> Iterator[ast.AST]:
    """What a statement assigns to; of `self.seen.append(…)` and `self.seen[k] = …`, `self.seen`."""
    targets: list[ast.AST] = []
    if isinstance(node, ast.Assign):
        targets += node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets.append(node.target)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        if isinstance(function, ast.Attribute):
            targets.append(function.value)
    while targets:
        target = targets.pop()
        if isinstance(target, ast.Tuple | ast.List):
            targets += target.elts
        elif isinstance(target, ast.Subscript):
            targets.append(target.value)
        else:
            yield target


def _is_own(node: ast.AST, name: str, own: tuple[str, ...]) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == name
        and isinstance(node.value, ast.Name)
        and node.value.id in own
    )
