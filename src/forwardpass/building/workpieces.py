"""Workpiece: a module that is ours to change, and what a step may ask of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import nn

from forwardpass.building.replicas import Example, Inputs
from forwardpass.building.subjects import arguments_of
from forwardpass.errors import BuildError
from forwardpass.nouns.plans import Step
from forwardpass.recording import Recording
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import recorded


class Workpiece:
    """What a step changes.

    Attributes:
        module: a copy in eval mode. Its parameters share their storage with the user's: put new
            tensors in their place, never write into them. Another module may take its place.
        example: a batch that it takes.
        step: the step that is at work, for errors.
        tried: the batches by which steps are proved: the example, and those of other sizes.
        selected: the paths that its `where` chose; "" is the module itself.
        declared: the outputs that leave, by name; empty while all do.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        self.module = module
        self.example = example
        self.step = Step("")
        self.tried: Sequence[Inputs] = (example.inputs,)
        self.selected: Collection[str] = ()
        outputs = example.signature.outputs if example.signature else ()
        self.declared = tuple(output.path for output in outputs)

    def call(self) -> Pass:
        """The pass of the module as it is now, on the example."""
        args, kwargs = arguments_of(self.module, self.example.signature, self.example.inputs)
        return Pass.of(self.module, args, kwargs, grad="off")

    def recording(self) -> Recording:
        """That pass, recorded."""
        return recorded(type(self.module).__name__, self.call(), ())

    def batches(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What the module is called with for each batch of the user's data, anew at each call.

        Raises BuildError where there are no data.
        """
        if self.example.data is None:
            raise BuildError(
                f"{self.step} is fitted to data, and there are none: write an artefact with "
                "`fwd export FORWARD -o NAME.fwd --calibrate DATA`, and use that"
            )
        for batch in self.example.data:
            yield arguments_of(self.module, self.example.signature, batch)
