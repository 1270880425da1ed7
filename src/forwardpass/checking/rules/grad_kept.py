"""grad-kept: with grad on, a pass keeps what backward will need; inference never asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.uses import CallingLine
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need, Saved
from forwardpass.recording.gradients import saved_for_backward
from forwardpass.tensors.trees import flatten

NEEDS: Final[tuple[Need, ...]] = ()
MOST_PASSES: Final = 2
"""One to see what turns grad on, one to count what it keeps."""

_REMEDY = "wrap inference in torch.inference_mode() or torch.no_grad()"
_MOST_LINES = 2
"""Lines in a sentence: the total is there, and the record has all of them."""


def check(probe: Examination) -> Iterable[Finding]:
    """How many bytes the pass keeps for a backward pass that nobody makes, by line.

    Nobody makes it where the model is in eval mode (a note: a caller may still want gradients),
    where the user's own script never went backward through such a pass (in train mode: nor through
    anything after it, which may learn from what came out), or where the pass was called with grad
    off and turns it on itself (warnings).
    """
    idle = _never_backward(probe)
    if idle:
        yield from _in_script(probe, idle)
        return
    record = probe.record
    if record.grad == "on" and record.mode != "eval":
        raise Inapplicable("train mode with grad on: backward needs what is kept")
    if record.grad == "inference" or (record.grad == "on" and not any(record.reaches.values())):
        return
    if record.grad == "off" and not _turns_grad_on(probe):
        return
    saved = _saved(probe)
    if not saved:
        return
    if record.grad == "on":
        yield _found(probe, "note", saved, "eval mode with grad on", _REMEDY)
    else:
        yield _found(
            probe, "warning", saved, "the pass was called with grad off and turns it on",
            "leave enable_grad out of forward, or detach what it returns",
        )  # fmt: skip


def _saved(probe: Examination) -> Sequence[Saved]:
    try:
        return saved_for_backward(probe.another())
    except RuntimeError as reason:  # the pass ran before; torch.func refuses to be looked at
        raise Inapplicable(f"what is kept cannot be seen: {reason}".partition("\n")[0]) from reason


def _turns_grad_on(probe: Examination) -> bool:
    """Whether outputs hang on autograd's graph although the pass was called with grad off."""
    with probe.staged(contents=True) as (this, args, kwargs):
        outputs = flatten(this.module(*args, **kwargs))
        return any(tensor.grad_fn is not None for tensor in outputs.values())


def _found(
    probe: Examination, severity: Severity, saved: Sequence[Saved], where: str, remedy: str
) -> Finding:
    total = sum(line.bytes for line in saved)
    lines = ", ".join(f"{_bytes(line.bytes)} at {line.site}" for line in saved[:_MOST_LINES])
    more = f" and {len(saved) - _MOST_LINES} more lines" if len(saved) > _MOST_LINES else ""
    finding = probe.finding(
        severity, f"{where}: {_bytes(total)} are kept for a backward pass ({lines}{more})", remedy,
        saved_bytes=total, tensors=sum(line.tensors for line in saved),
    )  # fmt: skip
    return msgspec.structs.replace(finding, site=saved[0].site)


# -- the user's own script -----------------------------------------------------------------------


def _never_backward(probe: Examination) -> list[CallingLine]:
    """Lines of the script whose passes, in this mode with grad on, never went backward."""
    record = probe.record
    if record.grad != "on" or not any(record.reaches.values()):
        return []
    lines = [line for line in probe.lines if line.is_like(record) and not line.learned]
    return [line for line in lines if line.idle or record.mode == "eval"]


def _in_script(probe: Examination, lines: Sequence[CallingLine]) -> Iterable[Finding]:
    saved = _saved(probe)
    total = sum(line.bytes for line in saved)
    if not total:
        return
    first, mode = lines[0], probe.record.mode
    more = f", and {len(lines) - 1} more lines do so" if len(lines) > 1 else ""
    several = first.times > 1
    finding = probe.finding(
        "note" if mode != "eval" and probe.is_tried_once else "warning",
        f"{first.times:,} pass{'es' * several} in {mode} mode with grad on "
        f"keep{'s' * (not several)} {_bytes(total)}{' each' * several}, and backward never "
        f"came{more}",
        _REMEDY, saved_bytes=total, passes=first.times,
    )  # fmt: skip
    yield msgspec.structs.replace(finding, site=first.site)


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
