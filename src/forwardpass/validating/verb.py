"""Validation of a record: the rungs, one after the other, each with what it proves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from forwardpass.errors import UsageError, nearest
from forwardpass.keeping.memories import Copies
from forwardpass.keeping.states import State
from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import LEVELS, Fault, Foreign, Level, Validation
from forwardpass.recording.passes import ONE_PASS_AT_A_TIME
from forwardpass.recording.recordings import Recording, living
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk
from forwardpass.tensors.classes import classes_aside, dispatches
from forwardpass.tensors.distances import apart, rounding
from forwardpass.tensors.generators import GeneratorStates
from forwardpass.tensors.trees import flatten
from forwardpass.validating.executing import executed
from forwardpass.validating.matching import differences
from forwardpass.validating.perturbing import Perturbed, perturbed
from forwardpass.validating.replaying import Replay
from forwardpass.validating.rules import broken

_ENOUGH = 0.99


def validate(
    record: Record,
    level: Level = "d",
    *,
    against: Record | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Validation:
    """Prove a record right, up to and with the rung `level`; see nouns.validations.RUNGS.

    Args:
        record: what is proved, a Recording.
        against: an older record, from a file or of `watch`, which must be that of the same pass.
        advance: called after each replayed call.

    Raises:
        UsageError: an unknown level; the record is no Recording; the recorded pass raised.
    """
    if level not in LEVELS:
        raise UsageError(f"validate(level={level!r}): {nearest(str(level), LEVELS)}")
    done = living(record, "validate(against=this record)")
    if done.failed is not None:
        raise UsageError("this record ends where its pass raised; there is nothing to validate")
    faults = [] if against is None else differences(against, done)
    faults += _same_pass(done)
    replay: Replay | None = None
    foreign = list(_foreign(done))
    runs = not any(fault.call < 0 and "raised" in fault.said for fault in faults)
    if level > "a" and runs:
        replay = _replayed(done, level, advance)
        parted = any(fault.rung == "a" for fault in faults)
        faults += [f for f in replay.faults if not (parted and f.rung == "a")]
        faults += replay.sampler.faults if replay.sampler else ()
    if level >= "c":
        faults += broken(done, done.operators)
    orphans = tuple(f for f in foreign if done.values[f.value].origin == "unknown")
    moving = perturbed(done) if level >= "e" and runs else Perturbed()
    faults += moving.faults
    unwritten = ""
    if level >= "e" and not faults:  # the text of a wrong record is another one
        wrong, unwritten = executed(done)
        faults += wrong
    calls = sum(call.is_operator for call in done.calls)
    replayed = replay.replayed if replay else 0
    exempt = tuple(replay.exempt) if replay else ()
    idle = {call.index for call in done.calls if call.kind == "random" or _is_shape(done, call)}
    left_out = sum(1 for one in exempt if one.call not in idle)
    lacking = left_out > (1 - _ENOUGH) * (calls - len(idle))
    inside = [one.said for one in done.unseen if one.what == "inside"] if level >= "c" else []
    incomplete = moving.unseen or inside or (level >= "c" and orphans) or lacking
    return Validation(
        level=level,
        verdict="invalid" if faults else "incomplete" if incomplete else "valid",
        calls=calls,
        replayed=replayed,
        exact=replay.exact if replay else 0,
        exempt=exempt,
        orphans=orphans if level >= "c" else (),
        constants=tuple(f for f in foreign if done.values[f.value].origin == "constant"),
        unseen=(*inside, *moving.unseen),
        moved=moving.moved,
        cut_short=tuple(moving.cut_short),
        unwritten=unwritten,
        faults=tuple(faults),
        sampled=replay.sampler.sampled if replay and replay.sampler else 0,
        formulas_missing=tuple(replay.sampler.missing) if replay and replay.sampler else (),
    )


def _is_shape(done: Record, call: Call) -> bool:
    """Whether a call only finds out a shape, on the meta device, in a pass that is elsewhere: there
    are no numbers to prove."""
    made = {done.values[serial].device for serial in call.outputs}
    return made == {"meta"} and done.device != "meta"


class _Bare(Walk):
    """Compares the names of operators with those recorded, and does nothing else."""

    fault: Fault | None = None

    def strays(self, call: Call | None, schema: Schema) -> None:
        at, there = (call.index, call.operator) if call else (-1, "nothing more")
        said = f"{schema.name} ran, and the record has {there} in its place"
        self.fault = Fault("a", at, schema.name, said)


def _same_pass(done: Recording) -> Iterator[Fault]:
    """Rung a: the plain pass gives the recorded outputs, a bare recorder sees the same operators,
    and running it leaves the generators as they were."""
    try:
        with ONE_PASS_AT_A_TIME:  # that of another thread may draw as well
            before = GeneratorStates.now()
            plain = done.this.as_given()
            undrawn = before.equals(GeneratorStates.now())
    except Exception as error:  # noqa: BLE001 - it is what validation has found
        yield Fault("a", -1, "", f"run again, the pass raised {type(error).__name__}: {error}")
        return
    if not undrawn:
        yield Fault("a", -1, "", "the random generators are not as they were after the pass")
    for path in {**done.returned, **plain}:
        if path not in plain or path not in done.returned:
            where = "recorded" if path in done.returned else "plain"
            yield Fault("a", -1, "", f"only the {where} pass has the output {path}")
            continue
        off = apart(plain[path], done.returned[path])
        if off > rounding(plain[path].dtype):
            yield Fault("a", -1, "", f"output {path} differs by {off:.2g} from the plain pass")
    bare = _Bare(done)
    done.this.plain(bare)
    if bare.fault is not None:
        yield bare.fault
    if (extra := bare.next) is not None:
        yield Fault("a", extra.index, extra.operator, "the record has it, and it did not run")


def _replayed(done: Recording, level: Level, advance: Callable[[], object]) -> Replay:
    """Rungs b, d and f, in one more pass."""
    this = done.this
    with this.staged(contents=True) as (state, args, kwargs):
        with classes_aside():
            world = dict(_world(done, state, this.named(args, kwargs)))
        replay = Replay(
            done, world, graph=level >= "d", formulas=level >= "f", advance=advance
        )  # fmt: skip
        with replay:
            outputs = flatten(this.module(*args, **kwargs))
        replay.finish(outputs)
    return replay


def _world(
    done: Recording, state: State, given: dict[str, torch.Tensor]
) -> Iterator[tuple[int, torch.Tensor]]:
    """The values that no call made, by serial; copies, which nothing changes behind their back."""
    held = {entry.name: entry.alias for entry in state.held.values()}
    copies = Copies()
    for value in done.values:
        tensor: torch.Tensor | None = None
        if value.origin == "input":
            tensor = given.get(value.name)
            tensor = None if tensor is None else copies.of(tensor).detach()
        elif value.origin in ("parameter", "buffer", "attribute"):
            tensor = held.get(value.name)
            stands = tensor is not None and dispatches(type(tensor))  # for others: none is copied
            tensor = None if tensor is None or stands else copies.of(tensor)
        elif value.origin in ("constant", "unknown"):
            tensor = done.constants.get(value.serial)
            tensor = None if tensor is None else tensor.clone()
        if tensor is not None:
            yield value.serial, tensor


def _foreign(done: Record) -> Iterator[Foreign]:
    """Constants and orphans, each with the first call that reads it; else the output that it is."""
    wanted = {v.serial for v in done.values if v.origin in ("constant", "unknown")}
    for call in done.calls:
        for serial in call.inputs:
            if serial in wanted:
                wanted.discard(serial)
                said = f"{done.values[serial]} first read at {done.site(call)}"
                yield Foreign(serial, call.index, call.operator, said)
    for path, serial in done.outputs.items():
        if serial in wanted:
            yield Foreign(serial, -1, "", f"{done.values[serial]}, the output {path}")
