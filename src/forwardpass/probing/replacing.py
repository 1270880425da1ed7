"""Replacing: another function where the code of a module calls an activation as a function."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

import msgspec
import torch
from torch import nn

from forwardpass.code.frames import Frames
from forwardpass.errors import UsageError, nearest
from forwardpass.recording.interception import Interception
from forwardpass.recording.schemas import Schema
from forwardpass.tensors.modules import (
    attributes,
    is_training,
    part_at,
    parts_of,
    put_in_place,
    set_training,
)

Function = Literal[
    "identity", "relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu", "softplus",
    "hardswish",
]  # fmt: skip
"""What can stand where an activation was; `identity`: nothing."""

_CLASSES: Final[dict[Function, type[nn.Module]]] = {
    "identity": nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "elu": nn.ELU, "leaky_relu": nn.LeakyReLU, "softplus": nn.Softplus,
    "hardswish": nn.Hardswish,
}  # fmt: skip


class Instead(msgspec.Struct, frozen=True, tag="instead", tag_field="edit"):
    """Another function stands where an activation was, or none.

    Attributes:
        path: of the module that is the activation; or, with a `site`, of the one that calls it as
            a function there.
        site: as the record has it, `digits.py:17`; "": the module itself is replaced.
        operator: which activation of that line, without overload: `aten.relu`.
    """

    path: str
    by: Function = "identity"
    site: str = ""
    operator: str = ""

    def edit(self, module: nn.Module) -> None:
        """Change a module that is ours."""
        replaced(module, (self,))


def function(name: Function) -> nn.Module:
    """The function as a module."""
    return _CLASSES[name]()


def replaced(module: nn.Module, edits: Iterable[Instead]) -> None:
    """Put other functions where activations were, in a module that is ours.

    Raises UsageError for a path that is not there, for TorchScript, and for the whole model.
    """
    pairs: list[tuple[nn.Module, nn.Module]] = []
    whole: _Whole | None = None
    for edit in edits:
        part = part_at(module, edit.path)
        if part is None:
            parts = dict(parts_of(module, every_name=True))
            raise UsageError(f"{edit.path!r:.60}: {nearest(edit.path, parts)}")
        if isinstance(module, torch.jit.ScriptModule) or isinstance(part, torch.jit.ScriptModule):
            raise UsageError(
                "TorchScript stays as it was scripted: give the module that it was made from"
            )
        if edit.site:
            whole = whole or _Whole.of(module)
            Replacing.on(whole, part).put(edit.site, edit.operator, edit.by)
        elif part is module:
            raise UsageError("the whole model is no part of itself: nothing can stand in its place")
        else:
            made = function(edit.by)
            set_training(made, is_training(part))
            pairs.append((part, made))
    put_in_place(module, *pairs)


class _Whole(NamedTuple):
    """The modules of a model: their classes, and the id of each."""

    kinds: set[type]
    parts: set[int]

    @staticmethod
    def of(module: nn.Module) -> _Whole:
        parts = [part for _, part in parts_of(module)]
        return _Whole({type(part) for part in parts}, {id(part) for part in parts})


class _ActivationSite(NamedTuple):
    site: str
    operator: str


class Replacing:
    """The forward of a module in a copy that is ours: while it runs, an activation that its own
    code calls on some line is another function.

    A line is known as records know it, and whose code runs by the forward around the call: neither
    other ways through the code nor the parts of the module move what is replaced.

    Attributes:
        count: how many calls were replaced, in all passes.
    """

    def __init__(self, whole: _Whole, part: nn.Module) -> None:
        self.count = 0
        self.part, self.whole = part, whole
        self.instead: dict[_ActivationSite, nn.Module] = {}
        self._forward = part.forward

    @classmethod
    def on(cls, whole: _Whole, part: nn.Module) -> Replacing:
        """That of a part, which is put around its forward where there is none yet."""
        there = attributes(part).get("forward")
        if isinstance(there, cls):
            return there
        made = cls(whole, part)
        attributes(part)["forward"] = made
        return made

    def put(self, site: str, operator: str, by: Function) -> None:
        """What stands in the place of an operator on a line."""
        self.instead[_ActivationSite(site, operator)] = function(by)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Intercepted(self):
            return self._forward(*args, **kwargs)


class _Intercepted(Interception):
    """The operators while the forward runs."""

    def __init__(self, of: Replacing) -> None:
        super().__init__()
        self._of = of
        self._operators = {place.operator for place in of.instead}
        self._frames = Frames(of.whole.kinds)

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        here = schema.packet in self._operators
        instead = self._instead(schema.packet) if here else None
        if instead is None:
            return func(*args, **kwargs)
        self._of.count += 1
        given: torch.Tensor = args[0]
        came = given.clone() if isinstance(instead, nn.Identity) else instead.forward(given)
        return given.copy_(came) if schema.may_write else came

    def _instead(self, packet: str) -> nn.Module | None:
        """What stands there, where the line is one of those and the module's own code runs it."""
        number, forward = self._frames.here(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        site = self._frames.sites()[number]
        found = self._of.instead.get(_ActivationSite(f"{site.file}:{site.line}", packet))
        if found is None or forward is None:
            return found
        whose = forward.f_locals.get(next(iter(forward.f_code.co_varnames), ""))
        is_other = id(whose) in self._of.whole.parts and whose is not self._of.part
        return None if is_other else found
