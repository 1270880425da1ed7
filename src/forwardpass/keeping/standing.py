"""Standing: a module of which every pass begins where the first one began."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn

from forwardpass.errors import PassError
from forwardpass.keeping.containers import Snapshot, differs, is_librarys_object
from forwardpass.keeping.states import State
from forwardpass.measuring.memory import available_bytes
from forwardpass.tensors.modules import parts_of


class Standing:
    """Puts back what passes change of a module: its buffers, attributes, submodules and modes.

    The first pass is looked at whole, by content, parameters too. As long as none changes anything,
    a look at later ones takes a microsecond for a small model (see `Look`); once one did, all are
    looked at whole. `settle` follows each pass that raised, or after which it does not `holds`.

    Attributes:
        put_back: what was put back so far, a sentence each, without those that were said before.
    """

    def __init__(self, module: nn.Module) -> None:
        self.put_back: dict[str, None] = {}
        self._name = type(module).__name__
        state = State(module)
        parameters = [h.alias for h in state.held.values() if h.origin == "parameter"]
        for parameter in parameters if _fit_twice(parameters) else ():
            state.memory.keep(parameter)
        self._state: State | None = state
        self._objects = dict(_librarys_objects(module))
        self._look: Look | None = None
        self._is_first = True

    def holds(self) -> bool:
        """Whether, at a quick look, the pass that ended now changed nothing."""
        return self._look is not None and self._look.holds()

    def settle(self) -> None:
        """Put back what the pass changed that ended now, looked at whole.

        Raises PassError where it wrote a parameter of which no copy was kept.
        """
        if self._state is None:
            return
        changes = self._changes(self._state)
        if changes:
            self._look = None
        if self._is_first:
            self._is_first = False
            self._state.forget_parameters(changes)
            self._look = None if changes else Look(self._state, self._objects.values())
        if changes:
            for snapshot in self._objects.values():
                snapshot.restored()
            self._state.restore()

    def verify(self) -> None:
        """Look at the module whole, where that was not done after each pass.

        Raises PassError where something was changed of which nothing was seen: what was computed
        since the last look may depend on the order of its rows.
        """
        if self._look is None or self._state is None:
            return
        changes = self._changes(self._state)
        if changes:
            raise PassError(
                f"{self._name}: a pass changed its module where no pass before it did, so later "
                f"rows may depend on earlier ones: {changes[0]}. Let forward return what it "
                "computes, and change nothing of the module; a run keeps it across rows with "
                "--stateful"
            )

    def release(self) -> None:
        """From here on what a pass changes stays for the next one."""
        self.put_back, self._state, self._look = {}, None, None

    def _changes(self, state: State) -> tuple[str, ...]:
        inside = (name for name, held in self._objects.items() if differs(held.value, held))
        changes = (*state.changes(), *(f"attribute {name} was changed" for name in inside))
        lost = next((said for said in changes if state.is_lost(said)), None)
        if lost is not None:
            raise PassError(
                f"{self._name}: {lost} by a pass, and cannot be put back; forward only reads "
                "weights: write them before the model is given to forwardpass"
            )
        self.put_back |= dict.fromkeys(changes)
        return changes


class Look:
    """Tells at little cost that a module may be other than a state says.

    It compares what the modules of the user's and of libraries hold, by identity before anything
    else, with all lists, dicts, objects, arrays and generators in it; and the versions of buffers
    and of tensors in attributes. Nobody else writes to parameters, or to PyTorch's own layers,
    in a pass that is not the first of its kind.
    """

    def __init__(self, state: State, objects: Iterable[Snapshot]) -> None:
        self._live = [*state.places(), *(place for held in objects for place in held.containers())]
        self._kept = [_copied(place) for place in self._live]
        self._told = list(state.told())
        tensors = [h.tensor for h in state.held.values() if h.origin != "parameter"]
        self._tensors = [tensor for tensor in tensors if not tensor.is_inference()]
        self._versions = self._now()

    def holds(self) -> bool:
        """Whether nothing was seen to move."""
        try:
            same = self._live == self._kept and self._now() == self._versions
        except Exception:  # noqa: BLE001 - a tensor or an array that took another's place
            return False
        return same and not any(told.differs() for told in self._told)

    def _now(self) -> list[int]:
        return [tensor._version for tensor in self._tensors]  # pyright: ignore[reportPrivateUsage]


def _librarys_objects(module: nn.Module) -> Iterator[tuple[str, Snapshot]]:
    """The objects of libraries' classes that modules hold, as configurations, each once, with those
    that they hold themselves."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [
        (f"{path}." if path else "", part) for path, part in parts_of(module)
    ]
    while waiting:
        inside, holder = waiting.pop(0)
        for name, value in list(vars(holder).items()):
            if id(value) not in seen and is_librarys_object(value):
                seen.add(id(value))
                yield inside + name, Snapshot.of_attributes(value)
                waiting.append((f"{inside}{name}.", value))


def _copied(place: Any) -> Any:
    """What a dict, a list, a set or a queue holds, in a plain one of its kind."""
    if isinstance(place, OrderedDict):
        return OrderedDict(cast("OrderedDict[Any, Any]", place))
    if isinstance(place, dict | MappingProxyType):
        return dict(cast("dict[Any, Any]", place))
    if isinstance(place, deque):
        return deque(cast("deque[Any]", place))
    return set(cast("set[Any]", place)) if isinstance(place, set) else list(place)


def _fit_twice(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether there is memory for a copy of each."""
    needed: dict[str, int] = {}
    for tensor in tensors:
        if tensor.device.type != "meta":
            device = str(tensor.device)
            needed[device] = needed.get(device, 0) + tensor.nbytes
    return all(2 * count <= available_bytes(device) for device, count in needed.items())
