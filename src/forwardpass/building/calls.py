"""The arguments of a step or a backend, as functions take them."""

from __future__ import annotations

import inspect
from typing import Any, Final

from forwardpass.errors import UsageError, nearest
from forwardpass.nouns.plans import Argument, Backend, Scalar, Step

_KINDS: Final = {
    "str": "a text", "bool": "true or false", "int": "a whole number", "float": "a number",
}  # fmt: skip


def bound(call: Step | Backend, *functions: tuple[Any, int]) -> list[dict[str, Any]]:
    """The arguments of a step or a backend by name, for each of the functions that take them.

    With each function stands how many of its first parameters are not the user's; nor are those
    that go by keyword only. Raises UsageError for arguments that do not fit.
    """
    each = [
        [
            p
            for p in list(inspect.signature(f).parameters.values())[skip:]
            if p.kind is not p.KEYWORD_ONLY
        ]
        for f, skip in functions
    ]
    parameters = {p.name: p for part in each for p in part}
    known = list(parameters)
    bound: dict[str, Argument] = {}
    for place, argument in enumerate(call.arguments):
        if not argument.name and place >= len(known):
            raise UsageError(f"{call}: {call.name} takes at most {len(known)} arguments")
        name = argument.name or known[place]
        if name not in known:
            raise UsageError(
                f"{call}: {call.name} has no argument {name!r}; {nearest(name, known)}"
            )
        if name in bound:
            raise UsageError(f"{call}: {call.name} is given {name!r} twice")
        bound[name] = argument
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in bound]
    if missing:
        raise UsageError(
            f"{call}: {call.name} needs {', '.join(missing)}: {call.name}({missing[0]}=…)"
        )
    values = {name: _value(call, parameters[name], given) for name, given in bound.items()}
    return [{p.name: values[p.name] for p in part if p.name in values} for part in each]


def _value(call: Step | Backend, parameter: inspect.Parameter, given: Argument) -> Scalar:
    """What an argument is for a parameter. A number is a text where one is asked for: an output may
    be called 0. Of annotations those are compared that name nothing but kinds of arguments."""
    value, annotation = given.value, parameter.annotation
    wanted = set(str(getattr(annotation, "__name__", annotation)).split(" | "))
    if not wanted <= {*_KINDS, "None"} or (kind := type(value).__name__) in wanted:
        return value
    if (kind == "NoneType" and "None" in wanted) or (kind == "int" and "float" in wanted):
        return value
    if "str" in wanted:
        return given.text
    expected = " or ".join(_KINDS[name] for name in _KINDS if name in wanted)
    raise UsageError(f"{call}: {parameter.name} must be {expected}, and it is {given.text}")
