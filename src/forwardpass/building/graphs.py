"""Ways of writing a module down: PyTorch's exported program, its trace, and ONNX made of either."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from forwardpass.building.lowering import Draft

ONNX = "graph.onnx"


def exported(draft: Draft) -> Any:
    """An `ExportedProgram` whose named axes vary."""
    from torch.export import Dim, export

    shapes = tuple(
        {place: Dim.AUTO for place, name in enumerate(port.axes) if name} or None
        for port in draft.inputs
    )
    return export(draft.plain, draft.args, dynamic_shapes=(shapes,), strict=False)


def traced(draft: Draft) -> Any:
    """A TorchScript trace."""
    return torch.jit.trace(draft.plain, draft.args, check_trace=False)


def onnx_of_export(draft: Draft, folder: Path) -> None:
    """`graph.onnx`, by way of torch.export."""
    _onnx(draft, folder, exported(draft), dynamo=True)


def onnx_of_trace(draft: Draft, folder: Path) -> None:
    """`graph.onnx`, by way of a trace."""
    axes = {
        port.name: {place: name for place, name in enumerate(port.axes) if name}
        for port in draft.inputs
    }
    _onnx(draft, folder, draft.plain, dynamo=False, dynamic_axes=axes, do_constant_folding=True)


def _onnx(draft: Draft, folder: Path, what: Any, **more: Any) -> None:
    torch.onnx.export(
        what, draft.args, str(folder / ONNX), external_data=False,
        input_names=[port.name for port in draft.inputs],
        output_names=[port.name for port in draft.outputs], **more,
    )  # fmt: skip


def saved(save: Callable[[BinaryIO], object], path: Path) -> None:
    """Write a file that PyTorch makes. Its own writer ends the process where the disk is full."""
    memory = io.BytesIO()
    save(memory)
    path.write_bytes(memory.getbuffer())
