"""An exported program of PyTorch, or a trace where that fails: written, and opened as a module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from forwardpass.errors import LoadError
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.programs import Trust
from forwardpass.tensors.modules import put_into_mode

if TYPE_CHECKING:
    from forwardpass.building.lowering import Draft

_PROGRAM, _TRACE = "graph.pt2", "graph.pt"


def _exported(draft: Draft, folder: Path) -> None:
    from forwardpass.building.graphs import exported, saved
    from forwardpass.building.lowering import ByName, taking

    plain = draft.plain
    by_name = taking([port.path for port in draft.inputs], ByName)
    twin = by_name(plain.module, plain.places, plain.outputs)
    put_into_mode(twin, False)
    program = exported(draft._replace(plain=twin))
    saved(lambda file: torch.export.save(program, file), folder / _PROGRAM)


def _traced(draft: Draft, folder: Path) -> None:
    from forwardpass.building.graphs import saved, traced

    trace = traced(draft)
    saved(lambda file: torch.jit.save(trace, file), folder / _TRACE)


EXPORT = "torch.export"
ROUTES = {EXPORT: _exported, "trace": _traced}


def trust(lowered: Lowered) -> Trust:
    """An exported program is opened after proof that it is data; opening a trace may run code."""
    return "data" if lowered.route.startswith(EXPORT) else "code"


def module_in(folder: Path, lowered: Lowered) -> Any:
    """What was written, as a module. Raises LoadError where it is damaged, or no data."""
    if lowered.route.startswith(EXPORT):
        from forwardpass.loading.archives import prove_data

        prove_data(folder / _PROGRAM)
        return torch.export.load(folder / _PROGRAM).module(check_guards=False)
    try:
        return torch.jit.load(folder / _TRACE)
    except Exception as error:
        raise LoadError(f"{_TRACE} cannot be opened by PyTorch {torch.__version__}") from error
