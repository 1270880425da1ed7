"""Plan: how to compute, as text.

    forward = REFERENCE ["|" step]* ["@" backend]
    step    = NAME ["(" arguments ")"] ["where" ["!"] GLOB ("," ["!"] GLOB)*]
    backend = NAME ["(" arguments ")"] ["where" ["!"] GLOB ("," ["!"] GLOB)*]
    arguments: scalars, name=scalar

`|` and `@` stand between spaces, so that a reference such as `hf:org/name@main` may hold them.
Left of `@` a module becomes a module, from left to right; right of it stands the lowering.

>>> print(Plan.parse("| cast(bf16) where encoder.*, !*.norm @ eager(threads=2)"))
| cast(bf16) where encoder.*, !*.norm @ eager(threads=2)
>>> split("resnet.py | cast(bf16) @ eager")[0]
'resnet.py'
"""

from __future__ import annotations

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

import msgspec

from forwardpass.errors import GrammarError

Scalar = bool | int | float | str | None

_OPERATOR = re.compile(r"""("[^"]*")|(?:(?<=\s)|^)([|@])(?=\s|$)""")
_CALL = re.compile(r"""(?P<name>[A-Za-z_]\w*)\s*(?:\((?P<arguments>(?:"[^"]*"|[^")])*)\))?""")
_WHERE = re.compile(r"""(?P<call>(?:"[^"]*"|[^"])*?)\swhere(?:\s(?P<globs>.*))?""")
_ARGUMENT = re.compile(r"""\s*(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?(?P<text>"[^"]*"|[^\s,"()=]+)\s*""")
_GLOB = re.compile(r"!?[\w.*?\[\]-]+")


class Argument(msgspec.Struct, frozen=True):
    """One argument of a step or a backend, as it was written."""

    text: str
    name: str = ""

    @property
    def value(self) -> Scalar:
        if self.text.startswith('"'):
            return self.text[1:-1]
        if self.text in ("true", "false"):
            return self.text == "true"
        if self.text == "none":
            return None
        for kind in (int, float):
            try:
                return kind(self.text)
            except ValueError:
                continue
        return self.text

    def __str__(self) -> str:
        return f"{self.name}={self.text}" if self.name else self.text


class Step(msgspec.Struct, frozen=True):
    """One transformation of the module: a name, arguments, and the submodules it concerns."""

    name: str
    arguments: tuple[Argument, ...] = ()
    where: tuple[str, ...] = ()

    def selects(self, path: str) -> bool:
        """Whether the submodule at `path` is concerned: by a glob, and by no `!` glob."""
        return _selects(self.where, path)

    def __str__(self) -> str:
        return _call(self.name, self.arguments, self.where)


class Backend(msgspec.Struct, frozen=True):
    """What computes: a name, its arguments, and the submodules whose precision it may lower."""

    name: str = "eager"
    arguments: tuple[Argument, ...] = ()
    where: tuple[str, ...] = ()

    def selects(self, path: str) -> bool:
        """Whether the submodule at `path` is concerned: by a glob, and by no `!` glob."""
        return _selects(self.where, path)

    def __str__(self) -> str:
        return _call(self.name, self.arguments, self.where)


class Where(msgspec.Struct, frozen=True):
    """Globs of the paths of modules, as `where` has them; called with a path, whether it is chosen:
    by a glob, and by no `!` glob."""

    globs: tuple[str, ...]

    def __call__(self, path: str) -> bool:
        return _selects(self.globs, path)

    def idle(self, paths: Collection[str]) -> list[str]:
        """The globs that match none of the paths."""
        bare = (glob.removeprefix("!") for glob in self.globs)
        return [glob for glob in bare if not any(fnmatchcase(path, glob) for path in paths)]


class Plan(msgspec.Struct, frozen=True):
    """Steps from module to module, then a backend. The shortest is `@ eager`."""

    steps: tuple[Step, ...] = ()
    backend: Backend = Backend()

    @classmethod
    def parse(cls, text: str) -> Plan:
        """Parse everything after the reference. Raises GrammarError."""
        reference, plan = split(text)
        if reference:
            raise GrammarError(f"plan {text!r} must begin with `|` or `@`, not with {reference!r}")
        return plan

    def __str__(self) -> str:
        return " ".join([f"| {step}" for step in self.steps] + [f"@ {self.backend}"])


def split(text: str) -> tuple[str, Plan]:
    """Split the text of a forward into its reference and its Plan. Raises GrammarError."""
    pieces: list[tuple[str, str]] = []
    operator, start = "", 0
    for match in _OPERATOR.finditer(text):
        if match[1]:
            continue
        pieces.append((operator, text[start : match.start(2)].strip()))
        operator, start = match[2], match.end(2)
    pieces.append((operator, text[start:].strip()))
    reference, rest = pieces[0][1], pieces[1:]
    steps: list[Step] = []
    backend = Backend()
    for index, (operator, part) in enumerate(rest):
        if operator == "|":
            steps.append(Step(*_located(part, "step", text)))
        elif index != len(rest) - 1:
            raise GrammarError(f"{text!r}: the backend `@ {part}` must come last")
        else:
            backend = Backend(*_located(part, "backend", text))
    return reference, Plan(tuple(steps), backend)


def _located(part: str, kind: str, text: str) -> tuple[str, tuple[Argument, ...], tuple[str, ...]]:
    """The name, the arguments and the globs of a step or a backend."""
    match = _WHERE.fullmatch(part)
    if match is None:
        return (*_named(part, kind, text), ())
    globs = tuple(glob.strip() for glob in (match["globs"] or "").split(","))
    for glob in globs:
        if not _GLOB.fullmatch(glob):
            raise GrammarError(
                f"{text!r}: {glob!r} is not a glob of module names; "
                "expected `where encoder.*` or `where encoder.*, !*.norm`"
            )
    return (*_named(match["call"].strip(), kind, text), globs)


def _selects(where: tuple[str, ...], path: str) -> bool:
    wanted = [glob for glob in where if not glob.startswith("!")]
    unwanted = [glob[1:] for glob in where if glob.startswith("!")]
    return (not wanted or any(fnmatchcase(path, glob) for glob in wanted)) and not any(
        fnmatchcase(path, glob) for glob in unwanted
    )


def _named(part: str, kind: str, text: str) -> tuple[str, tuple[Argument, ...]]:
    match = _CALL.fullmatch(part)
    if match is None:
        raise GrammarError(
            f"{text!r}: cannot read the {kind} {part!r}; "
            'expected NAME or NAME(argument, name=value), text with spaces in "…"'
        )
    arguments: list[Argument] = []
    inside, at = (match["arguments"] or ""), 0
    while inside[at:].strip():
        found = _ARGUMENT.match(inside, at)
        if found is None or inside[found.end() : found.end() + 1] not in ("", ","):
            raise GrammarError(
                f"{text!r}: cannot read the arguments ({inside}) of {match['name']!r}; "
                'expected value or name=value, with commas between, text with spaces in "…"'
            )
        name = found["name"] or ""
        if name and any(name == known.name for known in arguments):
            raise GrammarError(f"{text!r}: {match['name']!r} is given {name!r} twice")
        if not name and arguments and arguments[-1].name:
            raise GrammarError(f"{text!r}: {match['name']!r} has a bare argument after a named one")
        arguments.append(Argument(found["text"], name))
        at = found.end() + 1
    return match["name"], tuple(arguments)


def _call(name: str, arguments: tuple[Argument, ...], where: tuple[str, ...]) -> str:
    call = f"{name}({', '.join(map(str, arguments))})" if arguments else name
    return f"{call} where {', '.join(where)}" if where else call
