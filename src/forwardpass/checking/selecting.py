"""Which rules run, and which findings the user's code or settings leave out.

    [tool.forwardpass.check]
    ignore = ["unused"]

    [tool.forwardpass.check.per-file]
    "models/old/*" = ["host-boundary", "wasted-work"]

and `# fwd: ignore[rule]` on the line that a finding points at, or where its statement begins or
ends.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from forwardpass.code.sources import file_of, lines_at
from forwardpass.errors import UsageError, nearest
from forwardpass.nouns.findings import Finding

_COMMENT = re.compile(r"#\s*fwd:\s*ignore\[([\w\-, ]+)\]")
_KEYS = ("ignore", "per-file", "rules")


@dataclass(frozen=True)
class Settings:
    """What the nearest pyproject.toml says; nothing where there is none.

    Attributes:
        root: its folder, from which the globs go.
        rules: the rules that run; None for all.
        ignore: rules that do not.
        per_file: globs of files, and the rules whose findings in them are left out.
    """

    root: Path
    rules: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    per_file: tuple[tuple[str, frozenset[str]], ...] = ()

    def leaves_out(self, finding: Finding) -> bool:
        """Whether these settings or a comment in the code say that a finding is not wanted."""
        if finding.site is None:
            return False
        comments = (_COMMENT.search(line) for line in lines_at(finding.site))
        if any(match and finding.rule in re.split(r"[,\s]+", match[1]) for match in comments):
            return True
        names = {finding.site.file, *self._below(finding.site.file)}
        return any(
            finding.rule in rules and any(fnmatchcase(name, glob) for name in names)
            for glob, rules in self.per_file
        )

    def _below(self, file: str) -> Iterator[str]:
        path = Path(file_of(file)).absolute()
        if path.is_relative_to(self.root):
            yield path.relative_to(self.root).as_posix()


def settings(start: Path, known: Collection[str]) -> Settings:
    """The settings of the nearest pyproject.toml from `start` upwards.

    Raises UsageError, which names the file and the key, for what is no such table.
    """
    start = start.absolute()
    file = next((p for d in (start, *start.parents) if (p := d / "pyproject.toml").is_file()), None)
    if file is None:
        return Settings(start)
    try:
        document: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: it cannot be read: {error}") from error
    own = _table(file, "tool.forwardpass", document.get("tool", {}).get("forwardpass", {}))
    for key in own:
        if key != "check":
            raise UsageError(
                f"{file}: [tool.forwardpass] has no key {key!r}; {nearest(key, ['check'])}"
            )
    where = "tool.forwardpass.check"
    table = _table(file, where, own.get("check", {}))
    for key in table:
        if key not in _KEYS:
            raise UsageError(f"{file}: [{where}] has no key {key!r}; {nearest(key, _KEYS)}")
    per_file = _table(file, f"{where}.per-file", table.get("per-file", {}))
    return Settings(
        file.parent,
        _rules(file, f"[{where}] rules", table["rules"], known) if "rules" in table else None,
        _rules(file, f"[{where}] ignore", table.get("ignore", []), known),
        tuple(
            (glob, frozenset(_rules(file, f"[{where}.per-file] {glob!r}", value, known)))
            for glob, value in per_file.items()
        ),
    )


def _table(file: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{file}: {name} is a table, [{name}], not {value!r}")
    return cast("dict[str, Any]", value)


def _rules(file: Path, key: str, value: Any, known: Collection[str]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UsageError(f'{file}: {key} is a list of rules, such as ["unused"], not {value!r}')
    names = cast("list[str]", value)
    for name in names:
        if name not in known:
            raise UsageError(f"{file}: {key}: there is no rule {name!r}; {nearest(name, known)}")
    return tuple(names)


def chosen(
    rules: Sequence[str | Callable[..., Any]] | None,
    ignore: Sequence[str],
    every: Mapping[str, Callable[..., Any]],
    own: Settings,
) -> dict[str, Callable[..., Any]]:
    """The rules to run, by name: those that the call names, else those of the settings.

    Raises UsageError for a name that no rule has, and where two rules have one name.
    """
    if isinstance(rules, str) or isinstance(ignore, str):
        raise UsageError('check takes rules= and ignore= as lists of names, such as ["unused"]')
    for name in [*(rules or ()), *ignore]:
        if isinstance(name, str) and name not in every:
            raise UsageError(f"there is no rule {name!r}; {nearest(name, every)}")
    left_out = {*ignore} if rules is not None else {*ignore, *own.ignore}
    if rules is None:
        rules = list(every) if own.rules is None else own.rules
    found: dict[str, Callable[..., Any]] = {}
    for rule in rules:
        name, function = (rule, every[rule]) if isinstance(rule, str) else (_named(rule), rule)
        if found.setdefault(name, function) is not function:
            raise UsageError(f"two rules have the name {name!r}; rename one of the functions")
    return {name: rule for name, rule in found.items() if name not in left_out}


def _named(rule: Callable[..., Any]) -> str:
    if not callable(rule):
        raise UsageError(
            f"a rule is a name or a function rule(probe) -> findings, not {type(rule).__name__}"
        )
    return getattr(rule, "__name__", type(rule).__name__).strip("_").replace("_", "-")
