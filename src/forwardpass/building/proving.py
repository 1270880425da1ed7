"""What was made of a module, computed beside it; and why it computes something else."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import torch

from forwardpass.building import golden
from forwardpass.building.replicas import Replica
from forwardpass.building.subjects import Subject, Truth, outputs_of
from forwardpass.building.value_reads import TracedReads, ValueReads
from forwardpass.errors import BuildError, said
from forwardpass.tensors.distances import apart

_LOG: Final = logging.getLogger("forwardpass")
_SHOWN: Final = 30
"""Characters of a value that are shown."""


def proved(
    replica: Replica, subject: Subject, truths: Sequence[Truth], traced: TracedReads
) -> float:
    """As `tried`. The error says what makes the difference, where that can be told; one is raised,
    too, where nothing that was tried shows what the module does by other data.

    Args:
        traced: what Python read of the data while the module was traced.
    """
    if traced.found:  # it may be of the first rows that it reads
        truths = [*truths, *subject.other_rows()]
    try:
        distance = tried(replica, truths)
    except BuildError as error:
        raise BuildError(f"{error}{_because(replica, subject, traced)}") from error
    for site, values in traced.found.items():
        if set(read_in(subject, truths).get(site, ())) <= set(values):
            raise BuildError(
                f"at {site} Python goes on by a number of the data, {values[0][:_SHOWN]} in all "
                "that was tried; a trace holds what the model does then, and not what it does "
                "with another. Rows where it is another may be given by --calibrate"
            )
    return distance


def read_in(subject: Subject, truths: Sequence[Truth]) -> Mapping[str, Sequence[str]]:
    """What Python reads of these batches, by line."""
    with ValueReads() as reads:
        for truth in truths:
            outputs_of(subject.module, subject.signature, truth.inputs)
    return reads.found


def _because(replica: Replica, subject: Subject, traced: TracedReads) -> str:
    """Why something else is computed, to be put behind that: what the module draws, keeps from pass
    to pass, or reads of the data; or the axes along which nothing else goes."""
    if subject.draws():
        return ": the model draws random numbers, which no graph draws alike"
    if kept := subject.kept():
        return (
            f": the model changes itself in a pass ({kept}), and computes something else in the "
            "next; a graph begins each pass alike. Let forward take that as an input, and return it"
        )
    if not _computes(replica, subject.truth(*subject.written)):
        return ""
    if not all(_computes(replica, other) for other in subject.other_rows()):
        for site, values in read_in(subject, subject.other_rows()).items():
            traced_there = traced.found.get(site, ())
            changed = next((value for value in values if value not in traced_there), None)
            if traced_there and changed is not None:
                return (
                    f": at {site} Python reads a number of the data, and a trace holds the one "
                    f"that it read, {traced_there[0][:_SHOWN]}, where that is {changed[:_SHOWN]} "
                    "now. Let it stay a tensor"
                )
        return ""
    fixed = [
        name for name, rows, sizes in subject.alone()
        if not _computes(replica, subject.truth(rows, sizes))
    ]  # fmt: skip
    axes = ", ".join(f"`{name}`" for name in dict.fromkeys(fixed))
    return f" ({axes} cannot vary in it)" if fixed else ""


def _computes(replica: Replica, truth: Truth | None) -> bool:
    """Whether it gives what the module gives; of a batch that this does not take, too."""
    try:
        tried(replica, [truth] if truth else [])
    except BuildError:
        return False
    return True


def tried(replica: Replica, truths: Sequence[Truth], far: float | None = None) -> float:
    """The largest distance of what was lowered from the module. Raises BuildError where it is
    beyond `far`, or else too far for the dtype in which it computes."""
    largest, far = 0.0, golden.far(replica.facts) if far is None else far
    for truth in truths:
        said = truth.said
        _LOG.info("trying %s", said)
        try:
            came = replica.fetch(replica.compute(replica.stage(truth.inputs)))
        except Exception as error:
            raise BuildError(f"it does not take {said}: {cause_of(error)}") from error
        for name, expected in truth.outputs.items():
            value = torch.as_tensor(came[name])
            if value.shape != expected.shape:
                raise BuildError(
                    f"of {said} it makes {name} {list(value.shape)}, and the module "
                    f"{list(expected.shape)}: an axis was taken for a constant"
                )
            distance = apart(
                truth.cells(name, value.to(expected.dtype)), truth.cells(name, expected)
            )
            if distance > far:
                raise BuildError(f"of {said} it makes {name} {distance:.1e} away from the module's")
            largest = max(largest, distance)
    return largest


def cause_of(error: BaseException) -> str:
    """What an error of a library says, in a line, and what led to it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[0][:300] if lines else ""
    if isinstance(error, BuildError):
        return text
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    because = f" ({said(root)[:300]})" if root is not error and str(root) != str(error) else ""
    return f"{type(error).__name__}: {text}{because}"
