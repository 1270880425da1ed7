"""A graph of ONNX with some layers in int8, by ONNX Runtime's own dynamic quantization."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from forwardpass.building.lowering import Draft
from forwardpass.building.quantizing import Quantized, Weighted, chosen
from forwardpass.nouns.plans import Where

_INTEGER: Final = {
    "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "QGemm", "QLinearMatMul",
}  # fmt: skip
"""Operators of ONNX Runtime that compute in int8."""
_WEIGHTED: Final = ("Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
_ABLE: Final = ("Gemm", "LSTM", "MatMul")
"""What is quantized of these: for convolutions by ranges found anew in each batch ONNX Runtime has
no operator that does all of it at once."""


def quantized(draft: Draft, graph: Path, where: Where | None) -> Quantized:
    """Rewrite `graph`, and say what was done and what proves it. Raises BuildError, UsageError."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(graph)
    _without_identities(model)
    layers = _layers(model)
    some = chosen("onnxruntime", list(layers.values()), draft.plain.module, where)
    weights = {node.name: node.input[1] for node in model.graph.node if node.name in some.nodes}
    before = graph.stat().st_size
    quantize_dynamic(
        model, graph,
        op_types_to_quantize=["LSTM", "MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        # it makes a MatMul and an Add of each Gemm, whose names are these
        nodes_to_exclude=[*some.others, *(f"{node}_MatMul" for node in some.others)],
    )  # fmt: skip
    integer = _integer_weights(graph)
    by = {
        node: operator
        for node, weight in weights.items()
        for name, operator in integer.items()
        if re.fullmatch(rf"{re.escape(weight)}(_Transposed(_\d+)?)?_quantized", name)
    }
    size = f"the file has {graph.stat().st_size / before:.0%} of its size"
    proof = "ONNX Runtime runs {kinds}, scales are taken from each batch, " + size
    return some.told("ONNX Runtime computes", by, "int8", proof)


def _layers(model: Any) -> dict[str, Weighted]:
    """What computes with constants, by the name of its node."""
    from onnx import TensorProto, numpy_helper

    constants = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2
    }
    found: dict[str, Weighted] = {}
    for node in model.graph.node:
        if node.op_type not in _WEIGHTED or node.input[1] not in constants:
            continue
        values = numpy_helper.to_array(constants[node.input[1]])
        given = {item.name: item for item in node.attribute}
        turned = "transB" in given and given["transB"].i
        if node.op_type in ("Gemm", "MatMul") and not turned:
            values = np.swapaxes(values, -1, -2)
        if node.op_type in ("Conv", "ConvTranspose"):
            rows = values.reshape(len(values), -1)
        else:
            rows = values.reshape(-1, values.shape[-1])
        scaled = any(name in given and given[name].f != 1 for name in ("alpha", "beta"))
        able = (
            node.op_type in _ABLE and not scaled and not ("transA" in given and given["transA"].i)
        )
        found[node.name] = Weighted(node.name, rows, able)
    return found


def _without_identities(model: Any) -> None:
    """Layers that share a constant through an Identity read it themselves."""
    constants = {tensor.name for tensor in model.graph.initializer}
    same = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and node.input[0] in constants
    }
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)


def _integer_weights(graph: Path) -> dict[str, str]:
    """The constants that operators in int8 read, by the graph that a session computes."""
    import onnx
    import onnxruntime

    with TemporaryDirectory(prefix="forwardpass-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    return {
        name: node.op_type
        for node in model.graph.node
        if node.op_type in _INTEGER
        for name in node.input
    }
