"""non-finite: NaN and Inf spread; to blame is the call that makes the first one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import torch

from forwardpass.checking.examinations import Examination
from forwardpass.checking.rules.non_finite.covering import gradients, in_f32
from forwardpass.checking.words import finite, share
from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Need

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 2
"""One with gradients, one with f32 in the place of f16."""

Kind = Literal["nan", "inf"]
_KINDS: Final[tuple[Kind, ...]] = ("nan", "inf")
_SAID: Final = {"nan": "NaN", "inf": "Inf"}
_COVERS: Final = frozenset(
    ("clamp", "clamp_min", "clamp_max", "hardtanh", "minimum", "maximum", "nan_to_num", "where",
     "masked_fill", "masked_scatter", "index_put", "index_fill", "fill_diagonal", "copy", "tril",
     "triu")
)  # fmt: skip
"""Operators that put other numbers in the place of some. A softmax takes an Inf for what it means:
the logarithm of a mask."""
_WRONG: Final = 5e-2
"""Of the scale: five times what rounding to f16 moves outputs by; see distances.tolerance."""
_REMEDIES = {
    "exp": "subtract the largest value before exp; softmax, logsumexp and softplus do",
    "log": "add a small constant, clamp above 0, or take log_softmax of what came before",
    "div": "add a small constant to the divisor, or leave out what has nothing to divide by",
    "sqrt": "clamp at 0 before the root, or add a small constant under it",
    "rsqrt": "add a small constant under the root",
    "pow": "keep the base in range: clamp it, or work with its logarithm",
    "softmax": "a row in which all is masked has nothing to divide by: keep one entry, or use a "
    "large negative number in place of -inf",
    "std": "one number has no deviation: use correction=0, or more than one",
    "var": "one number has no variance: use correction=0, or more than one",
    "mean": "the mean of nothing is NaN: look at the size before",
}
_OTHERS = "keep its operands in range (clamp, scale, an epsilon), or compute it in a wider dtype"


def check(probe: Examination) -> Iterable[Finding]:
    """The first call that makes NaN or Inf out of finite numbers and spoils an output by it.

    By the statistics of every value, back from the outputs along the edges. An Inf that the code
    writes on purpose, as a mask does, is no fault. What later calls cover is a note: each NaN, and
    an Inf that was computed with a parameter and is cut off, rather than taken by a softmax. What
    that does to gradients is measured by one backward pass. An overflow of f16 that moves the
    outputs of a pass in f32 is a warning.
    """
    trail = _Trail(probe)
    outputs = probe.record.returned
    spoilt = {path: t for path, t in outputs.items() if _count(t, "nan") + _count(t, "inf")}
    for kind in _KINDS:
        holding = [path for path, tensor in spoilt.items() if _count(tensor, kind)]
        finding = trail.blamed(kind, holding) if holding else None
        if finding is not None:
            yield finding
            return
    if not spoilt:
        yield from trail.covered()


def _count(tensor: torch.Tensor, kind: Kind) -> int:
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_nested:
        return 0
    return int((tensor.isnan() if kind == "nan" else tensor.isinf()).sum())


class _Trail:
    """Goes back from values that are not finite to the calls that made the first of them."""

    def __init__(self, probe: Examination) -> None:
        self._probe, self._record = probe, probe.record

    def blamed(self, kind: Kind, paths: list[str]) -> Finding | None:
        """The finding for outputs that hold it; None for an Inf that the code wrote on purpose."""
        record = self._record
        serials = [record.outputs[path] for path in paths]
        last = [i for i in record.graph.makers(serials) if self._makes(record.calls[i], kind)]
        first, given = self._back(last, kind)
        given |= {s for s in serials if record.values[s].producer < 0}
        if kind == "nan":  # NaN may come of an Inf that an earlier call made
            sources = [e.source for i in first for e in record.graph.into(i)]
            earlier, _ = self._back(
                [i for i in sources if self._makes(record.calls[i], "inf")], "inf"
            )
            earlier = {i for i in earlier if not self._writes(record.calls[i], "inf")}
            if earlier and not first.intersection(earlier):
                first, kind = earlier, "inf"
        where = self._spoilt(paths)
        if given:
            return self._given(record.values[min(given)], kind, where)
        if not first:  # written through views, or never
            first = {
                i
                for i in record.graph.makers(serials)
                if self._record.schema(record.calls[i]).uninitialised
            }
        meant = {i for i in first if self._writes(record.calls[i], kind)}
        if first - meant:
            return self._made(record.calls[min(first - meant)], kind, where)
        if meant and kind == "nan":
            return self._made(record.calls[min(meant)], kind, where)
        return None

    def covered(self) -> Iterator[Finding]:
        """A NaN or Inf that is made, and that no output shows."""
        begun: list[tuple[Call, Kind]] = [
            (c, kind) for c in self._record.calls for kind in _KINDS if self._begins(c, kind)
        ]
        narrow = [c for c, kind in begun if kind == "inf" and self._is_f16(c) and self._learns(c)]
        wide = in_f32(self._probe, narrow) if narrow else None
        over = [call for call in narrow if wide and call.index in wide.finite]
        if wide and over and wide.off > _WRONG:
            call = over[0]
            yield self._probe.finding(
                "warning",
                f"{call.name or call.short} overflows f16, which ends at 65,504, and later calls "
                f"cover its {self._number(call, 'inf')} Inf: computed in f32, an output moves by "
                f"{share(wide.off)}; {self._operands(call)}",
                "compute it in f32 or bf16, or scale it down before",
                call=call, numbers=self._number(call, "inf"), moves=finite(wide.off),
            )  # fmt: skip
            return
        for call, kind in begun:
            if kind == "nan" or (self._learns(call) and self._is_cut_off(call)):
                yield self._note(call, kind)
                return

    def _note(self, call: Call, kind: Kind) -> Finding:
        count, found = self._number(call, kind), gradients(self._probe)
        said = f"{call.name or call.short} makes {count} {_SAID[kind]}, which later calls cover"
        remedy = "mask its operands before, and not what comes of them"
        if found is None:
            said += ": the outputs are finite"
        elif not found.spoilt:
            said += ": the outputs are finite, and so are the gradients of this pass"
        else:
            said += (
                f": the outputs are finite, the gradients of {len(found.spoilt)} of "
                f"{found.parameters} parameters ({found.spoilt[0]}) are not"
            )
        spoilt = len(found.spoilt) if found is not None else 0
        return self._probe.finding(
            "note", f"{said}; {self._operands(call)}", remedy, call=call, numbers=count,
            spoilt_gradients=spoilt,
        )  # fmt: skip

    def _is_f16(self, call: Call) -> bool:
        return any(self._record.values[serial].dtype == "f16" for serial in call.outputs)

    def _begins(self, call: Call, kind: Kind) -> bool:
        """Whether a call makes it of finite numbers, by computing."""
        return (
            self._makes(call, kind)
            and call.kind != "view"
            and not self._writes(call, kind)
            and not self._record.schema(call).uninitialised
            and not any(True for _ in self._before(call, kind))
            and not self._held(call, kind)
        )

    def _learns(self, call: Call) -> bool:
        """Whether a gradient goes back through a call to a parameter."""
        waiting, seen = [call.index], {call.index}
        while waiting:
            index = waiting.pop()
            if self._record.calls[index].parameters:
                return True
            edges = self._record.graph.into(index)
            floating = (e for e in edges if "f" in self._record.values[e.value].dtype)
            before = {edge.source for edge in floating} - seen
            waiting += before
            seen |= before
        return False

    def _is_cut_off(self, call: Call) -> bool:
        """Whether the Inf that a call makes meets one that puts other numbers in its place."""
        waiting, seen = [call.index], {call.index}
        while waiting:
            edges = self._record.graph.out_of(waiting.pop())
            for edge in edges:
                if edge.target in seen or not self._is(edge.value, "inf"):
                    continue
                seen.add(edge.target)
                after = self._record.calls[edge.target]
                if self._makes(after, "inf"):
                    waiting.append(edge.target)
                elif after.short.strip("_") in _COVERS:
                    return True
        return False

    # Backwards

    def _back(self, last: Iterable[int], kind: Kind) -> tuple[set[int], set[int]]:
        """The calls that made the first of it, and the values that had it before the pass."""
        waiting, seen = list(last), set(last)
        first: set[int] = set()
        given: set[int] = set()
        while waiting:
            call = self._record.calls[waiting.pop()]
            before = set(self._before(call, kind))
            held = self._held(call, kind)
            given |= held
            if not before and not held:
                first.add(call.index)
            waiting += before - seen
            seen |= before
        return first, given

    def _before(self, call: Call, kind: Kind) -> Iterator[int]:
        """The calls that gave `call` what it read of this kind. A value whose memory was written
        since is what the writer made of it."""
        edges = self._record.graph.into(call.index)
        stale = {edge.value for edge in edges if edge.kind == "mutation"}
        for edge in edges:
            source = self._record.calls[edge.source]
            if edge.kind == "mutation":
                if self._makes(source, kind):
                    yield edge.source
            elif edge.kind == "data" and edge.value not in stale and self._is(edge.value, kind):
                yield edge.source

    def _held(self, call: Call, kind: Kind) -> set[int]:
        """Of what a call read, the values that no call made and that are of this kind."""
        values = (self._record.values[serial] for serial in call.inputs)
        return {v.serial for v in values if v.producer < 0 and _count_in(self._tensor(v), kind)}

    def _tensor(self, value: Value) -> torch.Tensor | None:
        if value.origin == "input":
            return self._probe.inputs.get(value.name)
        if value.origin in ("parameter", "buffer"):
            path, _, name = value.name.rpartition(".")
            return getattr(self._probe.parts[path], name, None)
        return self._record.constants.get(value.serial)

    def _is(self, serial: int, kind: Kind) -> bool:
        statistics = self._record.statistics.get(serial)
        return statistics is not None and bool(getattr(statistics, kind))

    def _makes(self, call: Call, kind: Kind) -> bool:
        return any(self._is(serial, kind) for serial in call.outputs)

    def _writes(self, call: Call, kind: Kind) -> bool:
        """Whether the code gave it as a number: `masked_fill(mask, -inf)`."""
        numbers = [a for a in (*call.arguments, *call.keywords.values()) if isinstance(a, float)]
        return any(math.isnan(n) if kind == "nan" else math.isinf(n) for n in numbers)

    # Words

    def _number(self, call: Call, kind: Kind) -> int:
        statistics = self._record.statistics
        return max(getattr(statistics[s], kind) for s in call.outputs if s in statistics)

    def _operands(self, call: Call) -> str:
        found: list[str] = []
        for serial in dict.fromkeys(call.inputs):
            value, seen = self._record.values[serial], self._record.statistics.get(serial)
            if seen is not None and seen.min is not None and seen.max is not None:
                infinite = f" and {seen.inf} Inf" if seen.inf else ""
                found.append(f"{value} from {seen.min:.4g} to {seen.max:.4g}{infinite}")
            elif seen is not None:
                found.append(f"{value} with nothing finite")
        return f"operands {', '.join(found)}" if found else "no floating operands"

    def _spoilt(self, paths: list[str]) -> str:
        outputs = self._record.returned
        tensor = outputs[paths[0]]
        count = _count(tensor, "nan") + _count(tensor, "inf")
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return f"{count:,} of {tensor.numel():,} numbers of {paths[0]}{more} are not finite"

    def _made(self, call: Call, kind: Kind, where: str) -> Finding:
        if self._record.schema(call).uninitialised:
            message = f"{call.name or call.short} makes memory that is read before it is written"
            remedy = "use zeros, or write every element before it is read"
        else:
            count = self._number(call, kind)
            message = (
                f"{call.name or call.short} is the first to make {_SAID[kind]} ({count:,}): "
                f"{self._operands(call)}"
            )
            short = call.short.strip("_")
            named = (text for name, text in _REMEDIES.items() if name == short.removeprefix("_"))
            remedy = next(named, None) or (_REMEDIES["softmax"] if "softmax" in short else _OTHERS)
        severity = "warning" if self._writes(call, kind) else "error"
        return self._probe.finding(severity, f"{message}; {where}", remedy, call=call)

    def _given(self, value: Value, kind: Kind, where: str) -> Finding:
        tensor = self._tensor(value)
        count = 0 if tensor is None else _count(tensor, kind)
        readers = self._record.graph.readers(value.serial)
        if value.origin == "unknown":
            reader = next(iter(readers), None)
            return self._probe.finding(
                "error", f"a tensor that no call was seen to make holds {count:,} {_SAID[kind]}; "
                f"{where}", f"look at what makes it: {self._record.lacks('origins')}", call=reader,
            )  # fmt: skip
        held = value.origin if value.name else "a tensor from outside of the pass"
        remedy = (
            "clean the data, or mask what is missing before it meets a weight"
            if value.origin == "input"
            else "it came with the weights: load a checkpoint that is whole"
        )
        return self._probe.finding(
            "error", f"{held} {value.name}".strip() + f" holds {count:,} {_SAID[kind]}; {where}",
            remedy, call=next(iter(readers), None),
        )  # fmt: skip


def _count_in(tensor: torch.Tensor | None, kind: Kind) -> int:
    return 0 if tensor is None else _count(tensor, kind)
