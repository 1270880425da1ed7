"""Recording: a pass, recorded; what a tracer noted becomes a Record."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from forwardpass.errors import PassError, UsageError
from forwardpass.keeping.memories import numbers
from forwardpass.keeping.states import State
from forwardpass.nouns.calls import Call, Site, Value
from forwardpass.nouns.records import Failed, KeptRecord, Record, Totals, record_fields
from forwardpass.recording.assembling import calls_of, device_of, modules_of, path_of, values_of
from forwardpass.recording.gradients import reached
from forwardpass.recording.layers import layers_of
from forwardpass.recording.observing import Watching
from forwardpass.recording.passes import Grad, Pass, traced
from forwardpass.recording.schemas import Schema, schema_of
from forwardpass.recording.tracing import Tracer
from forwardpass.recording.unseen import unseen
from forwardpass.tensors.generators import GeneratorStates
from forwardpass.tensors.trees import flatten

_SECOND_OBJECT = "is already associated to a python object"
_REMEDY = ". Write h.as_subclass(Kind) in place of Kind(h), which no dispatch mode can follow"


class Recording(KeptRecord, frozen=True, kw_only=True, eq=False):
    """A record that is live: its pass can be made again, so it can be validated and explained.

    Attributes:
        this: the pass, with pristine copies of its inputs.
        returned: copies of the tensors that came out, by path.
        constants: tensors that came from outside the pass, by serial.
        operators: what PyTorch ran at each call; the name where no operator did.
    """

    this: Pass
    returned: dict[str, torch.Tensor]
    constants: dict[int, torch.Tensor]
    operators: tuple[Any, ...]

    def schema(self, call: Call) -> Schema:
        """The schema of the operator that ran at a call."""
        return schema_of(self.operators[call.index])


def living(record: Record, verb: str) -> Recording:
    """The same record, which `verb` runs again. Raises UsageError where it holds no pass."""
    if isinstance(record, Recording):
        return record
    raise UsageError(
        "a record from a file or of watch holds no model to compute with; record the model again, "
        f"then {verb}"
    )


def recorded(
    forward: str,
    this: Pass,
    notes: tuple[str, ...],
    watching: Watching | None = None,
    *,
    standing: GeneratorStates | None = None,
) -> Recording:
    """The Recording of a pass. Raises PassError, with it, where the pass raises, and UsageError
    where it only raises while it is recorded.

    `forward` is what is recorded, in words; `standing` as in Pass.staged.
    """
    watching = watching or Watching(False, None, None)
    with this.staged(standing=standing) as (state, args, kwargs):
        given = this.named(args, kwargs)
        tracer = Tracer(
            state, given,
            observe=watching if watching.is_needed else None, gradients=this.grad == "on",
        )  # fmt: skip
        watching.given(tracer, given)
        error: Exception | None = None
        outputs: dict[str, torch.Tensor] = {}
        try:
            outputs = flatten(traced(tracer, this.module, args, kwargs))
        except Exception as raised:  # noqa: BLE001 - raised again below, with what was recorded
            error = raised
        record = assembled(
            forward, tracer, state, this.grad, outputs=outputs,
            notes=(*notes, *watching.notes()), statistics=watching.statistics(), error=error,
        )  # fmt: skip
        done = Recording(
            **record_fields(record),
            tensors=watching.kept,
            this=this,
            returned={path: numbers(tensor) for path, tensor in outputs.items()},
            constants=tracer.constants,
            operators=tuple([call.operator for call in tracer.calls]),
        )
        tracer.forget()  # before the collector, which is on again, goes through all of it
    if error is not None:
        raise _raised(done, error)
    return done


def assembled(
    forward: str,
    tracer: Tracer,
    state: State,
    grad: Grad,
    *,
    outputs: Mapping[str, torch.Tensor],
    notes: tuple[str, ...] = (),
    statistics: Mapping[int, Any] | None = None,
    error: Exception | None = None,
) -> Record:
    """The Record of what a tracer noted, which then lets go of the pass."""
    named = dict(zip(outputs, tracer.serials(outputs.values()), strict=True))
    tracer.finish()
    values = values_of(tracer)
    calls = calls_of(tracer, values)
    modules = modules_of(tracer)
    sites = tracer.frames.sites()
    parameters = state.parameters()
    modes = {entry.training for entry in modules}
    mapped = f"inside of vmap, on all that it maps over: {', '.join(tracer.mapped)}"
    return Record(
        forward=forward,
        inputs=tracer.inputs,
        outputs=named,
        mode="mixed" if len(modes) > 1 else "train" if True in modes else "eval",
        grad=grad,
        device=device_of(values),
        versions=dict(_versions()),
        totals=_totals(calls, sum(p.elements for p in parameters if not p.buffer)),
        path=path_of(tracer),
        calls=calls,
        values=values,
        modules=modules,
        sites=sites,
        parameters=parameters,
        layers=layers_of(calls, values, [entry.path for entry in modules], parameters),
        changes=state.changes(),
        notes=(*notes, mapped) if tracer.mapped else notes,
        unseen=tuple(unseen(tracer, calls, values, named, sites)),
        statistics=dict(statistics or {}),
        reaches=reached(outputs, state) if grad == "on" else {},
        failed=None if error is None else _failed(tracer, values, sites, error),
    )


@cache
def _versions() -> dict[str, str]:
    return {
        "forwardpass": version("forwardpass"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def _totals(calls: Sequence[Call], parameters: int) -> Totals:
    ran = [call for call in calls if call.is_operator]
    macs = sum([call.macs or 0 for call in ran])
    return Totals(
        calls=len(ran),
        parameters=parameters,
        macs=macs,
        flops=2 * macs,
        elements=sum([call.elements for call in ran]),
        bytes=sum([call.bytes_read + call.bytes_written for call in ran]),
        unknown=tuple(dict.fromkeys(call.operator for call in ran if call.macs is None)),
    )


def _failed(
    tracer: Tracer, values: Sequence[Value], sites: Sequence[Site], error: Exception
) -> Failed:
    said = f"{type(error).__name__}: {error}"
    if tracer.failed is None or not _comes_from(error, tracer.failed.error):
        inside = tracer.raised is not None and _comes_from(error, tracer.raised[0])
        path = tracer.modules[tracer.raised[1]].path if tracer.raised and inside else ""
        return Failed("", (), path, None, said)
    failing = tracer.failed
    operands = tuple(str(values[serial]) for serial in failing.inputs)
    path = tracer.modules[failing.module].path
    return Failed(failing.operator, operands, path, sites[failing.site], said)


def _comes_from(error: BaseException | None, cause: BaseException) -> bool:
    """Whether `error` is `cause`, or was raised while that was handled."""
    while error is not None and error is not cause:
        error = error.__cause__ or error.__context__
    return error is not None


def _raised(partial: Recording, error: Exception) -> PassError | UsageError:
    """What to raise where a pass raised while it was recorded.

    Made once more, with the user's own tensors and without a recorder, it tells whether the module
    is to blame.
    """
    failed = partial.failed
    assert failed is not None
    try:
        partial.this.as_given()
    except Exception as plain:  # noqa: BLE001 - it is what the module raises
        own = plain
    else:
        remedy = _REMEDY if _SECOND_OBJECT in failed.error else ""
        raised = UsageError(
            f"{partial.forward}: the module runs, and it cannot be recorded: under PyTorch's "
            f"dispatch mode, by which a recorder sees operators, it raised {failed.error}{remedy}"
        )
        raised.__cause__ = error
        return raised
    where = f" in {failed.module}" if failed.module else ""
    done = f"{partial.totals.calls:,} calls had run; error.record holds them"
    if type(own) is not type(error):
        text = f"the pass raised {type(own).__name__}: {own}"
    elif failed.operator:
        operands = ", ".join(failed.operands) or "no tensors"
        text = f"{failed.operator} on {operands}{where}, {failed.site}, raised {failed.error}"
    else:
        text = f"the pass raised{where}, outside of any operator: {failed.error}"
    raised = PassError(f"{partial.forward}: {text} ({done})")
    raised.record = partial
    raised.__cause__ = own if type(own) is not type(error) else error
    return raised
