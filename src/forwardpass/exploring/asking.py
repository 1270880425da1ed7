"""Answerable: a question of the page, checked; its key is what its answer is kept under."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

import msgspec

from forwardpass.errors import UsageError, nearest
from forwardpass.exploring import questions as folder
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.tiles import Tile
from forwardpass.nouns.folders import plugins
from forwardpass.nouns.progress import Steps

Answer = msgspec.Struct | Tile


class PageQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As a page asks it.

    Attributes:
        of: `file.function` in the folder of questions, such as `map.structure`.
        arguments: of that function, by name.
        again: whether it is answered anew where it was answered before.
    """

    of: str
    arguments: dict[str, Any] = {}
    again: bool = False


class Answerable(NamedTuple):
    """A question that can be answered.

    Attributes:
        key: the same for the same question. again: see Question.
    """

    key: str
    answer: Callable[[Exploration, Steps], Answer]
    again: bool = False


@cache
def known() -> dict[str, tuple[Callable[..., Answer], type[msgspec.Struct]]]:
    """Every question, with the form of its arguments."""
    return {
        f"{name}.{asks.__name__}": (asks, _form(asks))
        for name, file in plugins(folder).items()
        for asks in file.ASKED
    }


def views() -> list[ModuleType]:
    """The files that are views of the page, in their order."""
    found = [file for file in plugins(folder).values() if hasattr(file, "VIEW")]
    return sorted(found, key=lambda file: file.VIEW.place)


def asked(question: PageQuestion) -> Answerable:
    """Raises UsageError for an unknown question, and for arguments that do not fit."""
    if question.of not in known():
        raise UsageError(f"the question {question.of!r:.60}: {nearest(question.of, known())}")
    function, form = known()[question.of]
    try:
        arguments = msgspec.convert(question.arguments, form)
    except msgspec.ValidationError as error:
        raise UsageError(f"the question {question.of}: {error}") from None
    values = {name: getattr(arguments, name) for name in form.__struct_fields__}
    key = msgspec.json.encode([question.of, arguments], order="sorted").decode()

    def answer(exploration: Exploration, steps: Steps) -> Answer:
        return function(exploration, steps, **values)

    return Answerable(key, answer, question.again)


def _form(function: Callable[..., Answer]) -> type[msgspec.Struct]:
    """The arguments of a question after the first two, as a form that checks them."""
    hints = get_type_hints(function)
    fields: list[Any] = []
    for parameter in list(inspect.signature(function).parameters.values())[2:]:
        kind = hints[parameter.name]
        has_default = parameter.default is not parameter.empty
        fields.append((parameter.name, kind, parameter.default) if has_default
                      else (parameter.name, kind))  # fmt: skip
    return msgspec.defstruct(
        function.__name__, fields, frozen=True, forbid_unknown_fields=True, kw_only=True
    )
