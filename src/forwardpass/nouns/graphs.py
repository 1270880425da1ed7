"""Graph: who makes, reads and writes the values of a record, and what leads where."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property

from forwardpass.nouns.calls import Call, Edge, Value


class Graph:
    """The calls and values of a record, to go along in both directions; `record.graph` is made
    once."""

    def __init__(self, calls: Sequence[Call], values: Sequence[Value]) -> None:
        self._calls, self._values = calls, values

    def readers(self, serial: int) -> Sequence[Call]:
        """The calls that read a value, each once, in order."""
        return self._readers.get(serial, ())

    def writers(self, storage: int) -> Sequence[Call]:
        """The calls that write a storage in place, in order: the n-th of them makes its version n
        (from 1)."""
        return self._writers.get(storage, ())

    def written(self, serial: int, before: int) -> list[int]:
        """What calls before that index made of the memory of a value since it was made: a write
        through one view is found in all of them."""
        value = self._values[serial]
        return [
            made
            for call in self.writers(value.storage)[value.version :]
            if call.index < before
            for made in call.outputs
            if self._values[made].producer == call.index
            and self._values[made].storage == value.storage
        ]

    def finds(self, call: Call) -> Iterator[int]:
        """The values that a call finds: its operands, and what was written into these."""
        for serial in dict.fromkeys(call.inputs):
            yield serial
            yield from self.written(serial, call.index)

    def maker(self, serial: int) -> Call | None:
        """The call that made a value; None for what was given."""
        producer = self._values[serial].producer
        return self._calls[producer] if producer >= 0 else None

    def makers(self, serials: Iterable[int]) -> set[int]:
        """The calls that made these values, or wrote the memory that they stand in."""
        wanted = [self._values[serial] for serial in serials]
        found = {value.producer for value in wanted if value.producer >= 0}
        storages = {value.storage for value in wanted if value.storage >= 0}
        return found | {call.index for storage in storages for call in self.writers(storage)}

    def root(self, serial: int) -> Value:
        """The value that a view shows, or that was written over, as it was made."""
        value = self._values[serial]
        while value.base >= 0:
            value = self._values[value.base]
        return value

    def into(self, call: int) -> Sequence[Edge]:
        """The edges that lead to the call of this index."""
        return self._into.get(call, ())

    def out_of(self, call: int) -> Sequence[Edge]:
        """The edges that lead from the call of this index."""
        return self._out_of.get(call, ())

    def leading_to(self, last: Iterable[int], without: Collection[int] = ()) -> set[int]:
        """These calls, and all from which edges lead to them; `without` are left out, and what
        leads through these alone."""
        found = set(last).difference(without)
        waiting = list(found)
        while waiting:
            for edge in self.into(waiting.pop()):
                if edge.source not in found and edge.source not in without:
                    found.add(edge.source)
                    waiting.append(edge.source)
        return found

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Why calls must come after others: data, alias and mutation edges, by target."""
        return tuple(self._edges())

    @cached_property
    def _readers(self) -> dict[int, list[Call]]:
        found: dict[int, list[Call]] = {}
        for call in self._calls:
            for serial in dict.fromkeys(call.inputs):
                found.setdefault(serial, []).append(call)
        return found

    @cached_property
    def _writers(self) -> dict[int, list[Call]]:
        found: dict[int, list[Call]] = {}
        for call in self._calls:
            for storage in call.writes:
                found.setdefault(storage, []).append(call)
        return found

    @cached_property
    def _into(self) -> dict[int, list[Edge]]:
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.target, []).append(edge)
        return found

    @cached_property
    def _out_of(self) -> dict[int, list[Edge]]:
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.source, []).append(edge)
        return found

    def _edges(self) -> Iterator[Edge]:
        values = self._values
        writers: dict[int, list[int]] = {}  # by storage, the calls that wrote it so far
        for call in self._calls:
            inputs = call.inputs
            for serial in inputs if len(inputs) < 2 else dict.fromkeys(inputs):
                value = values[serial]
                if value.producer >= 0:
                    yield Edge(value.producer, call.index, serial, "data")
                for writer in writers.get(value.storage, ())[value.version :]:
                    yield Edge(writer, call.index, serial, "mutation")
            for serial in call.outputs:
                value = values[serial]
                if value.base < 0 or value.producer != call.index:
                    continue
                if values[value.base].producer >= 0:
                    yield Edge(values[value.base].producer, call.index, serial, "alias")
            for storage in call.writes:
                writers.setdefault(storage, []).append(call.index)
