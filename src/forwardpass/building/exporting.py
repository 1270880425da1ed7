"""Whether torch.export takes a pass, and what it makes of it. Imports the exporter when called."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import sys
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from forwardpass.code.owners import models_line, raised_at
from forwardpass.nouns.calls import Site
from forwardpass.nouns.signatures import Signature
from forwardpass.recording.passes import Pass
from forwardpass.tensors.trees import flatten

Axes = Mapping[str, Mapping[int, str]]
"""By the path of an input: which of its axes are to stay variable, with their names."""


def variable_axes(
    signature: Signature | None, inputs: Mapping[str, torch.Tensor], smallest: int
) -> Axes:
    """The axes that a signature names, the batch among them, where these inputs have `smallest`
    or more along them: the exporter takes sizes below two for constants."""
    found: dict[str, dict[int, str]] = {}
    for item in signature.inputs if signature is not None else ():
        tensor = inputs.get(item.path)
        if tensor is None or tensor.dim() != len(item.axes):
            continue
        for place, axis in enumerate(item.axes):
            if axis.name and tensor.shape[place] >= smallest:
                found.setdefault(item.path, {})[place] = axis.name
    return found


class Bounds(NamedTuple):
    """The sizes of an axis that an exported graph takes: from `lower` to `upper`, without an end if
    None; and the line that says so."""

    lower: int
    upper: int | None
    site: Site | None

    def __str__(self) -> str:
        return f"[{self.lower}, {'∞)' if self.upper is None else f'{self.upper}]'}"


@dataclass
class Exported:
    """What came of an export.

    Attributes:
        program: the exported program; None where there is none.
        error: what PyTorch said, in one line.
        by_value: whether it failed at a decision by a value.
        site: the user's line at which it failed.
        baked: axes that were to stay variable, as path and name, with the size that they have now
            and the line that made it so.
        bounds: the sizes of the other ones that the graph takes, by name.
    """

    program: Any = None
    error: str = ""
    by_value: bool = False
    site: Site | None = None
    baked: dict[tuple[str, str], tuple[int, Site | None]] = field(
        default_factory=dict[tuple[str, str], tuple[int, "Site | None"]]
    )
    bounds: dict[str, Bounds] = field(default_factory=dict[str, "Bounds"])


def exported(this: Pass, axes: Axes) -> Exported:
    """Export the pass as it stands, in a stage that leaves the module as it was.

    Its outputs are those that a Forward gives out, tensors by path: a cache of keys and values,
    which the exporter does not know, stays inside.
    """
    from torch.export import export

    guards: list[tuple[str, Site | None]] = []
    with (
        replace(this, grad="off").staged(contents=True) as (_, args, kwargs),
        quiet(), _noting(guards),
    ):  # fmt: skip
        order = list(inspect.signature(this.module.forward).parameters)
        kwargs = dict(sorted(kwargs.items(), key=lambda item: _place_in(order, item[0])))
        paths = {id(tensor): path for path, tensor in this.named(args, kwargs).items()}
        hook = this.module.register_forward_hook(lambda module, args, result: flatten(result))
        try:
            shapes = _dynamic(this, args, kwargs, paths, axes)
            program = export(this.module, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is why it cannot be exported
            return _failed(error)
        finally:
            hook.remove()
    found = Exported(program)
    _read(found, args, kwargs, paths, axes, guards)
    return found


def _place_in(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _dynamic(
    this: Pass, args: tuple[Any, ...], kwargs: dict[str, Any], paths: Mapping[int, str], axes: Axes
) -> dict[str, Any] | None:
    """Which axes may vary, in the form that the exporter wants; None where none is to."""
    from torch.export import Dim
    from torch.utils import _pytree as pytree

    if not axes:
        return None

    def of(leaf: Any) -> Any:
        wanted = axes.get(paths.get(id(leaf), ""), {})
        return dict.fromkeys(wanted, Dim.AUTO) or None

    bound = inspect.signature(this.module.forward).bind(*args, **kwargs).arguments
    return {name: pytree.tree_map(of, value) for name, value in bound.items()}


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Without what the exporter writes: what it has to say, it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):  # fmt: skip
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _noting(guards: list[tuple[str, Site | None]]) -> Generator[None]:
    """Note each condition on sizes that the exporter adds, with the user's line."""
    from torch.fx.experimental import symbolic_shapes

    kind: Any = symbolic_shapes.ShapeEnv
    original = getattr(kind, "_log_guard", None)

    def log(self: Any, prefix: str, guard: Any, *args: Any, **kwargs: Any) -> Any:
        site = models_line(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        guards.append((str(guard), site))
        assert original is not None
        return original(self, prefix, guard, *args, **kwargs)

    if original is None:  # another version of PyTorch: the lines are not known then
        yield
        return
    kind._log_guard = log
    try:
        yield
    finally:
        kind._log_guard = original


def _failed(error: Exception) -> Exported:
    from torch._subclasses.fake_tensor import DataDependentOutputException
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    said = str(error).strip().split("\n")[0].split("  (Size-like")[0]
    return Exported(
        error=f"{type(error).__name__}: {said}",
        by_value=isinstance(error, GuardOnDataDependentSymNode | DataDependentOutputException),
        site=raised_at(error.__traceback__),
    )


def _read(
    found: Exported, args: tuple[Any, ...], kwargs: dict[str, Any], paths: Mapping[int, str],
    axes: Axes, guards: list[tuple[str, Site | None]],
) -> None:  # fmt: skip
    """What became of the axes that were to vary."""
    import sympy
    from torch.utils import _pytree as pytree

    nodes = {node.name: node for node in found.program.graph.nodes if node.op == "placeholder"}
    leaves = pytree.tree_leaves((args, kwargs))
    symbols: dict[str, str] = {}
    for name, leaf in zip(found.program.graph_signature.user_inputs, leaves, strict=False):
        if not isinstance(leaf, torch.Tensor) or name not in nodes:
            continue
        path = paths.get(id(leaf), "")
        sizes = nodes[name].meta["val"].shape
        for axis, called in axes.get(path, {}).items():
            if str(sizes[axis]).isdigit():  # a symbol that was found to be one number prints as it
                symbol = getattr(getattr(sizes[axis], "node", None), "_expr", "")
                site = _site_of(guards, "Eq(", str(symbol))
                found.baked[path, called] = (leaf.shape[axis], site)
            else:
                symbols[str(sizes[axis])] = called
    for symbol, bounds in found.program.range_constraints.items():
        if str(symbol) not in symbols:
            continue
        lower = int(bounds.lower)
        upper = int(bounds.upper) if isinstance(bounds.upper, int | sympy.Integer) else None
        found.bounds[symbols[str(symbol)]] = Bounds(lower, upper, _narrowing(guards, str(symbol)))


def _narrowing(guards: list[tuple[str, Site | None]], symbol: str) -> Site | None:
    """The line of the first condition by which a size is larger or smaller than something."""
    narrow = (_site_of(guards, symbol, sign) for sign in (" <", " >"))
    return next((site for site in narrow if site), None) or _site_of(guards, symbol)


def _site_of(guards: list[tuple[str, Site | None]], *parts: str) -> Site | None:
    """The line of the first condition that has these parts."""
    return next((site for said, site in guards if site and all(p in said for p in parts)), None)
