"""`model.pt2`: a program of `torch.export`, opened after proof that it is data."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from forwardpass.errors import LoadError
from forwardpass.loading.archives import prove_data
from forwardpass.nouns.models import Model
from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.tensors.dtypes import NAMES

# (index of the argument that is `train`, the operators that have it there)
_TRAINING = {
    2: ("aten.dropout.default", "aten.native_dropout.default", "aten.feature_dropout.default"),
    5: ("aten.batch_norm.default", "aten.native_batch_norm.default"),
}


_TRANSFORMERS_OUTPUT = re.compile(
    r"(?P<module>transformers\.(modeling_outputs|models\.\w+\.modeling_\w+))\.\w+"
)


class _Unsaid(Exception):
    """Why the inputs of a program do not fit the notation."""


def from_pt2(path: Path, origin: str) -> Model:
    """The model in a `.pt2`. Its inputs are those of the program, with their ranges.

    Raises LoadError: the file is no data, was written by another format, or the program was
    exported for one batch size or in training mode.
    """
    _register_outputs(prove_data(path))
    program = _opened(path)
    _refuse_training(program, path)
    leaves = _leaves(program)
    module = _module(program, {where: v for where, v in leaves if not isinstance(v, torch.Tensor)})
    try:
        signature = Signature(tuple(_inputs(program, path, leaves)))
    except _Unsaid as reason:
        signature = None
        warnings.warn(
            f"{path}: the inputs of this program are taken from the data, because {reason}",
            stacklevel=2,
        )
    return Model(module, signature, origin=origin, trust="data")


def _register_outputs(types: set[str]) -> None:
    """Import the modules of transformers whose outputs a program gives: PyTorch must know them.

    Only modules of that library, and only where it is installed already.
    """
    for name in types:
        match = _TRANSFORMERS_OUTPUT.fullmatch(name)
        if match and importlib.util.find_spec("transformers"):
            importlib.import_module(match["module"])


def _opened(path: Path) -> ExportedProgram:
    """The program in a file known to be data. Raises LoadError with PyTorch's own reason."""
    reasons: list[BaseException] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                reasons.append(record.exc_info[1])

    # torch.export.load logs why it failed, with its whole stack, and raises something else.
    log, listener = logging.getLogger("torch.export"), Listener()
    propagates = log.propagate
    log.propagate = False
    log.addHandler(listener)
    try:
        return torch.export.load(path)
    except Exception as error:
        reason = reasons[0] if reasons else error
        raise LoadError(
            f"{path} cannot be opened by PyTorch {torch.__version__}: {type(reason).__name__}: "
            f"{_first_line(reason)}"
        ) from error
    finally:
        log.removeHandler(listener)
        log.propagate = propagates


def _module(program: ExportedProgram, constants: Mapping[str, Any]) -> nn.Module:
    """The program as a module that is in eval mode and takes its tensors by name.

    `constants` are the arguments that were no tensors at export; the program knows them, and wants
    them again. Without guards: they are source code in the file, which torch would compile; the
    ranges of the inputs are checked all the same, in a hook.
    """
    module = program.module(check_guards=False)
    # torch makes train() and eval() raise, since they change nothing; so they may as well do that.
    for name in ("train", "eval"):
        vars(module).pop(name, None)
    module.eval()
    positional = (
        [] if program.call_spec.in_spec is None else program.call_spec.in_spec.child(0).children()
    )
    count = len(positional)

    def as_exported(
        called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments as the program takes them: by position or by name, as they were at export."""
        signature = inspect.signature(called.forward)
        given = {**constants, **signature.bind_partial(*args, **kwargs).arguments}
        names = [name for name in signature.parameters if name in given]
        return tuple(given[n] for n in names[:count]), {n: given[n] for n in names[count:]}

    module.register_forward_pre_hook(as_exported, prepend=True, with_kwargs=True)
    return module


def _refuse_training(program: ExportedProgram, path: Path) -> None:
    for node in program.graph.nodes:
        for place, operators in _TRAINING.items():
            if (
                str(node.target) in operators
                and len(node.args) > place
                and node.args[place] is True
            ):
                raise LoadError(
                    f"{path} was exported in training mode ({node.name} is {node.target} with "
                    "training on), so its results are random or depend on the batch; call "
                    "model.eval() before torch.export.export"
                )


def _leaves(program: ExportedProgram) -> list[tuple[str, Any]]:
    """Where each flat input lies in the arguments of forward, and what it was at export."""
    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    names = program.graph_signature.user_inputs
    return [
        (where, values.get(name) if isinstance(name, str) else name)
        for where, name in zip(_paths(program), names, strict=True)
    ]


def _inputs(program: ExportedProgram, path: Path, leaves: Sequence[tuple[str, Any]]) -> list[Input]:
    """The tensors that the program takes. Raises _Unsaid, and LoadError for a fixed batch."""
    tensors: list[tuple[str, torch.Tensor]] = []
    for where, value in leaves:
        if isinstance(value, torch.Tensor):
            if value.dtype not in NAMES:
                raise _Unsaid(f"its input {where!r} has the dtype {value.dtype}")
            tensors.append((where, value))
        elif "." in where or isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            raise _Unsaid(f"its input {where!r} is a {type(value).__name__}, not a tensor")
    if not tensors:
        raise _Unsaid("it takes no tensor")
    batch = next((_symbol(v.shape[0]) for _, v in tensors if v.dim() and _symbol(v.shape[0])), None)
    if batch is None:
        where, first = next(((w, v) for w, v in tensors if v.dim()), tensors[0])
        size = int(first.shape[0]) if first.dim() else 1
        raise LoadError(
            f"{path}: exported with a fixed batch of {size}; export again with "
            f"dynamic_shapes={{{where.split('.')[0]!r}: {{0: Dim('batch')}}, …}}"
        )
    ranges = {str(symbol): bounds for symbol, bounds in program.range_constraints.items()}
    low, _ = _bounds(ranges.get(batch))
    if low > 1:
        raise LoadError(
            f"{path}: exported for batches of {low} rows and more, but the last batch may be "
            "smaller; export again with Dim('batch', min=1)"
        )
    axes = _Axes(batch, ranges)
    return [
        Input(where, NAMES[value.dtype], tuple(axes.of(where, size) for size in value.shape))
        for where, value in tensors
    ]


class _Axes:
    """The named axes of a program, by the expressions of its symbolic sizes."""

    def __init__(self, batch: str, ranges: Mapping[str, Any]) -> None:
        self.batch = batch
        self.ranges = ranges
        self.named: dict[str, Axis] = {}
        self.roots: dict[str, str] = {}

    def of(self, where: str, size: Any) -> Axis:
        if not isinstance(size, torch.SymInt):
            return Axis(size=int(size))
        if _symbol(size) == self.batch:
            return Axis("batch")
        expression = size.node.expr
        text = str(expression)
        if text not in self.named:
            self.named[text] = self._axis(where, expression)
        return self.named[text]

    def _axis(self, where: str, expression: Any) -> Axis:
        name = f"axis{len(self.named) + 1}"
        factor, rest = expression.as_coeff_Mul()
        if not rest.is_Symbol or not factor.is_Integer or int(factor) < 1:
            raise _Unsaid(f"the size {expression} of its input {where!r} is more than a multiple")
        if str(rest) == self.batch:
            raise _Unsaid(f"the size {expression} of its input {where!r} follows the batch")
        other = self.roots.setdefault(str(rest), str(expression))
        if other != str(expression):
            raise _Unsaid(f"the sizes {other} and {expression} of its inputs follow each other")
        multiple = int(factor)
        low, high = _bounds(self.ranges.get(str(rest)))
        if high is None and low > 1:
            # The notation states both bounds or none.
            high = (2**31 - 1) // multiple
        return Axis(
            name,
            0,
            low * multiple if high else 1,
            None if high is None else high * multiple,
            multiple,
        )


def _paths(program: ExportedProgram) -> list[str]:
    """Where each flat input of the program lies in the arguments of forward, as dotted paths."""
    spec = program.call_spec.in_spec
    if spec is None:
        return [str(name) for name in program.graph_signature.user_inputs]
    entry = program.module_call_graph[0].signature
    names = list((entry.forward_arg_names if entry else None) or [])
    args, kwargs = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    arguments = {
        **{(names[place] if place < len(names) else str(place)): v for place, v in enumerate(args)},
        **kwargs,
    }
    found: dict[int, str] = {}
    for name, value in arguments.items():
        for keys, index in pytree.tree_flatten_with_path(value)[0]:
            steps = [
                str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))
                for key in keys
            ]
            found[index] = ".".join([name, *steps])
    return [found[index] for index in range(spec.num_leaves)]


def _symbol(size: Any) -> str | None:
    """The symbol that a size is, alone; None for numbers and expressions."""
    if not isinstance(size, torch.SymInt):
        return None
    expression = size.node.expr
    return str(expression) if expression.is_Symbol else None


def _bounds(bounds: Any) -> tuple[int, int | None]:
    """The least and the largest size of a range; None where it has no end.

    PyTorch assumes sizes of 2 and more of what it specializes, and runs smaller ones all the same.
    """
    if bounds is None:
        return 1, None
    low = int(bounds.lower) if getattr(bounds.lower, "is_Integer", False) else 1
    high = int(bounds.upper) if getattr(bounds.upper, "is_Integer", False) else None
    if high is not None and high >= 2**31:
        high = None
    return (1 if low <= 2 else low), high


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else ""
