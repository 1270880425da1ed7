"""eager(device=, threads=): PyTorch as it is.

An artefact of it is an exported program, which is data, or a trace, which is code.

`device` is what torch takes (`cpu`, `cuda:1`, `mps`), or `cuda:*` for one copy on every CUDA
device; the default is where the parameters are. `threads` is the number of threads inside an
operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import torch
from torch import nn

from forwardpass.building.backends._programs import ROUTES, module_in
from forwardpass.building.backends._programs import trust as trust
from forwardpass.building.plain import PlainReplica
from forwardpass.building.replicas import Arguments, Example, Facts, Inputs, threads_of
from forwardpass.errors import UsageError, contained
from forwardpass.keeping.standing import Standing
from forwardpass.loading.programs import ModuleProgram
from forwardpass.measuring.machines import pytorch
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.programs import Program
from forwardpass.tensors.arrays import Array
from forwardpass.tensors.dtypes import TORCH
from forwardpass.tensors.modules import dtype_of, held_by, moved
from forwardpass.tensors.trees import flatten, nest

_CPU: Final = torch.device("cpu")
_HERE: Final = nullcontext()


class Staged(NamedTuple):
    """The arguments of one call on the device; `named` if they came by the paths of a signature."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    named: bool


class EagerReplica:
    """One copy of the module on one device.

    Attributes:
        module: the copy.
        facts, standing: see there.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        threads: int | None,
        example: Example,
        function: Callable[..., Any] | None = None,
    ) -> None:
        """`function` is what computes what the module does; None: the module."""
        self.module = module
        self._function = function or module
        self.standing = Standing(module)
        self._device = device
        dtype = dtype_of(module)
        self.facts = Facts(
            str(device), dtype, pytorch(), threads, 2 if device.type == "cuda" else 1
        )
        inputs = example.signature.inputs if example.signature else ()
        paths = [item.path for item in inputs]
        self._places = ModuleProgram(module).placed(paths) if paths else {}
        self._flat = _flat(self._places)
        self._dtypes = {item.path: TORCH[item.dtype] for item in inputs}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def stage(self, inputs: Inputs) -> Staged:
        """The inputs on the device; from pinned memory and on a stream of its own on CUDA."""
        if isinstance(inputs, Arguments):
            return Staged(*(_moved(part, self._device) for part in inputs), named=False)
        tensors = {path: self._tensor(path, value) for path, value in inputs.items()}
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                tensors = {
                    path: value.pin_memory().to(self._device, non_blocking=True)
                    for path, value in tensors.items()
                }
            self._stream.synchronize()
        elif self._device.type != "cpu":
            tensors = {path: value.to(self._device) for path, value in tensors.items()}
        if self._flat is not None and len(tensors) == len(self._places):
            places, names = self._flat
            args = tuple([tensors[path] for path in places])
            return Staged(args, {name: tensors[path] for path, name in names}, named=True)
        args, kwargs = nest({self._places[path]: value for path, value in tensors.items()})
        return Staged(args, kwargs, named=True)

    def compute(self, staged: Staged, seed: int | None = None) -> Any:
        """What forward returns in inference mode: its tensors by name if its inputs are named."""
        if seed is not None:
            self._seed(seed)
        try:
            with contained(), torch.inference_mode(), self._on_device():
                outputs = self._function(*staged.args, **staged.kwargs)
        except BaseException:
            self.standing.settle()
            raise
        if staged.named:
            outputs = flatten(outputs)
        if not self.standing.holds():  # what comes out may stand in memory that is put back
            outputs = _each(outputs, _cloned)
            self.standing.settle()
        return outputs

    def fetch(self, outputs: Any) -> Any:
        """The outputs in CPU memory; waits for the device."""
        return _each(outputs, _fetched)

    def _tensor(self, path: str, value: Array) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value
        tensor, dtype = torch.from_numpy(value), self._dtypes[path]
        return tensor if tensor.dtype == dtype else tensor.to(dtype)

    def _seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):
                torch.cuda.manual_seed(seed)
        elif self._device.type == "mps":
            torch.mps.manual_seed(seed)

    def _on_device(self) -> Any:
        return _HERE if self._stream is None else torch.cuda.device(self._device)


def save(program: Program, example: Example, folder: Path) -> Lowered:
    """Write an exported program, or a trace where that fails. Raises BuildError."""
    from forwardpass.building.lowering import lower  # which needs all that records

    return lower(program, example, folder, backend="eager", routes=ROUTES, opened=open)


def open(folder: Path, lowered: Lowered, threads: int | None = None) -> list[PlainReplica]:
    """One replica, on the CPU. Raises LoadError for what is damaged."""
    return [PlainReplica(module_in(folder, lowered), lowered, threads_of("eager", threads))]


def build(
    program: Program,
    example: Example,
    device: str | None = None,
    threads: int | None = None,
) -> list[EagerReplica]:
    """One replica a device."""
    module = program.module
    if module is None:
        raise UsageError(f"eager computes modules, and {program.name} is an artefact without one")
    threads = threads_of("eager", threads)
    devices = _devices(module, device)
    modules = [module] + [deepcopy(module) for _ in devices[1:]]
    return [
        EagerReplica(copy if device is None else moved(copy, place), place, threads, example)
        for copy, place in zip(modules, devices, strict=True)
    ]


def _devices(module: nn.Module, device: str | None) -> list[torch.device]:
    if device is None:
        tensors = held_by(module).values()
        found = sorted({str(tensor.device) for tensor in tensors if tensor.device.type != "meta"})
        return [torch.device(found[0] if found else "cpu")]
    device = str(device)
    if device == "cuda:*":
        count = torch.cuda.device_count()
        if not count:
            raise UsageError(
                "eager(device=cuda:*): this machine has no CUDA device; use device=cpu"
            )
        return [torch.device("cuda", index) for index in range(count)]
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            f"eager(device={device}): not a device that torch knows; "
            "use cpu, cuda, cuda:0, cuda:* or mps"
        ) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"eager(device={device}): this machine has {torch.cuda.device_count()} CUDA devices; "
            "use device=cpu"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("eager(device=mps): this machine has no MPS device; use device=cpu")
    if str(chosen) == "cuda":
        chosen = torch.device("cuda", torch.cuda.current_device())
    return [chosen]


def _flat(places: Mapping[str, str]) -> tuple[list[str], list[tuple[str, str]]] | None:
    """The inputs that are arguments by position, in order, and those by name, with their names;
    None where one lies within an argument, or is not there: `nest` knows what that makes."""
    positions = {int(place): path for path, place in places.items() if place.isdigit()}
    if any("." in place for place in places.values()) or sorted(positions) != list(
        range(len(positions))
    ):
        return None
    names = [(path, place) for path, place in places.items() if not place.isdigit()]
    return [positions[place] for place in range(len(positions))], names


def _moved(value: Any, device: torch.device) -> Any:
    """The tensors of a tree on `device`; what has a `to` of its own (a graph) moves itself."""

    def moved(leaf: Any) -> Any:
        mover: Any = getattr(leaf, "to", None)
        return leaf if mover is None else mover(device)

    return _each(value, moved)


def _fetched(leaf: Any) -> Any:
    return leaf if isinstance(leaf, torch.Tensor) and leaf.is_cpu else _moved(leaf, _CPU)


def _cloned(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A tree of dicts, lists and tuples with its leaves changed."""
    if isinstance(value, dict):
        return {name: _each(item, change) for name, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        items = [_each(item, change) for item in cast("list[Any]", value)]
        return items if isinstance(value, list) else tuple(items)
    return change(value)
