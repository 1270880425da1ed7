"""Ways of writing a module down: PyTorch's exported program, its trace, and ONNX made of either."""

from __future__ import annotations

import io
import os
from ast import literal_eval
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
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
    return export(draft.plain, draft.args, dynamic_shapes=shapes, strict=False)


def traced(draft: Draft) -> Any:
    """A TorchScript trace."""
    with draft.reads:
        return torch.jit.trace(draft.plain, draft.args, check_trace=False)


def onnx_of_export(draft: Draft, folder: Path) -> None:
    """`graph.onnx`, by way of torch.export."""
    _onnx(draft, folder, exported(draft), dynamo=True)


def onnx_of_trace(draft: Draft, folder: Path) -> None:
    """`graph.onnx`, by way of a trace."""
    axes = {
        f"input_{n}": {place: name for place, name in enumerate(port.axes) if name}
        for n, port in enumerate(draft.inputs)
    }
    with _mute(), draft.reads:
        _onnx(draft, folder, draft.plain, dynamo=False, dynamic_axes=axes, do_constant_folding=True)


@contextmanager
def _mute() -> Generator[None]:
    """Without standard error: where it fails, PyTorch's older exporter writes its graph there, past
    Python."""
    try:
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # it is closed
        yield
        return
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _onnx(draft: Draft, folder: Path, what: Any, **more: Any) -> None:
    inputs = {f"input_{n}": port.name for n, port in enumerate(draft.inputs)}
    outputs = {f"result_{n}": port.name for n, port in enumerate(draft.outputs)}
    torch.onnx.export(
        what, draft.args, str(folder / ONNX), external_data=False,
        input_names=list(inputs), output_names=list(outputs), **more,
    )  # fmt: skip
    _name(folder / ONNX, {**inputs, **outputs})


def _name(path: Path, names: dict[str, str]) -> None:
    """Give values of an ONNX file these names, and nodes those of their modules. The exporter would
    give an output a name that an inner value has already; here the inner one gets another."""
    import onnx

    model = onnx.load(path)
    graphs = [model.graph]
    for graph in graphs:
        for node in graph.node:
            told = {item.key: item.value for item in node.metadata_props}
            scopes = literal_eval(told.get("pkg.torch.onnx.name_scopes", "[]"))
            if len(scopes) > 1:  # named by its module, as in a trace
                node.name = f"{scopes[-2]}/{node.name}"
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs
    holders: list[Any] = [v for g in graphs for v in (*g.input, *g.output, *g.value_info)]
    holders += [tensor for graph in graphs for tensor in graph.initializer]
    lists: list[Any] = [v for g in graphs for node in g.node for v in (node.input, node.output)]
    taken = {holder.name for holder in holders} | {name for names in lists for name in names}
    for new in [name for name in names.values() if name in taken and name not in names]:
        names[new] = next(
            name for n in count() if (name := f"{new}.{n}") not in taken | {*names.values()}
        )
    for holder in holders:
        holder.name = names.get(holder.name, holder.name)
    for values in lists:
        values[:] = [names.get(name, name) for name in values]
    onnx.save(model, path)


def saved(save: Callable[[BinaryIO], object], path: Path) -> None:
    """Write a file that PyTorch makes. Its own writer ends the process where the disk is full."""
    memory = io.BytesIO()
    save(memory)
    path.write_bytes(memory.getbuffer())
