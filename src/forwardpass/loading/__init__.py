"""A reference in, a Forward out: what `load` opens, and what reading it may execute.

    file.py, file.py:name       a Model, a module, or a function that makes one
    package.module:name         the same from an installed package
    folder                      transformers, or sentence-transformers with its pooling
    pkg:package/path            a folder or file that an installed package carries
    hf:org/name@revision        a model of the Hugging Face hub, from its cache or downloaded
    NAME.fwd                    an artefact, what `export` wrote; its sums are checked
    model.pt2                   an exported program, opened only after proof that it is data
    model.pt                    TorchScript

One file a kind. Nothing is unpickled, and no remote code is run.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from forwardpass.errors import GrammarError, UsageError
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.plans import Backend, Plan, split
from forwardpass.nouns.programs import Trust

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load"]

_BACKEND = re.compile(r"(^|\s)@(\s|$)")


def load(
    reference: str | os.PathLike[str] | nn.Module | Model | Forward,
    *,
    trust: Trust | None = None,
    rebuild: bool = False,
) -> Forward:
    """The Forward that `reference` names.

    Args:
        reference: text such as `"resnet.py | cast(bf16) @ eager"`, a path, a `torch.nn.Module`, a
            Model, or a Forward, which is returned as it is.
        trust: the highest class that may be opened, "data", "code" or "native". Without it, any
            but of artefacts, of which data alone.
        rebuild: an artefact that does not fit this machine may be made anew for it, each time that
            it is built, where it holds what that needs.

    Raises:
        GrammarError: the text does not parse, or names no model.
        LoadError: there is no such model, or it cannot be opened; says what is there instead.
        UsageError: `reference` is something else; `rebuild` of what is no artefact.
    """
    found = _found(reference, trust)
    if rebuild:
        from forwardpass.loading.artefacts import rebuilt

        return rebuilt(found)
    return found


def _found(
    reference: str | os.PathLike[str] | nn.Module | Model | Forward, trust: Trust | None
) -> Forward:
    if isinstance(reference, Forward):
        return reference
    if isinstance(reference, Model):
        return Forward(reference)
    if isinstance(reference, os.PathLike):
        return _opened(os.fspath(reference), Plan(), trust, names_backend=False)
    if isinstance(reference, str):
        name, plan = split(reference)
        if not name:
            raise GrammarError(
                f"{reference!r}: a reference is missing before the plan; "
                "write for example `model.py @ eager`"
            )
        rest = reference.strip()[len(name) :]
        return _opened(name, plan, trust, names_backend=_BACKEND.search(rest) is not None)
    return Forward(_module_or_refuse(reference))


def _opened(name: str, plan: Plan, trust: Trust | None, *, names_backend: bool) -> Forward:
    from forwardpass.loading.references import resolve

    found = resolve(name, trust)
    if isinstance(found, Model):
        return Forward(found, plan)
    steps = found.plan.steps + plan.steps
    backend: Backend = plan.backend if names_backend else found.plan.backend
    return Forward(found.model, Plan(steps, backend))


def _module_or_refuse(other: object) -> Model:
    """A bare module as a Model. Raises UsageError for anything else."""
    from torch import nn

    if isinstance(other, nn.Module):
        return Model(other)
    hint = ""
    if isinstance(other, type) and issubclass(other, nn.Module):
        hint = f"; call the class to make a module: load({other.__name__}(…))"
    elif callable(other):
        hint = "; call it if it makes a module, or wrap it in the forward of a Module"
    raise UsageError(
        "load takes the text of a reference, a path, a torch.nn.Module, a Model or a Forward, "
        f"not {type(other).__name__} {_short(other)}{hint}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
