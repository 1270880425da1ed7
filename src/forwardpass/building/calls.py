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
    each = [parameters(function, skip) for function, skip in functions]
    known = {name: p for part in each for name, p in part.items()}
    written = written_arguments(call, *functions)
    missing = [n for n, p in known.items() if p.default is p.empty and n not in written]
    if missing:
        raise UsageError(
            f"{call}: {call.name} needs {', '.join(missing)}: {call.name}({missing[0]}=…)"
        )
    values = {name: _value(call, known[name], given) for name, given in written.items()}
    return [{name: values[name] for name in part if name in values} for part in each]


def written_arguments(call: Step | Backend, *functions: tuple[Any, int]) -> dict[str, Argument]:
    """The same as they were written. Raises UsageError for one that there is not, and for one that
    is given twice."""
    known = list(dict.fromkeys(name for f, skip in functions for name in parameters(f, skip)))
    found: dict[str, Argument] = {}
    for place, argument in enumerate(call.arguments):
        if not argument.name and place >= len(known):
            raise UsageError(f"{call}: {call.name} takes at most {len(known)} arguments")
        name = argument.name or known[place]
        if name not in known:
            raise UsageError(
                f"{call}: {call.name} has no argument {name!r}; {nearest(name, known)}"
            )
        if name in found:
            raise UsageError(f"{call}: {call.name} is given {name!r} twice")
        found[name] = argument
    return found


def parameters(function: Any, skip: int) -> dict[str, inspect.Parameter]:
    """The parameters that are the user's, by name: behind the first ones, and not by keyword
    only."""
    found = list(inspect.signature(function).parameters.items())[skip:]
    return {name: one for name, one in found if one.kind is not one.KEYWORD_ONLY}


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
