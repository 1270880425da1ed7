"""A graph of OpenVINO with some layers in int8, by NNCF."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from forwardpass.building.backends._intel import nncf, openvino
from forwardpass.building.lowering import Draft
from forwardpass.building.quantizing import Chosen, Quantized, Weighted, chosen
from forwardpass.errors import BuildError
from forwardpass.nouns.plans import Where

_CONVOLUTIONS: Final = (
    "Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData",
)  # fmt: skip
_TABLES: Final = ("Gather",)
_RECURRENT: Final = ("GRUSequence", "LSTMSequence", "RNNSequence")
"""NNCF has a way for these, by which an LSTM tagger moved by 26 % of its largest output."""
_BETWEEN: Final = ("Convert", "Multiply", "Reshape", "Subtract", "Transpose", "Unsqueeze")
"""What stands between a layer and its constant."""

Batches = Iterable[Mapping[str, Any]]


def quantized(draft: Draft, graph: Path, data: Batches, where: Where | None) -> Quantized:
    """Rewrite `graph` by static ranges, which are found on data; what was done, and what proves it.

    Raises BuildError, and UsageError for layers that are not there.
    """
    library, model = nncf(), _read(graph)
    some = chosen("openvino", _layers(model, (*_CONVOLUTIONS, "MatMul")), draft.plain.module, where)
    names = {port.path: port.name for port in draft.inputs}
    rows = [{name: np.asarray(batch[path]) for path, name in names.items()} for batch in data]
    if not rows:
        raise BuildError("openvino(quantize=int8): the data have no row to find ranges on")
    kind = library.ModelType.TRANSFORMER if _multiplies_values(model) else None
    before = _weights(graph)
    _replaced(
        graph,
        library.quantize(
            model, library.Dataset(rows), subset_size=len(rows), model_type=kind,
            ignored_scope=_ignored(library, model, some),
        ),
    )  # fmt: skip
    by = _integer_layers(graph)
    return _told(
        graph, before, some, {node: by[node] for node in some.nodes if node in by}, "int8",
        f"OpenVINO runs {{kinds}}, ranges are of {_counted(rows, draft)} rows",
    )  # fmt: skip


def compressed(draft: Draft, graph: Path, where: Where | None) -> Quantized:
    """Rewrite `graph` with weights in int8, which are unpacked where they are multiplied."""
    library, model = nncf(), _read(graph)
    kinds = (*_CONVOLUTIONS, "MatMul", *_TABLES)
    some = chosen("openvino", _layers(model, kinds), draft.plain.module, where)
    before = _weights(graph)
    scope = _ignored(library, model, some)
    _replaced(graph, library.compress_weights(model, ignored_scope=scope))
    after = {op.get_friendly_name(): _constant_of(op) for op in _read(graph).get_ops()}
    by = {
        node: after[node].get_element_type().get_type_name()
        for node in some.nodes
        if node in after and after[node] is not None
    }
    eight = {node: kind for node, kind in by.items() if kind in ("i8", "u8")}
    return _told(graph, before, some, eight, "int8 weights", "they are kept as {kinds}")


def _told(
    graph: Path, before: int, some: Chosen, by: Mapping[str, str], to: str, proof: str
) -> Quantized:
    size = f"weights have {_weights(graph) / before:.0%} of their size"
    return some.told("OpenVINO has", by, to, f"{proof}, {size}")


def _layers(model: Any, able: Iterable[str]) -> list[Weighted]:
    """What computes with constants."""
    found: list[Weighted] = []
    for op in model.get_ordered_ops():
        kind, constant = op.get_type_name(), _constant_of(op)
        if constant is None:
            continue
        if kind not in able and kind not in (*_CONVOLUTIONS, *_RECURRENT):
            continue
        values = constant.get_data()
        if kind == "MatMul":
            turned = op.get_attributes()["transpose_b"]
            values = values if turned else np.swapaxes(values, -1, -2)
        if kind.startswith("Group"):
            values = values.reshape(-1, *values.shape[2:])
        if kind in _CONVOLUTIONS:
            values = values.reshape(len(values), -1)
        found.append(
            Weighted(op.get_friendly_name(), values.reshape(-1, values.shape[-1]), kind in able)
        )
    return found


def _constant_of(op: Any) -> Any:
    """The matrix of weights that an operator reads; None where it has none."""
    kind = op.get_type_name()
    port = {"Gather": 0, **dict.fromkeys(_RECURRENT, 4)}.get(kind, 1)
    if kind not in ("MatMul", *_TABLES, *_CONVOLUTIONS, *_RECURRENT):
        return None
    node = op.input_value(port).get_node()
    while node.get_type_name() in _BETWEEN:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or len(node.get_output_shape(0)) < 2:
        return None
    floating = node.get_element_type().get_type_name() in ("f32", "f16", "bf16", "i8", "u8")
    return node if floating else None


def _multiplies_values(model: Any) -> bool:
    """Whether it multiplies values with values, as attention does: NNCF then keeps in floats what
    stands around, such as comparisons of a mask."""
    return any(
        op.get_type_name() == "ScaledDotProductAttention"
        or (op.get_type_name() == "MatMul" and _constant_of(op) is None)
        for op in model.get_ops()
    )


def _ignored(library: Any, model: Any, some: Chosen) -> Any:
    """What NNCF is to leave alone: layers that were not chosen. Where only some were, only
    these change, and nothing that stands between them."""
    names = [op.get_friendly_name() for op in model.get_ops()]
    if all(name not in some.others for name in names):
        return library.IgnoredScope()
    spared = ("Constant", "Parameter", "Result")
    return library.IgnoredScope(
        names=[
            op.get_friendly_name()
            for op in model.get_ordered_ops()
            if op.get_friendly_name() not in some.nodes and op.get_type_name() not in spared
        ]
    )


def _integer_layers(graph: Path) -> dict[str, str]:
    """By the name that a layer had, the kernel that computes it in int8."""
    core = openvino("to quantize for it").Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found: dict[str, str] = {}
    for op in core.compile_model(_read(graph), "CPU", settings).get_runtime_model().get_ops():
        said = {
            name: str(getattr(value, "value", value)) for name, value in op.get_rt_info().items()
        }
        kernel = said.get("primitiveType", "")
        if said.get("runtimePrecision") in ("i8", "u8") and kernel.lower().endswith("_i8"):
            for name in said.get("originalLayersNames", "").split(","):
                parts = name.split("/")
                for stop in range(
                    1, len(parts) + 1
                ):  # what is put beside a layer is named below it
                    found.setdefault("/".join(parts[:stop]), kernel)
    return found


def _counted(rows: list[dict[str, Any]], draft: Draft) -> int:
    first = draft.inputs[0]
    axis = first.axes.index("batch") if "batch" in first.axes else 0
    return sum(batch[first.name].shape[axis] for batch in rows)


def _read(graph: Path) -> Any:
    return openvino("to quantize for it").Core().read_model(graph)


def _weights(graph: Path) -> int:
    return graph.with_suffix(".bin").stat().st_size


def _replaced(graph: Path, model: Any) -> None:
    """The model in place of the graph, whose weights it may still be reading."""
    new = graph.with_stem("quantized")
    openvino("to quantize for it").save_model(model, new, compress_to_fp16=False)
    for suffix in (".bin", ".xml"):
        os.replace(new.with_suffix(suffix), graph.with_suffix(suffix))
