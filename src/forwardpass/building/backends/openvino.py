"""openvino(quantize=, weight_only=, threads=, streams=): OpenVINO, on the CPU.

The graph is OpenVINO's IR, made of a trace, or by way of ONNX where that fails. `quantize=int8`
computes convolutions and matrix products in int8, by ranges of values that are found on data; with
`weight_only=true` only weights are kept so, which needs no data. `threads` is the number of threads
of one pass, `streams` that of batches which are computed side by side. Floats are computed as they
are, never in a coarser precision that the library would choose. Needs the extra `openvino`, and to
quantize `nncf`; an artefact needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forwardpass.building.arrays import ArrayReplica, Named, require_ports
from forwardpass.building.backends._intel import openvino
from forwardpass.building.replicas import count_of, quantizes, threads_of
from forwardpass.errors import BuildError, LoadError, UsageError
from forwardpass.nouns.lowered import Lowered
from forwardpass.tensors.arrays import Array

if TYPE_CHECKING:
    from forwardpass.building.lowering import Draft
    from forwardpass.building.quantizing import Quantized
    from forwardpass.building.replicas import Example
    from forwardpass.nouns.plans import Where
    from forwardpass.nouns.programs import Program, Trust

GRAPH = "graph.xml"


class OpenVinoReplica(ArrayReplica):
    """A compiled model of OpenVINO."""

    def __init__(self, compiled: Any, lowered: Lowered, library: str, threads: int | None) -> None:
        super().__init__(lowered, library, threads)
        self._request = compiled.create_infer_request()
        self._outputs = [(port.path, compiled.output(port.name)) for port in lowered.outputs]

    def compute(self, staged: Named, seed: int | None = None) -> dict[str, Array]:
        """The outputs by path, in memory of their own."""
        came = self._request.infer(staged, share_inputs=True, share_outputs=False)
        return {path: came[port] for path, port in self._outputs}


def save(
    program: Program, example: Example, folder: Path, quantize: str | None = None,
    weight_only: bool = False, *, layers: Where | None = None,
) -> Lowered:  # fmt: skip
    """Write `graph.xml` and `graph.bin`. Raises BuildError, and UsageError for layers that are not
    there."""
    from forwardpass.building.lowering import lower

    quantizes("openvino", quantize, layers)
    if weight_only and quantize is None:
        raise UsageError(
            "openvino(weight_only=true) quantizes; write (quantize=int8, weight_only=true)"
        )
    openvino("to lower a model to it")
    data = example.data
    if quantize and not weight_only and data is None:
        raise BuildError(
            "openvino(quantize=int8) finds the ranges of values on data, and there are none: write "
            "an artefact with `fwd export FORWARD -o NAME.fwd --calibrate DATA`, and use that; or "
            "quantize weights alone, which needs none: openvino(quantize=int8, weight_only=true)"
        )

    def to_int8(draft: Draft, folder: Path) -> Quantized:
        from forwardpass.building.backends._openvino_int8 import compressed, quantized

        if weight_only or data is None:
            return compressed(draft, folder / GRAPH, layers)
        return quantized(draft, folder / GRAPH, data, layers)

    return lower(
        program, example, folder,
        backend="openvino",
        routes={
            "trace": _of_trace,
            "ONNX of torch.export": _of_export,
            "ONNX of a trace": _of_onnx,
        },
        opened=open,
        quantize=to_int8 if quantize else None,
    )  # fmt: skip


def trust(lowered: Lowered) -> Trust:
    """The IR describes operators, and names no code."""
    return "data"


def open(
    folder: Path, lowered: Lowered, threads: int | None = None, streams: int | None = None
) -> list[OpenVinoReplica]:
    """A replica a stream; they share the weights. Raises LoadError for files that OpenVINO does not
    take."""
    threads, beside = threads_of("openvino", threads), count_of("openvino", "streams", streams)
    library = openvino("an artefact of openvino")
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": lowered.dtype,
        # beside weights in int8 it would round what goes in, too, and say nothing
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if beside is not None:
        settings["NUM_STREAMS"] = beside
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads * (beside or 1)
    try:
        core = library.Core()
        compiled = core.compile_model(core.read_model(folder / GRAPH), "CPU", settings)
    except Exception as error:
        raise LoadError(
            f"{GRAPH} cannot be opened by OpenVINO {library.__version__}: "
            f"{str(error).strip().splitlines()[-1][:300]}"
        ) from error
    ports = {
        name: _spelled(port.get_element_type().get_type_name())
        for port in (*compiled.inputs, *compiled.outputs) for name in port.get_names()
    }  # fmt: skip
    require_ports(lowered, ports, GRAPH)
    name = f"openvino {library.__version__}"
    return [OpenVinoReplica(compiled, lowered, name, threads) for _ in range(beside or 1)]


def _spelled(element_type: str) -> str:
    return "bool" if element_type == "boolean" else element_type


def _of_trace(draft: Draft, folder: Path) -> None:
    from forwardpass.building.graphs import traced

    library = openvino("to lower a model to it")
    shapes = [
        library.PartialShape(
            [-1 if name else size for name, size in zip(port.axes, value.shape, strict=True)]
        )
        for port, value in zip(draft.inputs, draft.args, strict=True)
    ]
    model = library.convert_model(traced(draft), example_input=draft.args, input=shapes)
    _written(model, draft, folder)


def _of_export(draft: Draft, folder: Path) -> None:
    from forwardpass.building.graphs import onnx_of_export

    _through_onnx(draft, folder, onnx_of_export)


def _of_onnx(draft: Draft, folder: Path) -> None:
    from forwardpass.building.graphs import onnx_of_trace

    _through_onnx(draft, folder, onnx_of_trace)


def _through_onnx(draft: Draft, folder: Path, write: Any) -> None:
    from forwardpass.building.graphs import ONNX

    library = openvino("to lower a model to it")
    write(draft, folder)
    model = library.convert_model(folder / ONNX)
    (folder / ONNX).unlink()
    _written(model, draft, folder)


def _written(model: Any, draft: Draft, folder: Path) -> None:
    for kind, ports in ((model.inputs, draft.inputs), (model.outputs, draft.outputs)):
        for tensor, port in zip(kind, ports, strict=True):
            tensor.get_tensor().set_names({port.name})
    openvino("to lower a model to it").save_model(model, folder / GRAPH, compress_to_fp16=False)
