"""Words: what rules about the rows of a batch have to say in common."""

from __future__ import annotations

from collections import Counter

from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.tensors import distances
from forwardpass.tensors.distances import BOUNDLESS

ONE_SCALE = "dynamic quantization has one scale for the whole batch: quantize statically instead"
ONE_STOP = (
    "stop by each row's own error and leave rows that are done, or take a fixed number of steps"
)
SLIGHT = 1e-3
"""Of the scale: what a row moves by, below which it is no error, and a stop of all rows explains
it. Iterations stop at such residuals, and f16 rounds by half of it."""


def share(gap: float, of: str = "its scale") -> str:
    """A relative distance with what it is relative to: `12.00% of its scale`, `34 × its scale`."""
    if gap == float("inf"):
        return f"more than {of}, which is 0 or not finite"
    said = distances.share(gap)
    return f"{said} {of}" if said.endswith("×") else f"{said} of {of}"


def scales_by_batch(call: Call | None) -> bool:
    """Whether a call quantizes what it reads while the pass runs, by the range of all rows."""
    return (
        call is not None and call.operator.startswith("quantized.") and "dynamic" in call.operator
    )


def stops_together(one: Record, other: Record) -> bool:
    """Whether two passes run the same lines, some of them another number of times: a loop whose
    end depends on the rows. Lines of one pass only are other ways through the code."""
    mine, its = (
        Counter((r.site(call), call.operator, r.module(call).path) for call in r.calls)
        for r in (one, other)
    )
    return mine != its and mine.keys() == its.keys()


def finite(gap: float) -> float:
    """A relative distance that JSON can hold."""
    return min(gap, BOUNDLESS)
