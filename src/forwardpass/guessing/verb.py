"""guess: a Forward whose model says nothing of its inputs → what it may take."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Final

from torch.nn.parameter import is_lazy

from forwardpass.errors import UsageError
from forwardpass.guessing.following import NoTensor
from forwardpass.guessing.forms import plain
from forwardpass.guessing.searching import Search, wanted
from forwardpass.guessing.settling import Guess
from forwardpass.nouns.forwards import Forward
from forwardpass.tensors.modules import parameters_of

_OTHERWISE: Final = ("--inputs FILE (.npz, .safetensors)", "--data SOURCE")


def guess(forward: Forward, otherwise: Sequence[str] = _OTHERWISE) -> Guess:
    """A signature with which passes through the module of `forward` went, found by trying.

    The module is left as it was; what it prints and warns of meanwhile is dropped. Raises
    UsageError with the line to write, where no pass goes through; `otherwise` are options that say
    what goes in without a signature: whole inputs, and last of all, rows.
    """
    module = forward.model.module
    try:
        paths = wanted(module)
    except (TypeError, ValueError):
        paths = []
    if not paths or any(is_lazy(p) for _, p in parameters_of(module)):
        raise _unknown(forward, paths, otherwise)
    search = Search(module, paths)
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = search.found()
    if found is None or (search.passes.graphs and not found.apart):
        raise _unknown(forward, paths, otherwise, search)
    return found


def _unknown(
    forward: Forward, paths: list[str], otherwise: Sequence[str], search: Search | None = None
) -> UsageError:
    module = type(forward.model.module).__name__
    head = (
        f"{forward.model.name} has no signature, and what {module}.forward({', '.join(paths)}) "
        "takes could not be guessed"
    )
    furthest = None if search is None else search.passes.furthest
    if furthest is not None and isinstance(furthest.error, NoTensor):
        return UsageError(
            f"{head}: {furthest.error}, so it is no tensor. Give that argument a default, or wrap "
            "the module in one whose forward takes tensors alone"
        )
    if search is not None and search.passes.graphs:
        roots = sorted({path.partition(".")[0] for path in search.passes.graphs})
        return UsageError(
            f"{head}: {', '.join(roots)} looks up rows of the others, so "
            "that no row stands alone, as in a graph. Say what goes in by Model(module, "
            "collate=…), which makes the arguments of forward"
            + "".join(f", or give {option}" for option in otherwise[:-1])
        )
    inputs = [plain(path) for path in paths or ["NAME"]]
    if furthest is not None:
        inputs = list(furthest.forms.inputs.values())
    lines = " ".join(f'--signature "{item.path}: {item.dtype}[batch …]"' for item in inputs)
    why = "" if furthest is None else f" (what came furthest: {furthest.forms}: {furthest.why})"
    return UsageError(
        f"{head}{why}. Say it, with the dtype and the axes of each input: {lines}; in Python "
        f"Model(module, inputs=[…]). Or give {', or '.join(otherwise)}"
    )
