"""An exported program with layers in int8, by torchao's PT2E, and compiled by AOTInductor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import torch
from torch import nn

from forwardpass.building import torchao
from forwardpass.building.backends import aot
from forwardpass.building.golden import far
from forwardpass.building.graphs import exported, saved
from forwardpass.building.lowering import Draft
from forwardpass.building.quantizing import Quantized, summed
from forwardpass.errors import BuildError, UsageError, nearest
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.plans import Where
from forwardpass.tensors.distances import apart

_LAYERS: Final = ("aten.linear.default", "aten.conv1d.", "aten.conv2d.", "aten.conv3d.")
_KERNEL: Final = re.compile(r"\baoti_torch_cpu__q(?:linear|conv)\w*\(")
"""A call of oneDNN in int8, in what AOTInductor writes."""


def quantized(
    draft: Draft,
    graph: Path,
    batches: Iterable[Sequence[torch.Tensor]] | None,
    where: Where | None,
) -> Quantized:
    """Write a package into `graph`, and say what was done and what proves it.

    Args:
        batches: what the graph takes, to find the ranges of activations on; None: they are found
            anew in each pass, and linear layers alone are quantized.
        where: chooses layers by the paths of their modules; None: all.

    Raises BuildError where no layer computes in int8, UsageError for layers that are not there.
    """
    from torch._inductor import aoti_compile_and_package

    flow = _Quantizer()
    module: Any = exported(draft).module(check_guards=False)
    module.graph.eliminate_dead_code()  # a layer that nobody reads has no pattern to be part of
    module.recompile()
    nodes = [node for node in module.graph.nodes if _is_layer(node)]
    layers: dict[str, str] = {node.name: _path(node) for node in nodes}
    flow.leave(module, _left(layers, where))
    prepared = flow.prepare(module, is_dynamic=batches is None)
    seen = 0
    for batch in [draft.args] if batches is None else batches:  # weights are looked at in a pass
        prepared(*batch)
        seen += 1
    if not seen:
        raise BuildError("the data to fit to hold no row that can be encoded")
    converted = flow.convert(prepared)
    weights: dict[str, torch.Tensor] = {
        node.name: weight
        for node in converted.graph.nodes
        if _is_layer(node) and (weight := _weight(node, converted)) is not None
    }
    if not weights:
        kinds = "a linear layer" if batches is None else "a linear layer or a convolution"
        raise BuildError(f"torchao quantizes none of its layers: none that is chosen is {kinds}")
    program = exported(draft._replace(plain=converted))
    options = {"freezing": True}  # which is when quantized layers are fused
    saved(
        lambda file: aoti_compile_and_package(program, package_path=file, inductor_configs=options),
        graph,
    )
    kernels = _kernels(graph)
    if not kernels:
        raise BuildError(
            f"{len(weights)} layers were rounded to int8, and none of them was fused into a "
            "kernel that computes so: it would be slower"
        )
    _require_same(draft, converted, graph.parent)
    done = [layers.get(name, name) for name in weights]
    others = [path for name, path in layers.items() if name not in weights]
    small = sum(weight.nbytes for weight in weights.values())
    large = sum(weight.numel() for weight in weights.values()) * 4
    proof = (
        f"the code calls {kernels} kernels of oneDNN in int8, their weights have "
        f"{small / large:.0%} of their size, ranges are "
        + ("found anew in each pass" if batches is None else "those of the calibration data")
    )
    if kernels < len(weights):
        proof += f"; {len(weights) - kernels} of them are rounded to int8, and computed in f32"
    return summed(done, others, "int8", proof)


def _require_same(draft: Draft, converted: Any, folder: Path) -> None:
    """Raise BuildError where the compiled graph is farther from the rounded one, in PyTorch's own
    operators, than rounding has moved that."""
    lowered = Lowered(draft.inputs, draft.outputs, "f32", "torch.export")
    replica = aot.open(folder, lowered)[0]
    compiled = replica.compute(list(draft.args))
    exact, rounded = draft.plain(*draft.args), converted(*draft.args)
    for path, before, after in zip(compiled, exact, rounded, strict=True):
        gap, moved = apart(compiled[path], after), apart(after, before)
        if gap > max(far(replica.facts), moved):
            raise BuildError(
                f"compiled, {path} is {gap:.1e} away from what the rounded layers compute, and "
                f"rounding moved it by {moved:.1e}: a fusion of PyTorch {torch.__version__} is "
                "wrong; leave layers out by `where`"
            )


class _Quantizer:
    """torchao's quantizer for processors of the x86 kind."""

    def __init__(self) -> None:
        with torchao.importing():
            from torchao.quantization.pt2e import quantize_pt2e
            from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer
        self._flow: Any = quantize_pt2e
        self._x86: Any = x86_inductor_quantizer

    def leave(self, module: Any, names: set[str]) -> None:
        """Have these nodes stay as they are."""
        for node in module.graph.nodes:
            if node.name in names:
                node.meta[self._x86.QUANT_ANNOTATION_KEY] = (
                    self._x86._X86InductorQuantizationAnnotation(_annotated=True)
                )

    def prepare(self, module: Any, *, is_dynamic: bool) -> Any:
        """The graph with observers."""
        # Without VNNI, sums of two products of 8 bits overflow 16 bits
        narrow = not torch.cpu._is_vnni_supported()  # pyright: ignore[reportPrivateUsage]
        config = self._x86.get_default_x86_inductor_quantization_config(
            is_dynamic=is_dynamic, reduce_range=narrow
        )
        quantizer = self._x86.X86InductorQuantizer()
        if is_dynamic:
            quantizer.set_module_type_qconfig(nn.Linear, config)
        else:
            quantizer.set_global(config)
        return self._flow.prepare_pt2e(module, quantizer)

    def convert(self, prepared: Any) -> Any:
        """The graph with quantizers."""
        return self._flow.convert_pt2e(prepared)


def _is_layer(node: Any) -> bool:
    return node.op == "call_function" and str(node.target).startswith(_LAYERS)


def _path(node: Any) -> str:
    """Of the module that called it; the exported one stands in a `Plain`."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return stack[-1][0].partition(".")[2] if stack else ""


def _left(layers: dict[str, str], where: Where | None) -> set[str]:
    """The nodes that `where` does not choose."""
    if where is None:
        return set()
    paths = set(layers.values())
    for glob in where.idle(paths):
        raise UsageError(
            f"@ pt2e … where {', '.join(where.globs)}: {glob!r} matches no layer; "
            f"{nearest(glob, paths)}"
        )
    return {name for name, path in layers.items() if not where(path)}


def _weight(node: Any, module: Any) -> torch.Tensor | None:
    """The rounded weight of a layer whose input is rounded as well; None of others."""
    given, weight = node.args[0], node.args[1]
    if not all("dequantize" in str(getattr(value, "target", "")) for value in (given, weight)):
        return None
    held = getattr(module, str(weight.args[0].target), None)
    is_small = isinstance(held, torch.Tensor) and held.dtype == torch.int8
    return held if is_small else None


def _kernels(graph: Path) -> int:
    with ZipFile(graph) as package:
        texts = [package.read(n).decode() for n in package.namelist() if n.endswith("wrapper.cpp")]
    return sum(len(_KERNEL.findall(text)) for text in texts)
