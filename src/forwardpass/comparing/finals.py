"""The outputs of a side, as they really come out."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from forwardpass.nouns.records import KeptRecord, Record
from forwardpass.probing.probes import Probe
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.trees import flatten


def finals_of(record: KeptRecord) -> dict[str, torch.Tensor]:
    """The outputs by path: of the pass, or kept in the record's file; dense, whatever their layout.

    What is compiled is recorded as eager code; its outputs are those of the compiled program.
    """
    return {path: _dense(tensor) for path, tensor in _came(record).items()}


def _came(record: KeptRecord) -> Mapping[str, torch.Tensor]:
    if not isinstance(record, Recording):
        kept = {path: s for path, s in record.outputs.items() if s in record.tensors}
        return {path: record.tensors[serial] for path, serial in kept.items()}
    if not is_compiled(record):
        return record.returned
    came = flatten(Probe(record).walk(torch.compiler.set_stance("default")))
    return {path: tensor.detach().clone() for path, tensor in came.items()}


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_nested:
        return torch.nested.to_padded_tensor(tensor.detach(), 0.0)
    return tensor if tensor.layout is torch.strided else tensor.detach().to_dense()


def is_compiled(record: Record) -> bool:
    """Whether parts of the module are compiled: what ran then is not what was recorded."""
    return any(note.startswith("compiled, and recorded as eager") for note in record.notes)
