"""onnxruntime(quantize=, threads=): ONNX Runtime, on the CPU.

The graph is ONNX, made by way of torch.export, or of a trace where that fails. `quantize=int8`
computes matrix products with constants, and LSTMs, in int8: weights by channel, activations by a
scale that is taken from each batch. `threads` is the number of threads inside an operator. Needs
the extra `onnx`; an artefact needs no torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forwardpass.building.arrays import ArrayReplica, Named, require_ports
from forwardpass.building.replicas import quantizes, threads_of
from forwardpass.errors import LoadError, missing_extra
from forwardpass.nouns.lowered import Lowered
from forwardpass.tensors.arrays import Array

if TYPE_CHECKING:
    from forwardpass.building.lowering import Draft
    from forwardpass.building.quantizing import Quantized
    from forwardpass.building.replicas import Example
    from forwardpass.nouns.plans import Where
    from forwardpass.nouns.programs import Program, Trust

GRAPH = "graph.onnx"
_DTYPES: Final = {
    "tensor(double)": "f64", "tensor(float)": "f32", "tensor(float16)": "f16",
    "tensor(bfloat16)": "bf16", "tensor(int64)": "i64", "tensor(int32)": "i32",
    "tensor(int16)": "i16", "tensor(int8)": "i8", "tensor(uint8)": "u8", "tensor(bool)": "bool",
}  # fmt: skip
"""Of ports as ONNX Runtime calls them, and as the notation does."""


class OnnxReplica(ArrayReplica):
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, lowered: Lowered, library: str, threads: int | None) -> None:
        super().__init__(lowered, library, threads)
        self._session = session
        self._paths = [port.path for port in lowered.outputs]
        self._outputs = [port.name for port in lowered.outputs]

    def compute(self, staged: Named, seed: int | None = None) -> dict[str, Array]:
        """The outputs by path."""
        return dict(zip(self._paths, self._session.run(self._outputs, staged), strict=True))


def save(
    program: Program, example: Example, folder: Path, quantize: str | None = None,
    *, layers: Where | None = None,
) -> Lowered:  # fmt: skip
    """Write `graph.onnx`. Raises BuildError, and UsageError for layers that are not there."""
    from forwardpass.building.graphs import onnx_of_export, onnx_of_trace
    from forwardpass.building.lowering import lower

    quantizes("onnxruntime", quantize, layers)
    _library("to lower a model to it")

    def to_int8(draft: Draft, folder: Path) -> Quantized:
        from forwardpass.building.backends._onnx_int8 import quantized

        return quantized(draft, folder / GRAPH, layers)

    return lower(
        program, example, folder,
        backend="onnxruntime",
        routes={"torch.export": onnx_of_export, "trace": onnx_of_trace},
        opened=open,
        quantize=to_int8 if quantize else None,
    )  # fmt: skip


def trust(lowered: Lowered) -> Trust:
    """ONNX describes operators, and names no code."""
    return "data"


def open(folder: Path, lowered: Lowered, threads: int | None = None) -> list[OnnxReplica]:
    """One replica. Raises LoadError for a file that ONNX Runtime does not take."""
    threads = threads_of("onnxruntime", threads)
    library = _library("an artefact of onnxruntime")
    options = library.SessionOptions()
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE":  # its threads know no OpenMP
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = library.InferenceSession(
            str(folder / GRAPH), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise LoadError(
            f"{GRAPH} cannot be opened by ONNX Runtime {library.__version__}: "
            f"{str(error).splitlines()[0][:300]}"
        ) from error
    ports = (*session.get_inputs(), *session.get_outputs())
    takes = {str(port.name): _DTYPES.get(str(port.type), str(port.type)) for port in ports}
    require_ports(lowered, takes, GRAPH)
    return [OnnxReplica(session, lowered, f"onnxruntime {library.__version__}", threads)]


def _library(purpose: str) -> Any:
    try:
        import onnxruntime as library
    except ImportError as error:
        raise missing_extra("onnxruntime", "onnx", purpose) from error
    return library
