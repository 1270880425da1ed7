"""Rooflines: what a call would take at the limits of this machine, and which of them is nearest."""

from __future__ import annotations

from typing import NamedTuple

from forwardpass.nouns.calls import Call
from forwardpass.nouns.machines import Limits
from forwardpass.nouns.profiles import Bound
from forwardpass.nouns.records import Record


class Roofline(NamedTuple):
    """The least that a call can take here.

    Attributes:
        seconds: the largest of what its macs, its bytes and calling it at all take.
        bound: which of these it is; unknown where nobody can say what its macs take.
        dtype: of its operands, in which it computes; "" where it has none.
    """

    seconds: float
    bound: Bound
    dtype: str

    @classmethod
    def of(cls, call: Call, record: Record, limits: Limits) -> Roofline:
        """2 · macs ÷ matmul rate of the dtype, bytes ÷ the rate of a working set of so many, or the
        seconds of a dispatch.

        The roofline model of Williams, Waterman and Patterson (2009), with calls that are too small
        for either as a third limit. Operands count once; what a fused operator moves inside of
        itself is not counted, so that the limit is never too high for that.
        """
        serials = call.inputs or call.outputs
        dtype = record.values[serials[0]].dtype if serials else ""
        moved = call.bytes_read + call.bytes_written
        seconds: dict[Bound, float] = {
            "overhead": limits.dispatch_seconds,
            "memory": moved / limits.bytes_per_second(moved),
        }
        rate = limits.matmul_flops_per_second.get(dtype)
        if call.flops and rate:
            seconds["compute"] = call.flops / rate
        bound = max(seconds, key=seconds.__getitem__)
        is_known = call.flops == 0 or (call.flops is not None and rate is not None)
        return cls(seconds[bound], bound if is_known else "unknown", dtype)
