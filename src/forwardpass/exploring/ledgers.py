"""Ledger: hashes of everything a module holds, before and after what one does with it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

import msgspec
import torch
from torch import nn

from forwardpass.checking.rules.state_changed.learning import twin_of
from forwardpass.errors import contained, said
from forwardpass.keeping.memories import is_strided
from forwardpass.loading.digests import content
from forwardpass.nouns.progress import Steps
from forwardpass.probing.changes import Change
from forwardpass.probing.probes import Probe
from forwardpass.recording.passes import Mode
from forwardpass.tensors.dtypes import spelled
from forwardpass.tensors.modules import buffers_of, parameters_of, parts_of
from forwardpass.tensors.trees import flatten

TRAIN: Final = "forward, train"
MOMENTS: Final = ("at the start", "forward, eval", TRAIN, "backward", "optimizer.step")
SEED: Final = 1
_MODES: Final[tuple[Mode, ...]] = ("eval", "train")
_SHOWN: Final = 6
"""Hex digits."""
_RATE: Final = 1e-2

Hashes = Mapping[str, str]
"""By name; "" for what has no bytes to hash: sparse, nested, meta."""


class StateEntry(msgspec.Struct, frozen=True):
    """A parameter or a buffer through the moments.

    Attributes:
        hashes: of its bytes, as far as the moments came; "" where it has none to hash.
        changed: whether it is other than before what was done; of the first moment, no.
    """

    name: str
    kind: Literal["parameter", "buffer"]
    form: str
    hashes: tuple[str, ...]
    changed: tuple[bool, ...]


class StateLedger(msgspec.Struct, frozen=True):
    """What changes the state of a module.

    Attributes:
        moments: those that came. The two passes are without autograd, on the module itself, which
            was put back after each; backward and step are on a copy.
        also: by pass, what changed beside parameters and buffers, a sentence each.
        missing: why a moment did not come, a sentence each, which begins with its name; of those
            that follow from each other, of the first.
        kept: whether the module's own bytes are, after all this, what they were.
    """

    moments: tuple[str, ...]
    entries: tuple[StateEntry, ...]
    also: tuple[str, ...]
    missing: tuple[str, ...]
    kept: bool


def ledger(probe: Probe, steps: Steps) -> StateLedger:
    """Hash the state of a module along two passes, and along one step of learning on a copy.

    The loss is the mean square of the outputs, the optimizer SGD over all floating parameters of
    the copy, those that are frozen in the model as well: what would change if it learned.
    """
    steps.begin("hashing the model's state", len(MOMENTS) + 1)
    start = _hashes(probe.module)
    made: dict[str, tuple[Hashes, Hashes]] = {MOMENTS[0]: (start, start)}
    also: list[str] = []
    missing: list[str] = []
    for mode in _MODES:
        steps.advance()
        moment = f"forward, {mode}"
        with _tried(moment, missing):
            made[moment] = start, _forward(probe, mode, also)
    steps.advance()
    if TRAIN in made:  # a step of learning begins with such a pass
        with _tried("backward", missing):
            after, backward, step = _learned(probe)
            made |= {"backward": (after, backward), "optimizer.step": (backward, step)}
    steps.advance()
    entries = tuple(
        StateEntry(
            name, kind, f"{spelled(tensor.dtype)}[{' '.join(map(str, tensor.shape))}]",
            tuple(now.get(name, "")[:_SHOWN] for _, now in made.values()),
            tuple(now.get(name) != before.get(name) for before, now in made.values()),
        )
        for name, (kind, tensor) in _held(probe.module).items()
    )  # fmt: skip
    kept = _hashes(probe.module) == start
    return StateLedger(tuple(made), entries, tuple(also), tuple(missing), kept)


@contextmanager
def _tried(moment: str, missing: list[str]) -> Generator[None]:
    """Whatever the model raises on the way to a moment is why that is missing."""
    try:
        with contained():
            yield
    except Exception as error:  # noqa: BLE001 - the other moments are shown
        missing.append(f"{moment}: {said(error)}")


def _forward(probe: Probe, mode: Mode, also: list[str]) -> Hashes:
    """The state after a pass in a mode, without autograd; it is put back."""
    this = probe.another(Change(mode=mode, grad="off", seed=SEED))
    with this.staged(contents=True) as (state, args, kwargs):
        this.module(*args, **kwargs)
        found = _hashes(this.module)
        told = (one for one in state.changes() if not one.startswith(("parameter ", "buffer ")))
        also += [f"forward, {mode}: {one}" for one in told]
    return found


def _learned(probe: Probe) -> tuple[Hashes, Hashes, Hashes]:
    """The state of a copy after forward, after backward, after a step of SGD.

    Raises ValueError where no output depends on a parameter through autograd.
    """
    this = probe.another(Change(mode="train", grad="on", seed=SEED))
    with this.staged(contents=True) as (_, args, kwargs):
        twin = twin_of(this.module)
        weights = [w for _, w in parameters_of(twin) if w.is_floating_point() or w.is_complex()]
        for weight in weights:
            weight.requires_grad_()
        came = flatten(twin(*args, **kwargs)).values()
        after = _hashes(twin)
        outputs = [tensor for tensor in came if tensor.requires_grad]
        if not outputs:
            raise ValueError("no output depends on a parameter through autograd")
        torch.stack([t.abs().float().square().mean() for t in outputs]).sum().backward()
        backward = _hashes(twin)
        torch.optim.SGD(weights, lr=_RATE).step()
        return after, backward, _hashes(twin)


def _held(module: nn.Module) -> dict[str, tuple[Literal["parameter", "buffer"], torch.Tensor]]:
    """Parameters and buffers, those of a layer together, in the order of the tree."""
    found: dict[str, tuple[Literal["parameter", "buffer"], torch.Tensor]] = {}
    for name, tensor in parameters_of(module):
        found[name] = "parameter", tensor
    for name, tensor in buffers_of(module):
        found[name] = "buffer", tensor
    order = {path: place for place, (path, _) in enumerate(parts_of(module))}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0].rpartition(".")[0], 0)))


def _hashes(module: nn.Module) -> Hashes:
    return {name: _hash(tensor) for name, (_, tensor) in _held(module).items()}


def _hash(tensor: torch.Tensor) -> str:
    if tensor.device.type == "meta" or not is_strided(tensor):
        return ""
    return hashlib.sha256(content(tensor).encode()).hexdigest()
