"""The verb: one forward pass, recorded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import torch

from forwardpass.errors import UsageError
from forwardpass.loading import load
from forwardpass.nouns.forwards import ForwardLike
from forwardpass.probing.calling import called
from forwardpass.recording.gradients import saved_for_backward
from forwardpass.recording.observing import Watching
from forwardpass.recording.passes import Grad, Mode, Pass
from forwardpass.recording.recordings import Recording, recorded
from forwardpass.tensors.modules import parts_of

_SCRIPT_SETTLES = 2
"""Runs of TorchScript after which its executor no longer rewrites the graph."""


def record(
    forward: ForwardLike,
    inputs: Any,
    *,
    mode: Mode | None = None,
    grad: Grad | None = None,
    statistics: bool = False,
    values: str | Sequence[str] | None = None,
    value_bytes: int | None = None,
    saved: bool = False,
    expanded: bool = False,
) -> Recording:
    """Record one forward pass: every operator that ran, in which module, at which line, on what.

    The module is left as it was: weights, buffers, attributes, modes, generators.

    Args:
        forward: a reference with its plan, a module, a Model or a Forward. Without a plan it is the
            user's own module that runs, otherwise the copy that the plan makes.
        inputs: a tensor, a tuple of positional arguments, or a dict of named ones.
        mode: "train" or "eval"; None: as the module stands.
        grad: "on", "off" or "inference"; None: as the caller stands.
        statistics: of every floating value: min, max, mean, std, share of zeros, NaN, Inf.
        values: keep the values themselves: "all", or globs of module paths.
        value_bytes: keep values while they fit into so many bytes.
        saved: what lines keep for the backward pass (with grad "on"); runs the pass once more.
        expanded: with PyTorch's fused fast path for transformers off.

    Raises:
        UsageError: the inputs are of a form that no call has; the module is lazy.
        PassError: the module raised; its cause is the original error, and `error.record` is the
            Recording of the calls before it.
        LoadError: the model cannot be loaded.
    """
    loaded = load(forward)
    asked = called(loaded, inputs)
    this = Pass.of(
        asked.module, asked.arguments, asked.keywords,
        grad=grad, mode=mode, threads=asked.threads, expanded=expanded, renamed=asked.renamed,
    )  # fmt: skip
    if saved and this.grad != "on":
        raise UsageError('record(saved=True) needs grad="on": nothing is saved for backward else')
    settle(this)
    watching = Watching(statistics, values, value_bytes)
    done = recorded(str(loaded), this, asked.notes, watching, standing=this.generators)
    if saved:
        done = msgspec.structs.replace(done, saved=saved_for_backward(this))
    return done


def settle(this: Pass) -> None:
    """Make a pass as often as TorchScript in it needs to settle: its executor rewrites the graph in
    its first runs. What a pass raises, the one that is made next raises again."""
    if any(isinstance(part, torch.jit.ScriptModule) for _, part in parts_of(this.module)):
        for _ in range(_SCRIPT_SETTLES):
            with suppress(Exception):
                this.plain()
