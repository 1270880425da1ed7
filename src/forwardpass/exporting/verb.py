"""The verb: its arguments, and the order in which an artefact is written."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

import msgspec

from forwardpass.building import Example
from forwardpass.errors import UsageError
from forwardpass.executing import examples
from forwardpass.executing.examples import permitted
from forwardpass.executing.first_rows import first_rows
from forwardpass.executing.fitting import FittingRows
from forwardpass.exporting.bare import Format, files_of, planned, take
from forwardpass.exporting.folders import staged, whole_or_not_there
from forwardpass.exporting.writing import signed_by, written
from forwardpass.loading import load
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.nouns.artefacts import Artefact
from forwardpass.nouns.forwards import Forward, ForwardLike
from forwardpass.nouns.models import Model
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.preparing import example_of
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.generators import generators_kept

_ROWS: Final = 256
"""Rows of the data that are looked at: enough for common sizes, and for some that are rare."""
_DRAWN: Final = 4
"""Rows drawn of each size, where there are no data."""
_SIZES: Final = (0.4, 1.0, 1.7)
"""Sizes of the variable axes of what is drawn, as shares of an example's."""


def export(
    forward: ForwardLike,
    out: str | os.PathLike[str],
    *,
    calibrate: object = None,
    format: Format | None = None,
) -> Artefact:
    """Write a Forward as one folder that computes the same without its source.

    The graph is written in the way of the Forward's backend, and tried against the module at sizes
    that it was not made from. Nothing half-written stays, whatever happens. What is at work is
    logged by the logger `forwardpass`.

    Args:
        forward: a reference with its plan, a module, a Model or a Forward. Its backend decides what
            is written: `model.py @ onnxruntime`.
        out: the folder, `NAME.fwd`; it must not be there.
        calibrate: data, as `run` reads them: they say what goes in where the model does not;
            padding is proved on them, batches are timed, and steps and backends that need data are
            fitted to all of them. Without data rows are drawn by the signature, and nothing is
            fitted.
        format: "onnx", "openvino", "pt2" or "torchscript": write that standard file alone to `out`,
            with nothing that goes around the graph. The forward then needs no backend.

    Returns the Artefact: what the folder's manifest says, or would.

    Raises:
        UsageError: names and arguments of the plan; a model without a signature and no data; an
            artefact, which is exported already; a format that is not the backend's.
            OutputExistsError: `out` is there.
        LoadError: the model. DataError: the data, or the disk.
        BuildError: the backend cannot make it, or makes something else of it.
    """
    path = Path(out)
    if format is None and path.suffix != ".fwd":
        raise UsageError(f"{path}: an artefact is a folder NAME.fwd; write -o {path.name}.fwd")
    loaded = load(forward)
    if isinstance(loaded.model.program, ArtefactProgram):
        raise UsageError(
            f"{loaded.model.name} is an artefact already: copy the folder, or export the model "
            "that it was made from again"
        )
    if format is not None:
        whole = Forward(loaded.model, planned(loaded.plan, format, path))
        with generators_kept(), staged(*files_of(path, format)) as staging:
            signed, block, example = _prepared(whole, calibrate)
            graph = Model(signed.model.program, signed.model.signature)
            artefact = written(Forward(graph, signed.plan), block, example, staging)
            return take(artefact, staging, format, path)
    with generators_kept(), whole_or_not_there(path) as staging:
        return written(*_prepared(loaded, calibrate), staging)


def _prepared(forward: Forward, calibrate: object) -> tuple[Forward, Block, Example]:
    """The Forward with a signature that says what is there, and what it is built from."""
    encoded = (
        _drawn(forward)
        if calibrate is None
        else _named(forward, first_rows(forward, calibrate, _ROWS)[1])
    )
    signed, block = signed_by(forward, encoded)
    data = None if calibrate is None else FittingRows(signed.model, calibrate)
    return signed, block, example_of(block)._replace(data=data)


def _drawn(forward: Forward) -> Block:
    """Rows drawn by the signature, of several sizes."""
    if forward.model.signature is None:
        examples.drawn(forward)  # raises, and says what to give
    assert forward.model.signature is not None
    signature = _certain(forward.model, forward.model.signature)
    forward = Forward(forward.model.with_signature(signature), forward.plan)
    own = examples.drawn(forward)
    sizes = {
        axis.name: int(size)
        for item in signature.given if item.path in own
        for axis, size in zip(item.axes, own[item.path].shape, strict=True) if axis.is_variable
    }  # fmt: skip
    shares = _SIZES if sizes else (1.0,)
    return examples.drawn_rows(
        forward,
        [{n: permitted(signature.variable[n], share * size) for n, size in sizes.items()}
         for share in shares],
        _DRAWN,
    )  # fmt: skip


def _certain(model: Model, signature: Signature) -> Signature:
    """The signature of which it is known what is there: a graph takes an input, or does not."""
    optional = [item for item in signature.inputs if item.optional]
    if optional and model.encode is not None and not hasattr(model.encode, "inputs"):
        raise UsageError(
            f"`{optional[0]}` is optional, and its encode alone knows whether it is there: give "
            "--calibrate DATA"
        )
    there: Collection[str] = getattr(model.encode, "inputs", ())
    return Signature(
        tuple(
            msgspec.structs.replace(item, optional=False)
            for item in signature.inputs
            if not item.optional or item.path in there
        ),
        signature.outputs,
    )


def _named(forward: Forward, block: object) -> Block:
    if isinstance(block, Block):
        return block
    raise UsageError(
        f"{forward.model.name} has a collate of its own, and an artefact takes named arrays: say "
        "what goes in with Model(module, inputs=…)"
    )
