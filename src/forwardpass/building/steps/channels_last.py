"""channels_last: images lie in memory pixel by pixel, as kernels of 2-d convolutions like it.

The weights of 2-d convolutions are laid so, and the inputs that reach these through 4-d values
alone; what follows lies as its operators make it. Tensors that leave the model lie as usual.

Code that takes for granted that memory lies as usual, such as `.view` over channels, raises then:
the part that made what such a line takes lays it as usual.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch import nn
from torch.utils import _pytree as pytree

from forwardpass.building.steps._parts import as_deployed, chosen, put_tensor
from forwardpass.building.steps._wording import counted, listed
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError, PassError, said
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.operators import convolution, find
from forwardpass.recording.costs import by_name
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.modules import held_by, parts_of

FAR = 1e-3
_IMAGES: Final = 4
"""Axes of a batch of images: rows, channels, height, width."""


class _Entering:
    """A hook that lays the arguments in these places: positions, or names."""

    def __init__(self, places: Iterable[int | str]) -> None:
        self.places = frozenset(places)

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        laid = [_laid(value) if i in self.places else value for i, value in enumerate(args)]
        named = {n: _laid(value) if n in self.places else value for n, value in kwargs.items()}
        return tuple(laid), named


def apply(piece: Workpiece) -> str:
    """Lay the weights of the selected 2-d convolutions. Raises BuildError where there are none,
    and where the model cannot be computed then."""
    parts, before = chosen(piece), as_deployed(piece)
    own = [call for call in _convolutions(before) if before.module(call).path in parts]
    if not own:
        raise BuildError(f"{piece.step}: the pass computes no 2-d convolution in what was chosen")
    held = held_by(piece.module)
    for call in own:
        weight = before.values[by_name(before.schema(call), call)["weight"].value]
        if weight.name in held:
            laid = held[weight.name].detach().clone(memory_format=torch.channels_last)
            put_tensor(piece.module, weight.name, laid)
    reached = set(_reached(before, own))
    piece.module.register_forward_pre_hook(_Entering(_places(before, reached)), with_kwargs=True)
    piece.module.register_forward_hook(_leaving)
    after, usual = _settled(piece, before)
    results = [_is_laid(after, c) for c in _convolutions(after) if after.module(c).path in parts]
    if not any(results):
        raise BuildError(f"{piece.step}: PyTorch computes none of the 2-d convolutions so here")
    inputs = f"; laid when they enter: {listed(sorted(reached))}" if reached else ""
    lines = f"; laid as usual after: {listed(usual)}" if usual else ""
    return (
        f"{sum(results):,} of {counted(len(results), '2-d convolution')} computed with channels "
        f"last{inputs}{lines}"
    )


def _convolutions(record: Recording) -> Iterator[Call]:
    for call in record.calls:
        if find(call.packet) is convolution:
            weight = by_name(record.schema(call), call)["weight"].value
            if len(record.values[weight].shape) == _IMAGES:
                yield call


def _reached(record: Recording, own: Iterable[Call]) -> Iterator[str]:
    """The inputs that lead to these calls through 4-d values alone, by path."""
    waiting = [by_name(record.schema(call), call)["input"].value for call in own]
    seen: set[int] = set()
    while waiting:
        serial = waiting.pop()
        value = record.values[serial]
        if serial in seen or len(value.shape) != _IMAGES:
            continue
        seen.add(serial)
        if value.origin == "input":
            yield value.name
        maker = record.graph.maker(serial)
        waiting += maker.inputs if maker is not None else ()


def _places(record: Recording, paths: Iterable[str]) -> Iterator[int | str]:
    """Where in the arguments of forward these inputs are."""
    names = ModuleProgram(record.this.module).arguments()
    for path in paths:
        name = path.partition(".")[0]
        place = names.index(name) if name in names else int(name) if name.isdigit() else None
        given = place is not None and place < len(record.this.arguments)
        yield place if given and place is not None else name


def _is_laid(record: Record, call: Call) -> bool:
    value = record.values[call.outputs[0]]
    _, channels, height, width = value.shape
    strides = (height * width * channels, 1, width * channels, channels)
    return all(
        size == 1 or stride == wanted
        for size, stride, wanted in zip(value.shape, value.strides or (), strides, strict=True)
    )


def _settled(piece: Workpiece, before: Recording) -> tuple[Recording, list[str]]:
    """The pass of the module, which computes; and the parts that lay what they make as usual."""
    usual: list[str] = []
    while True:
        try:
            return as_deployed(piece), usual
        except PassError as error:
            path = _makes(piece.module, before, error.record, usual)
            if path is None:
                raise BuildError(f"{piece.step}: after it {said(error)}") from error
            dict(parts_of(piece.module))[path].register_forward_hook(_leaving)
            usual.append(path)


def _makes(module: nn.Module, before: Record, partial: Record, usual: list[str]) -> str | None:
    """The part that makes what a call takes that failed, of those that do not lay it as usual."""
    failed = partial.failed
    if failed is None or failed.site is None:
        return None

    def is_there(record: Record, call: Call) -> bool:
        return call.operator == failed.operator and record.site(call) == failed.site

    done = sum(is_there(partial, call) for call in partial.calls)
    same = [call for call in before.calls if is_there(before, call)][done : done + 1]
    waiting = [serial for call in same for serial in call.inputs]
    paths, seen = dict(parts_of(module)), set[int]()
    while waiting:
        serial = waiting.pop(0)
        for entry in reversed(before.modules[1:]):
            if serial in entry.outputs and entry.path in paths and entry.path not in usual:
                return entry.path
        maker = before.graph.maker(serial)
        if maker is not None and serial not in seen:
            waiting += maker.inputs
        seen.add(serial)
    return None


def _laid(value: Any) -> Any:
    """What is given, with 4-d tensors laid pixel by pixel."""

    def laid(tensor: torch.Tensor) -> torch.Tensor:
        images = tensor.dim() == _IMAGES
        return tensor.contiguous(memory_format=torch.channels_last) if images else tensor

    return pytree.tree_map_only(torch.Tensor, laid, value)


def _leaving(module: nn.Module, args: Any, outputs: Any) -> Any:
    """A hook: what leaves lies as usual."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.contiguous(), outputs)
