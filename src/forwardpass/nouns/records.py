"""Record: one forward pass as it really happened, as a graph of calls."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from forwardpass.nouns.calls import Call, Edge, ModuleCall, Parameter, Site, Statistics, Value
from forwardpass.nouns.documents import Document
from forwardpass.nouns.graphs import Graph

if TYPE_CHECKING:
    import torch

    from forwardpass.nouns.explanations import Explanation
    from forwardpass.nouns.validations import Level, Validation


class Totals(msgspec.Struct, frozen=True):
    """What a whole pass amounts to.

    Attributes:
        calls: operators that ran; host calls are not among them.
        parameters: numbers in the parameters of the module, tied ones once.
        macs: multiply-accumulates of contractions: matmul, convolution, attention, RNN.
        flops: 2 × macs.
        elements: elementwise and reduction work, counted apart.
        bytes: read and written by the calls.
        unknown: contractions that no formula covers, by operator; they are not in `macs`.
    """

    calls: int
    parameters: int
    macs: int
    flops: int
    elements: int
    bytes: int
    unknown: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """The call at which a pass raised: its operator, its operands, where it was written."""

    operator: str
    operands: tuple[str, ...]
    module: str
    site: Site | None
    error: str


Need = Literal["edges", "origins", "numbers"]
"""What may be needed of a record: `edges`: all that leads from one call to another is known;
`origins`: of every tensor that a call read it is known where it came from; `numbers`: the pass
computed with numbers, and not with shapes alone."""


class Unseen(msgspec.Struct, frozen=True):
    """Something that a record does not know.

    Attributes:
        what: `origin`: nobody knows where a tensor came from, an orphan; `inside`: nobody knows
            which calls an operator made inside of itself.
        call: index of the call that reads the orphan, or is that operator; -1 where what is not
            known came out of the pass.
        said: the same in a sentence, which names the call.
    """

    what: Literal["origin", "inside"]
    call: int
    said: str


class Layer(msgspec.Struct, frozen=True):
    """A layer that computes `activation(W · x + b)`.

    Attributes:
        module: path of the module.
        affine: index of the call that computes W · x (+ b).
        weight, bias: names of its parameters; bias is "" for none.
        activation: index of the elementwise call that follows, or -1.
    """

    module: str
    affine: int
    weight: str
    bias: str
    activation: int


class Saved(msgspec.Struct, frozen=True):
    """Tensors that one line keeps for the backward pass, parameters not counted."""

    site: Site
    tensors: int
    bytes: int


class Record(
    Document,
    frozen=True,
    kw_only=True,
    dict=True,
    tag_field="schema",
    tag="forwardpass/record/1",
):
    """One recorded pass: a graph of Calls.

    Attributes:
        forward: the text of the Forward.
        inputs, outputs: serials of the values that went in and came out, by path.
        mode: train, eval, or mixed. grad: on, off, inference.
        device: where the pass ran.
        versions: of Python, torch and forwardpass.
        totals: see Totals.
        path: a hash over lines and operators in order: two inputs that went different ways
            through the code have different paths.
        calls, values, modules, sites: the graph; indices and serials are places in these.
        parameters: parameters and buffers, tied ones once.
        layers: the layers that compute `activation(W · x + b)`.
        changes: what the pass changed of the module's state, each in a sentence; the module itself
            was put back.
        notes: what one should know of how it was recorded.
        unseen: what the record does not know of the pass; see `lacks`.
        statistics: by serial, where they were asked for.
        reaches: by output, the parameters that it depends on through autograd (`grad="on"`).
        saved: what lines keep for backward (`saved=True`).
        failed: where the pass raised; the calls before it are there.
        caller: the line that called the module, and `began_seconds` since watching began; of
            records that `watch` made.
    """

    forward: str
    inputs: dict[str, int]
    outputs: dict[str, int]
    mode: Literal["train", "eval", "mixed"]
    grad: Literal["on", "off", "inference"]
    device: str
    versions: dict[str, str]
    totals: Totals
    path: str
    calls: tuple[Call, ...]
    values: tuple[Value, ...]
    modules: tuple[ModuleCall, ...]
    sites: tuple[Site, ...]
    parameters: tuple[Parameter, ...]
    layers: tuple[Layer, ...] = ()
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    statistics: dict[int, Statistics] = msgspec.field(default_factory=dict[int, Statistics])
    reaches: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict[str, tuple[str, ...]])
    saved: tuple[Saved, ...] = ()
    failed: Failed | None = None
    caller: Site | None = None
    began_seconds: float | None = None

    @cached_property
    def graph(self) -> Graph:
        """Who makes, reads and writes its values; made once."""
        return Graph(self.calls, self.values)

    @cached_property
    def held(self) -> dict[str, Parameter]:
        """Its parameters and buffers by each of their names; made once."""
        return {name: one for one in self.parameters for name in (*one.aliases, one.name)}

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Why calls must come after others: data, alias and mutation edges, by target."""
        return self.graph.edges

    def lacks(self, need: Need) -> str:
        """Why this record has not what is needed, in a sentence that names the call; "" where it
        has it."""
        if need == "numbers":
            return "the pass ran on meta tensors, which have no numbers" * (self.device == "meta")
        found = [one.said for one in self.unseen if need == "edges" or one.what == "origin"]
        more = f" (and {len(found) - 1:,} more like this)" if len(found) > 1 else ""
        return found[0] + more if found else ""

    def site(self, call: Call) -> Site:
        """Where a call was written."""
        return self.sites[call.site]

    def module(self, call: Call) -> ModuleCall:
        """The innermost module that was running at a call."""
        return self.modules[call.module]

    def of_module(self, path: str) -> Iterator[ModuleCall]:
        """The calls of the module at `path`, in order."""
        return (entry for entry in self.modules if entry.path == path)

    def ends(self, outputs: Collection[str] | None = None) -> set[int]:
        """The calls for which a pass is made: those that made these outputs, by path, and those
        that do something beside their results. None: all that came out."""
        wanted = self.outputs if outputs is None else outputs
        found = self.graph.makers(self.outputs[path] for path in wanted)
        outside = {v.storage for v in self.values if v.producer < 0 and v.storage >= 0}
        for call in self.calls:
            for_effect = call.kind in ("host", "random") or not call.outputs
            if for_effect or outside.intersection(call.writes):
                found.add(call.index)
        if outputs is None:  # what the pass returned inside of other objects: caches
            for entry in self.modules[:1]:
                found |= self.graph.makers(entry.outputs)
        return found

    def validate(self, level: Level = "d", *, against: Record | None = None) -> Validation:
        """Prove a Recording right, and the same as an older record; see validating.validate."""
        from forwardpass.validating import validate

        return validate(self, level, against=against)

    def explain(self, element: str, *, gradient: bool = False, loss: Any = None) -> Explanation:
        """Where one number of a Recording comes from; see explaining.explain."""
        from forwardpass.explaining import explain

        return explain(self, element, gradient=gradient, loss=loss)

    def to_python(self) -> str:
        """The pass as plain torch code; see writing.written."""
        from forwardpass.writing import written

        return written(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record, with the values that were kept, into one file."""
        from forwardpass.recording import save

        return save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> KeptRecord:
        """The record that `save` wrote. Raises DataError for anything else."""
        from forwardpass.recording import opened

        return opened(path)

    def to_json(self) -> str:
        """This record as one JSON document with its schema; without the values kept."""
        from forwardpass.recording import to_json

        return to_json(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.forward!r}, {self.totals.calls} calls)"


class KeptRecord(Record, frozen=True, kw_only=True, eq=False):
    """A Record with the values that were kept, which is what a file holds.

    Attributes:
        tensors: the values that were kept (`values=…`), by serial.
    """

    tensors: dict[int, torch.Tensor]

    @property
    def record(self) -> Record:
        """The record alone: plain data."""
        return Record(**record_fields(self))


def record_fields(record: Record) -> dict[str, Any]:
    """What is plain data of a record, by the name of the field."""
    return {name: getattr(record, name) for name in Record.__struct_fields__}
