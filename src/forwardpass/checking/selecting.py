"""Which rules run, and which findings the user's code or settings leave out."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forwardpass.errors import UsageError, nearest
from forwardpass.nouns.findings import Finding

_COMMENT = re.compile(r"#\s*fwd:\s*ignore\[([\w\-, ]+)\]")


def chosen(
    rules: Sequence[str | Callable[..., Any]] | None,
    ignore: Sequence[str],
    every: Mapping[str, Callable[..., Any]],
) -> dict[str, Callable[..., Any]]:
    """The rules to run, by name. Raises UsageError for a name that no rule has."""
    for name in [*(rules or ()), *ignore]:
        if isinstance(name, str) and name not in every:
            raise UsageError(f"there is no rule {name!r}; {nearest(name, sorted(every))}")
    found: dict[str, Callable[..., Any]] = {}
    for rule in every if rules is None else rules:
        if isinstance(rule, str):
            found[rule] = every[rule]
        else:
            found[getattr(rule, "__name__", "rule").replace("_", "-")] = rule
    return {name: rule for name, rule in found.items() if name not in ignore}


def is_ignored(finding: Finding) -> bool:
    """Whether `# fwd: ignore[rule]` stands on the line of a finding."""
    if finding.site is None:
        return False
    match = _COMMENT.search(linecache.getline(str(Path(finding.site.file)), finding.site.line))
    return match is not None and finding.rule in re.split(r"[,\s]+", match[1])
