"""Replaying: a recorded pass runs once more, and every call is computed again beside it.

Rung b: each call from its own inputs, with the operator and the arguments that the record has.
Rung d: each call from what earlier replays made, along the record's edges, so that a missing call,
a wrong edge, or a value that was changed past PyTorch comes to light.
Rung f: sampled elements of the result by the operator's own formula.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from forwardpass.keeping.memories import is_strided
from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import Exempt, Fault
from forwardpass.recording.notes import facts_of, meta_of
from forwardpass.recording.schemas import Schema, flattened
from forwardpass.recording.walking import Walk
from forwardpass.tensors.classes import dispatches
from forwardpass.tensors.distances import apart, rounding
from forwardpass.tensors.dtypes import spelled
from forwardpass.tensors.generators import GeneratorStates
from forwardpass.validating.sampling import Sampler

_SCRATCH = {
    "aten.mkldnn_rnn_layer": (3,),
    "aten._cudnn_rnn": (3,),
    "aten.cudnn_batch_norm": (3,),
    "aten._scaled_dot_product_efficient_attention": (2, 3),
    "aten._scaled_dot_product_flash_attention": (4, 5, 6),
    "aten._scaled_dot_product_cudnn_attention": (4, 5, 6),
}
"""Outputs, counted among the tensors, that are memory for the backward pass: what stands in it is
nobody's result. Of attention on a GPU where its dropout began to draw, which without dropout is
memory that nothing has written."""


class Replay(Walk):
    """Goes through a record, call by call, while its pass runs again. Used as a context.

    Args:
        record: what is replayed.
        world: the values that no call made, by serial: inputs, state, constants.
        graph: whether to replay the whole graph (rung d) beside each call (rung b).
        formulas: whether to recompute sampled elements (rung f).
        advance: called after each call, for progress.
    """

    def __init__(
        self,
        record: Record,
        world: Mapping[int, torch.Tensor],
        *,
        graph: bool,
        formulas: bool,
        advance: Callable[[], object],
    ) -> None:
        super().__init__(record)
        self.faults: list[Fault] = []
        self.exempt: list[Exempt] = []
        self.replayed = self.exact = 0
        self.sampler = Sampler() if formulas else None
        self._world: dict[int, torch.Tensor | weakref.ref[torch.Tensor]] = dict(world)
        self._written = {storage for call in record.calls for storage in call.writes}
        self._graph = graph
        self._advance = advance
        self._last_use = {
            serial: call.index for call in record.calls for serial in (*call.inputs, *call.outputs)
        }
        self._last_use |= dict.fromkeys(record.outputs.values(), len(record.calls))

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        given: list[torch.Tensor] = []
        flattened((args, list(kwargs.values())), given)
        if len(given) != len(call.inputs):
            result = func(*args, **kwargs)
            self._fault("b", call, f"it got {len(given)} tensors, recorded are {len(call.inputs)}")
        elif reason := _exempted(call, schema, given):
            result = func(*args, **kwargs)
            self.exempt.append(Exempt(call.index, call.operator, reason))
            self._adopt(call, schema, schema.made(result, args, kwargs))
        else:
            result = self._beside(call, schema, func, args, kwargs, given)
        self._advance()
        return result

    def _beside(
        self, call: Call, schema: Schema, func: Any, args: tuple[Any, ...],
        kwargs: dict[str, Any], given: list[torch.Tensor],
    ) -> Any:  # fmt: skip
        """Run a call as the pass makes it, and again from the record."""
        before = GeneratorStates.now() if call.kind == "random" else None
        own = self._own_inputs(call, given)
        sampler = self.sampler if self.sampler and self.sampler.wants(call, given) else None
        fixed = [t.clone() for t in given] if sampler and call.writes else given
        facts = self._facts(call, call.inputs, given)
        result = func(*args, **kwargs)
        after = GeneratorStates.now() if before is not None else None
        made = schema.made(result, args, kwargs)
        facts = self._facts(call, call.outputs, made) and facts
        facts = facts and self._share(call, [*call.inputs, *call.outputs], [*given, *made])
        alone = self._again(call, schema, func, own, before)
        good = self._compared("b", call, schema, made, result, alone)
        if self._graph:
            try:
                world = {s: self._value(s) for s in call.inputs}
            except KeyError as missing:
                self._fault("d", call, f"it reads value {missing}, which no replayed call has made")
            else:
                whole = self._again(
                    call, schema, func, lambda serial: world[serial], before
                )  # fmt: skip
                good = self._compared("d", call, schema, made, result, whole) and good
                self._keep(call, schema, whole, made)
        if after is not None:
            after.restore()
        if good and facts:
            self.replayed += 1
        if sampler:
            sampler.compare(call, schema, fixed, made)
        return result

    def _facts(self, call: Call, serials: Sequence[int], tensors: Sequence[torch.Tensor]) -> bool:
        """Whether the values of a call have the form that the record says."""
        values = [self.record.values[serial] for serial in serials]
        for value, tensor in zip(values, tensors, strict=False):
            shape, dtype, device, strides, offset, layout, _, nested = facts_of(meta_of(tensor))
            came = (shape, spelled(dtype), str(device), strides, offset, layout, nested)
            if came != _form(value):
                self._fault(
                    "b", call, f"value {value.serial} is {came}, recorded is {_form(value)}"
                )
                return False
        return True

    def _share(self, call: Call, serials: Sequence[int], tensors: Sequence[torch.Tensor]) -> bool:
        """Whether those values of a call share memory that do so in the record."""
        values = [self.record.values[serial] for serial in serials]
        keys = [
            t.untyped_storage()._cdata if is_strided(t) else -1 - place  # pyright: ignore[reportPrivateUsage]
            for place, t in enumerate(tensors)
        ]
        storages = [value.storage for value in values]
        pairs = set(zip(keys, storages, strict=False))
        if not len(pairs) == len(set(keys)) == len(set(storages)):
            self._fault("b", call, "its values share memory in another way than recorded")
            return False
        return True

    def _own_inputs(self, call: Call, given: list[torch.Tensor]) -> Callable[[int], torch.Tensor]:
        """The tensors of a call in the order of its references; what it writes is copied first."""
        written = {
            t.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
            for serial, t in zip(call.inputs, given, strict=True)
            if self.record.values[serial].storage in call.writes and _is_dense(t)
        }
        order = iter(
            [
                t.clone()
                if written and _is_dense(t) and t.untyped_storage()._cdata in written  # pyright: ignore[reportPrivateUsage]
                else t
                for t in given
            ]
        )
        return lambda _: next(order)

    def _again(
        self, call: Call, schema: Schema, func: Any, tensor: Callable[[int], torch.Tensor],
        generator: GeneratorStates | None,
    ) -> Any:  # fmt: skip
        """What the recorded operator makes of the recorded arguments; an exception if it raises."""
        if generator is not None:
            generator.restore()
        try:
            args, kwargs = call.given(tensor)
            result = func(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - it becomes a fault
            return error
        return result, schema.made(result, tuple(args), kwargs)

    def _compared(
        self, rung: str, call: Call, schema: Schema, made: list[torch.Tensor], result: Any,
        again: Any,
    ) -> bool:  # fmt: skip
        if isinstance(again, Exception):
            self._fault(rung, call, f"replayed, it raised {type(again).__name__}: {again}")
            return False
        value, other = again
        if not made and _is_scalar(result):
            same = value == result or (value != value and result != result)
            if not same:
                self._fault(rung, call, f"replayed, it gave {value!r}; in the pass {result!r}")
            self.exact += same and rung == "b"
            return bool(same)
        if len(other) != len(made):
            self._fault(rung, call, f"replayed, it made {len(other)} tensors, not {len(made)}")
            return False
        exact = True
        if schema.uninitialised:
            good = [(t.shape, t.dtype, t.device) for t in made] == [
                (t.shape, t.dtype, t.device) for t in other
            ]
            if not good:
                self._fault(rung, call, "replayed, it makes memory of another form")
            return good  # what stands in memory that nothing has written is nobody's result
        scratch = _SCRATCH.get(schema.packet, ())
        for place, (one, two) in enumerate(zip(made, other, strict=True)):
            if place in scratch:
                continue
            off = apart(two, one)
            exact = exact and off == 0.0
            if off > rounding(one.dtype):
                where = f"output {place}" if len(made) > 1 else "it"
                self._fault(rung, call, f"replayed, {where} differs by {off:.2g} of its scale")
                return False
        self.exact += exact and rung == "b"
        return True

    def _keep(self, call: Call, schema: Schema, whole: Any, made: list[torch.Tensor]) -> None:
        """Enter what the graph's replay made under the serials of the record."""
        if (
            schema.uninitialised
            or isinstance(whole, Exception)
            or len(whole[1]) != len(call.outputs)
        ):
            self._adopt(call, schema, made)
            return
        for serial, tensor in zip(call.outputs, whole[1], strict=True):
            self._world[serial] = tensor
        for serial in {*call.inputs, *call.outputs}:
            if self._last_use[serial] <= call.index:
                self._world.pop(serial, None)

    def _adopt(self, call: Call, schema: Schema, made: list[torch.Tensor]) -> None:
        """Go on with what the pass itself made, where it was not replayed.

        Memory that no recorded call fills may be filled by an operator's own means later; it is
        looked at when it is read. It is held weakly, since factories see who else holds a tensor.
        """
        for serial, tensor in zip(call.outputs, made, strict=False):
            filled_later = (
                schema.uninitialised and self.record.values[serial].storage not in self._written
            )
            self._world[serial] = weakref.ref(tensor) if filled_later else tensor.clone()

    def _value(self, serial: int) -> torch.Tensor:
        """A value of the graph's own replay. Raises KeyError where there is none."""
        value = self._world[serial]
        if isinstance(value, torch.Tensor):
            return value
        alive = value()
        if alive is None:
            raise KeyError(serial)
        return alive

    def strays(self, call: Call | None, schema: Schema) -> None:
        recorded = "nothing more" if call is None else call.operator
        at = -1 if call is None else call.index
        said = f"the pass ran {schema.name}, and recorded is {recorded}"
        self.faults.append(Fault("a", at, schema.name, said))

    def _fault(self, rung: str, call: Call, said: str) -> None:
        self.faults.append(Fault(rung, call.index, call.operator, said))

    def finish(self, outputs: Mapping[str, torch.Tensor]) -> None:
        """Compare the outputs; say so where the pass ended before the record did."""
        if set(outputs) != set(self.record.outputs):
            said = f"the pass returned {sorted(outputs)}, recorded is {sorted(self.record.outputs)}"
            self.faults.append(Fault("a", -1, "", said))
        for path, serial in self.record.outputs.items() if self._graph else ():
            value = self._world.get(serial)
            if isinstance(value, torch.Tensor) and path in outputs:
                off = apart(value, outputs[path].detach())
                if off > rounding(value.dtype):
                    said = f"output {path} is not value {serial}: they differ by {off:.2g}"
                    self.faults.append(Fault("d", -1, "", said))
        left = self.next
        if left is not None:
            said = "the pass had ended, and the record goes on with it"
            self.faults.append(Fault("a", left.index, left.operator, said))


def _form(value: Value) -> tuple[Any, ...]:
    return (
        value.shape, value.dtype, value.device, value.strides, value.offset, value.layout,
        value.nested,
    )  # fmt: skip


def _exempted(call: Call, schema: Schema, given: list[torch.Tensor]) -> str:
    """Why a call cannot be replayed, "" where it can."""
    if schema.name.startswith("higher_order."):
        return "a higher-order operator"
    if any(isinstance(a, torch.Generator) for a in (*call.arguments, *call.keywords.values())):
        return "it draws from a generator of its own"
    if any(t.device.type == "meta" for t in given):
        return "meta tensors hold no values"
    others = [type(t).__name__ for t in given if dispatches(type(t))]
    if others:
        return f"a {others[0]} stands for other tensors"
    return ""


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex)
