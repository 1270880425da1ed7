"""Links to the backward pass: what outputs reach, and what lines keep for it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from forwardpass.code.frames import Frames
from forwardpass.keeping.states import State
from forwardpass.nouns.calls import Site
from forwardpass.nouns.records import Saved
from forwardpass.recording.notes import bytes_of
from forwardpass.recording.passes import Pass, forwardpass_starts_the_pass


def reached(outputs: Mapping[str, torch.Tensor], state: State) -> dict[str, tuple[str, ...]]:
    """The parameters that each output depends on, by the graph that autograd made."""
    return {path: _leaves(tensor, state) for path, tensor in outputs.items()}


def _leaves(tensor: torch.Tensor, state: State) -> tuple[str, ...]:
    names: list[str] = []
    own = state.held.get(id(tensor))
    if own is not None:
        names.append(own.name)
    waiting: list[Any] = [tensor.grad_fn]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        held = state.held.get(id(getattr(node, "variable", None)))
        if held is not None:
            names.append(held.name)
        waiting += [following for following, _ in node.next_functions]
    order = {held.name: place for place, held in enumerate(state.held.values())}
    return tuple(sorted(set(names), key=order.__getitem__))


def saved_for_backward(this: Pass) -> tuple[Saved, ...]:
    """What each line keeps for the backward pass, by running the pass again; most bytes first.

    Memory that several tensors share counts once, at the first line; parameters and buffers, which
    are there anyway, do not count.
    """
    with this.staged() as (state, args, kwargs):
        frames = Frames(state.kinds)
        seen = {_memory(held.tensor) for held in state.held.values()}
        kept: dict[int, tuple[int, int]] = {}
        alive: list[torch.Tensor] = []  # so that no memory is given anew while it is counted

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            memory = _memory(tensor)
            if memory not in seen:
                seen.add(memory)
                alive.append(tensor)
                site, _ = frames.here(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
                count, size = kept.get(site, (0, 0))
                held = tensor.untyped_storage() if memory is not None else None
                own = bytes_of(tensor) if held is None else held.nbytes()
                kept[site] = (count + 1, size + own)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, _unpacked):
            forwardpass_starts_the_pass(this.module, args, kwargs)
        sites = frames.sites()
    by_line: dict[Site, tuple[int, int]] = {}
    for site, (count, size) in kept.items():
        before = by_line.get(sites[site], (0, 0))
        by_line[sites[site]] = (before[0] + count, before[1] + size)
    found = [Saved(site, count, size) for site, (count, size) in by_line.items()]
    return tuple(sorted(found, key=lambda saved: -saved.bytes))


def _unpacked(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _memory(tensor: torch.Tensor) -> int | None:
    """Which memory a tensor stands in; None where its layout has no single one."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return None
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
