"""The outputs of a side, as they really come out."""

from __future__ import annotations

import torch

from forwardpass.nouns.records import Record
from forwardpass.recording.passes import Pass
from forwardpass.tensors.trees import flatten


def finals_of(record: Record) -> dict[str, torch.Tensor]:
    """The outputs by path: of the pass, or kept in the record's file.

    What is compiled is recorded as eager code; its outputs are those of the compiled program.
    """
    if record.live is None:
        return {
            path: record.tensors[serial]
            for path, serial in record.outputs.items()
            if serial in record.tensors
        }
    if not is_compiled(record):
        return dict(record.live.outputs)
    this: Pass = record.live.this
    with this.staged(contents=True) as (_, args, kwargs), torch.compiler.set_stance("default"):
        found = flatten(this.module(*args, **kwargs))
        return {path: tensor.detach().clone() for path, tensor in found.items()}


def is_compiled(record: Record) -> bool:
    """Whether parts of the module are compiled: what ran then is not what was recorded."""
    return any(note.startswith("compiled, and recorded as eager") for note in record.notes)
