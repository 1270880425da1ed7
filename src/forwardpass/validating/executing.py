"""Executing the text that `to_python` writes of a record: a part of rung e."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from forwardpass.errors import UsageError
from forwardpass.keeping.memories import numbers
from forwardpass.nouns.validations import Fault
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.classes import classes_aside
from forwardpass.tensors.distances import apart, tolerance
from forwardpass.tensors.generators import GeneratorStates
from forwardpass.writing import written
from forwardpass.writing.literals import is_generator


def executed(done: Recording) -> tuple[list[Fault], str]:
    """Whether the text computes what came out of the pass, and why it was not executed, "" where it
    was.

    It sums in the order in which a person writes it, so it may differ by rounding.
    """
    given = (a for call in done.calls for a in (*call.arguments, *call.keywords.values()))
    if any(map(is_generator, given)):
        return [], "it draws from a generator of the model's own"
    try:
        text = written(done)
    except UsageError as refused:
        return [], str(refused)
    try:
        came, after = _outputs(done, text)
    except Exception as error:  # noqa: BLE001 - it is what validation has found
        said = f"the text of to_python does not run: {type(error).__name__}: {error}"
        return [Fault("e", -1, "", said)], ""
    most = tolerance({value.dtype for value in done.values if value.origin == "call"})
    found: list[Fault] = []
    for path, expected in done.returned.items():
        off = apart(came[path], expected) if path in came else float("inf")
        if off > (most if expected.is_floating_point() or expected.is_complex() else 0.0):
            if not after.equals(_left_by(done)):
                return [], "the pass sets random generators itself: the text draws other numbers"
            said = f"the text of to_python gives another output {path}, off by {off:.2g}"
            found.append(Fault("e", -1, "", said))
    if found and any(call.kind == "random" for call in done.calls):
        return [], "it draws other numbers than the pass, which may have seeded its generators"
    return found, ""


def _left_by(done: Recording) -> GeneratorStates:
    """The random generators as the pass itself leaves them."""
    with done.this.staged(contents=True) as (_, args, kwargs):
        done.this.module(*args, **kwargs)
        return GeneratorStates.now()


def _outputs(done: Recording, text: str) -> tuple[Mapping[str, torch.Tensor], GeneratorStates]:
    """What `forward` of the text gives for the inputs, the state and the constants of the pass, and
    the random generators as it leaves them."""
    space: dict[str, Any] = {}
    exec(compile(text, "<to_python>", "exec"), space)
    forward = space["forward"]
    takes_constants = "constants" in inspect.signature(forward).parameters
    this = replace(done.this, autocast={}, grad="off")  # what autocast casts stands in the text
    with this.staged(contents=True) as (state, args, kwargs):
        given = this.named(args, kwargs)
        held = {entry.name: entry.alias for entry in state.held.values()}
        with classes_aside():  # what the classes of the inputs call stands in the text
            inputs = [given[path].detach() for path in done.inputs]
        came = forward(*inputs, held, *([done.constants] if takes_constants else []))
        return {path: numbers(tensor) for path, tensor in came.items()}, GeneratorStates.now()
