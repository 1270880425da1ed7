"""A Diff: whether two passes part, where first, and which layer makes most of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.diffs import CallDiff, Diff, Error, Fork, LayerDiff, OutputDiff
from forwardpass.nouns.fingerprints import Changes
from forwardpass.showing.wording import GREEN, ORANGE, VERMILLION, facts, plain
from forwardpass.tensors.distances import share

_MOST_LAYERS, _MOST_LINES = 12, 5
_VERDICTS = {
    "same": ("✓", GREEN, "the outputs are equal bit for bit"),
    "rounding": ("✓", GREEN, "the outputs differ by rounding"),
    "differs": ("✗", VERMILLION, "the outputs differ"),
}


def shown(diff: Diff) -> RenderableType:
    """A Diff as rich draws it."""
    sign, colour, said = _VERDICTS[diff.verdict]
    parts: list[RenderableType] = [
        plain(Text(f"{sign} {said}", style=f"bold {colour}")),
        facts(_facts(diff)),
    ]
    if diff.layers and diff.verdict != "same":
        parts += ["", _layers(diff)]
    return Group(*parts)


def changed(found: Changes) -> RenderableType:
    """What is not as a fingerprint says, as rich draws it."""
    if not found.changes:
        said = Text(f"✓ {found.forward} is as its fingerprint says", style=f"bold {GREEN}")
        return Group(plain(said), facts([("compared", ", ".join(found.compared))]))
    count = len(found.changes)
    said = f"✗ {found.forward} is not as its fingerprint says: {count:,} change{'s' * (count > 1)}"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("what", overflow="fold")
    for title in ("before", "now"):
        table.add_column(title, justify="right", overflow="fold")
    for change in found.changes:
        table.add_row(plain(change.what), plain(change.before), plain(change.now))
    return Group(plain(Text(said, style=f"bold {VERMILLION}")), "", table)


def _facts(diff: Diff) -> Iterator[tuple[str, Text | str]]:
    yield "a", diff.a
    yield "b", diff.b
    for output in diff.outputs:
        yield "output", _output(output)
    for said in diff.only_outputs:
        yield "output", Text(f"✗ {said}", VERMILLION)
    if diff.first >= 0:
        yield "first", _step(diff.steps[diff.first])
    if diff.guilty is not None:
        hidden = "; no more of it comes out than rounding" if diff.verdict == "rounding" else ""
        yield "most", _guilty(diff.guilty) + hidden
    elif diff.verdict == "differs" and any(step.made is not None for step in diff.steps):
        yield "most", "no layer makes more of it than rounding: it came in from outside"
    if diff.fork is not None:
        for said in _fork(diff.fork):
            yield "parted", Text(f"! {said}", ORANGE)
    yield from _unpaired(diff)
    yield "floor", diff.floor
    for note in diff.notes:
        yield "note", note


def _unpaired(diff: Diff) -> Iterator[tuple[str, str]]:
    """The calls without a partner, those of one line together; views are left out."""
    lines = Counter(
        (f"only {one.side}", f"{one.operator} in {one.module or 'the module'}, {one.site}")
        for one in diff.unpaired
        if one.kind not in ("view", "host")
    )
    for (side, said), times in list(lines.items())[:_MOST_LINES]:
        yield side, f"{said}, {times:,} ×" if times > 1 else said
    more = sum(list(lines.values())[_MOST_LINES:])
    if more:
        yield "", f"and {more:,} more calls without a partner (--json)"


def _output(output: OutputDiff) -> Text | str:
    sizes = " ".join(map(str, output.shape))
    error = output.error
    if error.max_absolute == 0 and not error.unlike:
        return f"{output.path}[{sizes}] equal bit for bit"
    said = f"{output.path}[{sizes}] off by {share(error.relative)}{_more(error)}"
    said += f"; rounding accounts for {share(output.tolerance)}"
    if output.flips is not None:
        said += f"; {output.flips:,} of {output.rows:,} top-1 flipped"
    return Text(said) if output.within else Text(f"✗ {said}", VERMILLION)


def _more(error: Error) -> str:
    cosine = "" if error.cosine is None else f", cosine {error.cosine:.6f}"
    unlike = f", {error.unlike:,} not finite in one of them" if error.unlike else ""
    return f" (at most {error.max_absolute:.2g}{cosine}{unlike})"


def _step(step: CallDiff) -> str:
    where = step.module or "the module"
    return f"call {step.a} parts: {step.operator} in {where}, {step.site}, by {_size(step.error)}"


def _size(error: Error) -> str:
    return f"{error.unlike:,} numbers not finite" if error.unlike else share(error.relative)


def _guilty(layer: LayerDiff) -> str:
    said = f"{layer.path or 'the module'} ({layer.kind}) makes {share(layer.made)}"
    if layer.site is not None:
        said += f", {layer.site}"
    if layer.missing:
        said += f"; {', '.join(layer.missing[:_MOST_LINES])}"
    if layer.rewired:
        said += f"; other values go into {', '.join(layer.rewired[:_MOST_LINES])}"
    return said


def _fork(fork: Fork) -> Iterator[str]:
    if fork.a is not None or fork.b is not None:
        after = "" if fork.after is None else f"after {fork.after} "
        a, b = (str(site) if site else "the end" for site in (fork.a, fork.b))
        yield f"{after}a went to {a}, b to {b}"
    for site, one, other in fork.counts:
        yield f"{site} ran {one:,} × in a, {other:,} × in b"


def _layers(diff: Diff) -> Table:
    """The layers by the error that they make of equal numbers."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("layer", overflow="fold")
    for title in ("made here", "÷ rounding", "off by"):
        table.add_column(title, justify="right", no_wrap=True)
    guilty = [layer for layer in diff.layers if layer.guilty]
    for layer in guilty[:_MOST_LAYERS]:
        name = layer.path or f"({layer.kind})"
        if layer.other and not layer.other.endswith(f".{layer.path}"):
            name += f" → {layer.other}"
        if diff.verdict == "differs" and not layer.comes_out:
            name += " (heals)"
        times = layer.made / layer.tolerance if layer.tolerance else math.inf
        row = (
            plain(name),
            share(layer.made),
            f"{times:.2g}" if times < 1e6 else f"{times:.0e}",
            "" if layer.relative is None else share(layer.relative),
        )
        table.add_row(*row, style=VERMILLION if layer is diff.guilty else None)
    if len(guilty) > _MOST_LAYERS:
        table.add_row(f"and {len(guilty) - _MOST_LAYERS:,} more")
    if len(guilty) < len(diff.layers):
        table.add_row(f"{len(diff.layers) - len(guilty):,} within rounding")
    return table
