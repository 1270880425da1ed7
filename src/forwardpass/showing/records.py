"""A Record: the pass in one line, what it amounts to, and the tree of its modules."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.showing.drawing import pieces, sizes
from forwardpass.showing.wording import (
    ORANGE,
    VERMILLION,
    amount,
    amount_of,
    facts,
    plain,
    seconds,
    visible,
)

_DEPTH = 3
_MOST_CALLS = 200
_LONG_NAME = 20
_NARROWEST = 24
"""Columns that the names of calls keep, whatever else there is to show."""


@dataclass
class _Node:
    """One module of the tree: all its calls together."""

    path: str
    kind: str
    depth: int
    times: int = 0
    output: str = ""
    calls: int = 0
    parameters: int = 0
    macs: int = 0
    unknown: bool = False
    flags: Counter[str] = field(default_factory=Counter[str])
    own: list[Call] = field(default_factory=list[Call])
    children: dict[str, _Node] = field(default_factory=dict[str, "_Node"])

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2].rpartition("/")[2]

    def likeness(self) -> object:
        """What siblings must share to be shown as one."""
        return (
            self.kind, self.times, self.output, self.calls, self.parameters, self.macs,
            tuple(self.flags.items()), tuple(c.likeness() for c in self.children.values()),
        )  # fmt: skip


def shown(
    record: Record, depth: int = _DEPTH, calls: bool = False, module: str | None = None
) -> RenderableType:
    """A Record as rich draws it.

    Args:
        depth: levels of modules in the table.
        calls: list the calls of every module, too.
        module: a glob of paths; only these modules, with what is in them.
    """
    tree = _tree(record)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    narrowest = _NARROWEST if calls else None
    table.add_column("module", overflow="fold", ratio=1, min_width=narrowest)
    for title in ("output", "macs") if calls else ("calls", "output", "parameters", "macs"):
        table.add_column(title, justify="right", no_wrap=title != "output")
    table.add_column("written at" if calls else "", no_wrap=calls, overflow="fold")
    for node in _chosen(tree, module):
        _rows(table, record, node, node.depth, depth, calls)
    return Group(_Chain(pieces(record)), facts(_facts(record)), "", table)


class _Chain:
    """The pieces of the first line with arrows between; it breaks before an arrow only."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = [visible(piece) for piece in pieces]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [self._pieces[0]]
        for piece in self._pieces[1:]:
            longer = f"{lines[-1]} ─▶ {piece}"
            if cell_len(longer) <= options.max_width:
                lines[-1] = longer
            else:
                lines.append(f"  ─▶ {piece}")
        yield Text("\n".join(lines), style="bold", overflow="fold")


class _Name:
    """A name in the tree; what does not fit goes on below it, further in."""

    def __init__(self, name: str, indent: int, style: str = "") -> None:
        self._text, self._indent = Text(visible(name), style=style), indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first, width = Text(" " * self._indent), options.max_width - self._indent
        if self._text.cell_len <= width:
            yield first + self._text
            return
        for line in self._text.wrap(console, max(width - 4, 1), overflow="fold"):
            line.rstrip()
            yield first + line
            first = Text(" " * (self._indent + 4))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max(map(cell_len, self._text.plain.split()), default=0)
        return Measurement(self._indent + longest, self._indent + self._text.cell_len)


def _chosen(tree: _Node, module: str | None) -> list[_Node]:
    if module is None:
        return [tree]
    found: list[_Node] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop(0)
        if fnmatch.fnmatchcase(node.path, module):
            found.append(node)
        else:
            waiting += node.children.values()
    return found


def _facts(record: Record) -> Iterator[tuple[str, Text | str]]:
    yield "forward", record.forward
    if record.caller is not None:
        yield "called", f"at {record.caller}, after {seconds(record.began_seconds or 0.0)}"
    inputs = [f"{path} {record.values[s]}" for path, s in record.inputs.items()]
    yield "inputs", " · ".join(inputs) or "none"
    yield (
        "on",
        f"{record.device} · {record.mode} mode · grad {record.grad} · "
        f"torch {record.versions['torch']}",
    )
    totals = record.totals
    yield (
        "totals",
        f"{_many(totals.calls, 'call')} · {_many(totals.parameters, 'parameter')} · "
        f"{amount(totals.macs)} macs ({amount_of(totals.flops, 'flops')}) · "
        f"{amount_of(totals.bytes, 'B')} moved",
    )
    if totals.unknown:
        yield "unknown", Text(f"! no formula for {', '.join(totals.unknown)}: not counted", ORANGE)
    if lack := record.lacks("edges"):
        yield "unseen", Text(f"! {lack}", ORANGE)
    yield "path", record.path
    if record.changes:
        # the passes of `watch` are the user's own, and what they change stays changed
        then = "" if record.caller else "; the module was put back"
        yield "state", Text(f"! {_some(record.changes)}{then}", ORANGE)
    else:
        yield "state", "the pass changed nothing of the module"
    for path, names in record.reaches.items():
        every = sum(1 for p in record.parameters if not p.buffer)
        yield "reaches", f"{path} depends on {len(names)} of {every} parameters"
    for saved in record.saved[:5]:
        yield (
            "saved",
            f"{amount_of(saved.bytes, 'B')} in {_many(saved.tensors, 'tensor')} at {saved.site}",
        )
    for note in record.notes:
        yield "note", note
    if record.failed is not None:
        where = f", {record.failed.site}" if record.failed.site else ""
        operands = ", ".join(record.failed.operands) or "no tensors"
        at = f" in {record.failed.operator} on {operands}" if record.failed.operator else ""
        yield "failed", Text(f"✗ {record.failed.error}{at}{where}", VERMILLION)


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _some(items: tuple[str, ...], most: int = 4) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _tree(record: Record) -> _Node:
    root = _Node("", record.modules[0].kind if record.modules else "", 0)
    nodes: dict[int, _Node] = {}
    for number, entry in enumerate(record.modules):
        if entry.parent < 0:
            node = root
        else:
            parent = nodes[entry.parent]
            new = partial(_Node, entry.path, entry.kind, parent.depth + 1)
            node = parent.children.get(entry.path) or parent.children.setdefault(entry.path, new())
        nodes[number] = node
        node.times += 1
        if entry.outputs and not node.output:
            node.output = sizes(record.values[entry.outputs[0]])
    above = _ancestors(record)
    for call in record.calls:
        nodes[call.module].own.append(call)
        for node in {id(nodes[n]): nodes[n] for n in above[call.module]}.values():
            node.calls += call.is_operator
            node.macs += call.macs or 0
            node.unknown |= call.macs is None
            if call.kind in ("in-place", "random", "host"):
                node.flags[call.kind] += 1
    _count_parameters(record, root)
    return root


def _ancestors(record: Record) -> list[tuple[int, ...]]:
    above: list[tuple[int, ...]] = []
    for number, entry in enumerate(record.modules):
        above.append((number, *(above[entry.parent] if entry.parent >= 0 else ())))
    return above


def _count_parameters(record: Record, node: _Node) -> None:
    inside = f"{node.path}." if node.path else ""
    node.parameters = sum(
        p.elements
        for p in record.parameters
        if not p.buffer and any(name.startswith(inside) for name in (p.name, *p.aliases))
    )
    for child in node.children.values():
        _count_parameters(record, child)


def _rows(
    table: Table, record: Record, node: _Node, base: int, depth: int, calls: bool, name: str = ""
) -> None:
    indent = "  " * (node.depth - base)
    label = name or node.name or node.kind
    title = label if label == node.kind else f"{label} {node.kind}"
    times = f" ({node.times} ×)" if node.times > 1 else ""
    macs = (amount(node.macs) if node.macs else "") + (" + ?" if node.unknown else "")
    flags = plain(", ".join(f"{count} {flag}" for flag, count in node.flags.items()))
    parameters = amount(node.parameters) if node.parameters else ""
    cells = (f"{node.calls:,}", plain(node.output), parameters, macs, flags)
    table.add_row(_Name(f"{title}{times}", len(indent)), *(cells[1::2] if calls else cells))
    if calls:
        for call in node.own[:_MOST_CALLS]:
            _call_row(table, record, call, indent + "  ")
        if len(node.own) > _MOST_CALLS:
            table.add_row(f"{indent}  … {len(node.own) - _MOST_CALLS:,} more calls")
    if node.depth - base >= depth:
        return
    for members in _alike(list(node.children.values())):
        first, last = members[0], members[-1]
        folded = "" if len(members) == 1 else f"{first.name}…{last.name}, each of {len(members)}:"
        _rows(table, record, first, base, depth, calls, folded)


def _alike(children: list[_Node]) -> Iterator[list[_Node]]:
    """Neighbours that are the same but for their name, together."""
    group: list[_Node] = []
    for child in children:
        if group and child.likeness() != group[-1].likeness():
            yield group
            group = []
        group.append(child)
    if group:
        yield group


def _call_row(table: Table, record: Record, call: Call, indent: str) -> None:
    output = sizes(record.values[call.outputs[0]]) if call.outputs else ""
    site = record.site(call)
    said = call.name if call.name.lower().endswith(call.short) else f"{call.name} {call.short}"
    if len(call.name) > _LONG_NAME:
        said = call.short
    kind = "" if call.kind == "compute" else f" ({call.kind})"
    table.add_row(
        _Name(f"{call.index} {said}{kind}", len(indent), style="dim"),
        plain(output),
        "?" if call.macs is None else amount(call.macs) if call.macs else "",
        plain(f"{site.file.rpartition('/')[2]}:{site.line}"),
    )
