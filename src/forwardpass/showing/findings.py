"""Findings: a line for each, with its remedy; then what ran, what was skipped, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from forwardpass.nouns.findings import SEVERITIES, Finding, Findings, Ran
from forwardpass.showing.wording import BLUE, GREEN, ORANGE, VERMILLION, facts, plain, seconds

_SIGNS = {"error": ("✗", VERMILLION), "warning": ("!", ORANGE), "note": ("·", BLUE)}
_INDENT = 4


def shown(findings: Findings) -> RenderableType:
    """Findings as rich draws them."""
    parts: list[RenderableType] = [_headline(findings)]
    for finding in findings:
        parts += ["", _FindingLines(finding)]
    parts += ["", facts(_facts(findings))]
    return Group(*parts)


def _headline(findings: Findings) -> Text:
    counts = Counter(finding.severity for finding in findings)
    if not counts:
        return Text("✓ nothing found", style=f"bold {GREEN}")
    sign, colour = _SIGNS[next(s for s in SEVERITIES if counts[s])]
    said = ", ".join(_many(counts[s], s) for s in SEVERITIES if counts[s])
    return Text(f"{sign} {said}", style=f"bold {colour}")


def _many(count: int, thing: str) -> str:
    if count == 1:
        return f"1 {thing}"
    return f"{count:,} {thing}" + ("es" if thing.endswith("s") else "s")


class _FindingLines:
    """`✗ error rule file:line (module): message → remedy`; what does not fit goes on further in."""

    def __init__(self, finding: Finding) -> None:
        sign, colour = _SIGNS[finding.severity]
        text = Text()
        text.append(f"{sign} {finding.severity}", style=f"bold {colour}")
        text.append(f" {plain(finding.rule)}", style="bold")
        place = _place(finding)
        text.append(f" {plain(place)}" if place else "", style="dim")
        text.append(f": {plain(finding.message)}")
        text.append(" → ", style=colour)
        text.append(str(plain(finding.remedy)))
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        first = self._text.wrap(console, options.max_width, overflow="fold")[0]
        first.rstrip()
        yield first
        left = self._text.plain[len(first.plain) :]
        if not left.strip():
            return
        rest = self._text[len(self._text.plain) - len(left.lstrip()) :]
        for line in rest.wrap(console, max(options.max_width - _INDENT, 1), overflow="fold"):
            line.rstrip()
            yield Text(" " * _INDENT) + line


def _place(finding: Finding) -> str:
    site = "" if finding.site is None else str(finding.site)
    module = f"({finding.module})" if finding.module else ""
    return f"{site} {module}".strip()


def _facts(findings: Findings) -> Iterator[tuple[str, Text | str]]:
    yield "forward", findings.forward
    yield "pass", f"{seconds(findings.pass_seconds)}; the check took {_cost(findings)}"
    yield "ran", _ran(findings.ran)
    for skipped in findings.skipped:
        yield "skipped", f"{skipped.rule}: {skipped.reason}"
    if findings.ignored:
        yield "ignored", f"{_many(findings.ignored, 'finding')}, by comments or pyproject.toml"


def _cost(findings: Findings) -> str:
    took = seconds(findings.seconds)
    if not findings.pass_seconds:
        return took
    return f"{took}, {findings.seconds / findings.pass_seconds:,.0f} × as long"


def _ran(ran: Sequence[Ran]) -> str:
    """Each rule with the passes that it made and its time."""
    said = [f"{one.rule} {_passes(one.passes)}{seconds(one.seconds)}" for one in ran]
    return " · ".join(said) or "no rule"


def _passes(count: int) -> str:
    return "" if not count else f"{_many(count, 'pass')}, "
