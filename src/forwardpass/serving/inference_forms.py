"""TensorForm, ModelForm: what a model takes and gives, as the Open Inference Protocol lists it.

The batch is the first axis of every tensor, wherever the signature has it. Where an axis varies by
row its size is -1. A model whose rows are encoded takes the columns of its encode as BYTES, one
text a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET

from forwardpass.errors import nearest
from forwardpass.nouns.signatures import Input, Output, Signature
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.inference_tensors import DATATYPES, TensorHeader
from forwardpass.serving.messages import About
from forwardpass.tensors.arrays import spelled


@dataclass(frozen=True)
class TensorForm:
    """A tensor of a model: `dims` are the axes of one row."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False

    def metadata(self) -> dict[str, Any]:
        """As model metadata have it, with the batch."""
        return {"name": self.name, "datatype": self.datatype, "shape": (-1, *self.dims)}

    def config(self) -> dict[str, Any]:
        """As a model configuration has it, without the batch."""
        kind = "STRING" if self.datatype == "BYTES" else self.datatype
        return {"name": self.name, "data_type": f"TYPE_{kind}", "dims": self.dims}


@dataclass(frozen=True)
class ModelForm:
    """A model: the tensors that it takes, the columns that its encode takes, and its outputs.

    Attributes:
        inputs: by path; none where it takes only rows.
        columns: by name, of the encode; `any_column`: it has an encode that names none.
        outputs: by path; none where they are not known before the first answer. unspoken: those
            for whose numbers the protocol has no word, and that it leaves out, each with a line.
    """

    signature: Signature | None
    inputs: Mapping[str, TensorForm]
    columns: Mapping[str, TensorForm]
    any_column: bool
    outputs: Mapping[str, TensorForm]
    unspoken: Mapping[str, str]

    @classmethod
    def of(cls, about: About) -> ModelForm:
        """Raises RefusedError for a model that takes complex tensors, or gives nothing else: of
        them the protocol knows nothing."""
        signature = Signature.parse(about.inputs) if about.inputs else None
        given = signature.given if signature is not None and about.tensors else ()
        outputs = [Output.parse(line) for line in about.outputs]
        spoken = [output for output in outputs if output.dtype in DATATYPES] or outputs
        names = about.columns if about.encodes else ()
        return cls(
            signature,
            {item.path: _input_form(item) for item in given},
            {name: TensorForm(name, "BYTES", ()) for name in names},
            about.encodes and not names,
            {output.path: _output_form(output) for output in spoken},
            {output.path: str(output) for output in outputs if output not in spoken},
        )

    @property
    def listed(self) -> Sequence[TensorForm]:
        """What its metadata call inputs."""
        return [*(self.inputs or self.columns).values()]

    def rows(self, items: Sequence[TensorHeader]) -> int:
        """How many rows a request brings. Raises RefusedError unless it brings each input once,
        with the datatype and the axes that it has, and as many rows in all of them."""
        forms = self.columns if self.encoded(items) else self.inputs
        names: set[str] = set()
        for item in items:
            if item.name in names:
                raise RefusedError(400, f"input {item.name[:80]!r} is there twice")
            names.add(item.name)
            form = forms.get(item.name)
            if form is None and forms is self.columns and self.any_column:
                form = TensorForm(item.name, "BYTES", ())
            if form is None:
                known = nearest(item.name, [*self.inputs, *self.columns])
                raise RefusedError(400, f"input {item.name[:80]!r}: the model has none; {known}")
            _check(form, item, items[0])
        if forms is self.inputs:
            for form in forms.values():
                if not form.optional and form.name not in names:
                    raise RefusedError(400, f"input {_told(form)} is not there")
            self._check_axes(items)
        if not items or not items[0].shape[0]:
            raise RefusedError(400, "a request of 0 rows: send at least one")
        return items[0].shape[0]

    def encoded(self, items: Sequence[TensorHeader]) -> bool:
        """Whether the rows are to go through the model's encode: they come as texts."""
        return not self.inputs or (
            any(item.datatype == "BYTES" for item in items)
            and (self.any_column or bool(self.columns))
        )

    def _check_axes(self, items: Sequence[TensorHeader]) -> None:
        """That named axes have a size that they may have, the same in all inputs."""
        assert self.signature is not None
        sizes: dict[str, int] = {}
        shapes = {item.name: item.shape[1:] for item in items}
        for form in self.signature.given:
            for axis, size in zip(form.row_axes, shapes.get(form.path, ()), strict=False):
                if not axis.is_variable:
                    continue
                axis = self.signature.variable[axis.name]
                fits = size == axis.rounded(size) or self.signature.padded(axis.name)
                if not fits or not 1 <= size <= (axis.high or size):
                    raise RefusedError(400, f"input `{form}`: axis `{axis}` cannot be {size}")
                if sizes.setdefault(axis.name, size) != size:
                    raise RefusedError(
                        400, f"input `{form}`: axis {axis.name!r} is {size} here and "
                        f"{sizes[axis.name]} in another input",
                    )  # fmt: skip

    def require_output(self, name: str) -> None:
        """Raise RefusedError for an output that the model has not, or that cannot be said."""
        if name in self.unspoken:
            _datatype(Output.parse(self.unspoken[name]).dtype, self.unspoken[name])
        if self.outputs and name not in self.outputs:
            raise RefusedError(
                400, f"output {name[:80]!r}: the model has none; {nearest(name, self.outputs)}"
            )

    def output(self, name: str, array: np.ndarray[Any, Any]) -> TensorForm:
        """What an output is called, where it was not known before."""
        known = self.outputs.get(name)
        return known or TensorForm(name, _datatype(spelled(array), name), array.shape[1:])


def _input_form(item: Input) -> TensorForm:
    dims = tuple(-1 if axis.is_variable else axis.size for axis in item.row_axes)
    return TensorForm(item.path, _datatype(item.dtype, str(item)), dims, item.optional)


def _output_form(output: Output) -> TensorForm:
    extents = [extent for extent in output.extents if extent.name != "batch"]
    dims = tuple(-1 if extent.name else extent.size for extent in extents)
    return TensorForm(output.path, _datatype(output.dtype, str(output)), dims)


def _datatype(dtype: str, whose: str) -> str:
    if dtype not in DATATYPES:
        raise RefusedError(
            400, f"`{whose}`: this protocol has no {dtype}; ask at POST /models/NAME instead"
        )
    return DATATYPES[dtype]


def _check(form: TensorForm, item: TensorHeader, first: TensorHeader) -> None:
    if item.parameters.shared_memory_region is not UNSET:
        raise RefusedError(
            400, f"input {item.name!r}: shared memory is not served: send the data in the request"
        )
    if item.datatype != form.datatype:
        raise RefusedError(
            400, f"input {_told(form)}: expected {form.datatype}, got {item.datatype[:40]!r}"
        )
    row = item.shape[1:]
    if form.datatype == "BYTES" and row == [1]:
        row = []
    if (
        not item.shape
        or len(row) != len(form.dims)
        or any(dim not in (size, -1) for size, dim in zip(row, form.dims, strict=True))
    ):
        raise RefusedError(
            400,
            f"input {_told(form)}: got the shape {item.shape[:16]}; the first axis is the batch",
        )
    if item.shape[0] != first.shape[0]:
        raise RefusedError(
            400, f"input {item.name!r} has {item.shape[0]} rows, and {first.name!r} "
            f"{first.shape[0]}",
        )  # fmt: skip


def _told(form: TensorForm) -> str:
    axes = ["batch", *("?" if dim < 0 else str(dim) for dim in form.dims)]
    return f"`{form.name}: {form.datatype}[{', '.join(axes)}]`"
