"""Tracer: sees every operator of one pass, and notes it.

While the pass runs, calls and values are appended as tuples; they become nouns afterwards
(`assembling.py`). A tensor is known by its identity: an id that a live weak reference confirms,
since Python gives ids anew. `TorchDispatchMode` and a patched `nn.Module.__call__` are the two
interceptions, because both leave PyTorch's fused paths on; hooks or a `TorchFunctionMode` would
switch them off.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor

from forwardpass.code.frames import Frames, is_called_by_torch
from forwardpass.keeping.states import State, place_of
from forwardpass.nouns.calls import Ref
from forwardpass.recording.interception import Interception, aside
from forwardpass.recording.notes import Failing, RawCall, RawModule, RawValue, meta_of
from forwardpass.recording.schemas import Schema, flattened
from forwardpass.tensors.classes import plain_ones

Observer = Callable[[int, list[torch.Tensor], tuple[int, ...]], None]
"""Called after each operator with its index and the tensors it made, with their serials."""

_NOTHING: list[torch.Tensor] = []
_SCALARS = frozenset([int, float, bool, str, type(None), torch.dtype, torch.device])
_TENSORS = frozenset([torch.Tensor, nn.Parameter])
_share_memory: Callable[[torch.Tensor, torch.Tensor], bool] = torch._C._is_alias_of  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
_row = tuple.__new__  # of a NamedTuple's own __new__, half the time goes to names


class Tracer(Interception):
    """Notes one pass of a module. Used as a context around the call.

    Args:
        state: the module's; its tree gives the paths, and what it holds has its names.
        inputs: the tensors that go in, by path.
        observe: see Observer; for statistics, values, validation.
        gradients: whether to note the nodes that autograd makes.

    Attributes:
        kinds: the classes of the modules of the tree.
    """

    def __init__(
        self,
        state: State,
        inputs: dict[str, torch.Tensor],
        *,
        observe: Observer | None = None,
        gradients: bool = False,
    ) -> None:
        super().__init__()
        self.values: list[RawValue] = []
        self.calls: list[RawCall] = []
        self.modules: list[RawModule] = []
        self.kinds = state.kinds
        self.frames = Frames(self.kinds)
        self.nodes: dict[int, str] = {}
        self.failed: Failing | None = None
        self.raised: tuple[BaseException, int] | None = None
        self.constants: dict[int, torch.Tensor] = {}
        self.classes: dict[int, str] = {}  # of what no call was seen to make
        self.mapped: dict[str, None] = {}  # modules that were called inside of vmap
        self._state = state
        self._observe = observe
        self._gradients = gradients
        self._ids: dict[int, tuple[Callable[[], Any], int]] = {}
        self._alive: list[Callable[[], Any]] = []
        self._storages = 0
        self._state_storages: dict[int, int] = {}
        self._input_storages: dict[int, int] = {}
        self._held_storages: set[int] = set()
        self._writes: dict[int, int] = {}
        self._stack: list[int] = []
        self._frame_of: dict[int, FrameType] = {}
        self._counts: dict[str, int] = {}
        self._latest: tuple[int, ...] = ()
        self.inputs = {path: self._input(tensor, path) for path, tensor in inputs.items()}

    # What is seen

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._latest:
            self._note_nodes()
        # Past ours and that of the interception.
        site, forward = self.frames.here(sys._getframe(2))  # pyright: ignore[reportPrivateUsage]
        module = self._stack[-1]
        if forward is not None and self._frame_of.get(module) is not forward:
            module = self._running(forward)
        inputs: list[int] = []
        tensors: list[torch.Tensor] = []
        noted = self._noted
        arguments = tuple([a if type(a) in _SCALARS else noted(a, inputs, tensors) for a in args])
        keywords = {k: noted(v, inputs, tensors) for k, v in kwargs.items()}
        written = self._written(schema, args, kwargs) if schema.may_write else _NOTHING
        try:
            result = func(*args, **kwargs)
        except BaseException as error:
            self.failed = Failing(error, schema.name, tuple(inputs), module, site)
            raise
        index = len(self.calls)
        made: list[torch.Tensor] = []
        if type(result) is torch.Tensor:
            made.append(result)
        else:
            flattened(result, made)
        writes: tuple[int, ...] = ()
        if written:  # what is written is made anew, whether it is returned or not
            made += [t for t in written if not any(t is other for other in made)]
            writes = tuple({self.values[self._serial(t)].storage: None for t in written})
            for storage in writes:
                self._writes[storage] = self._writes.get(storage, 0) + 1
        outputs = tuple([self._output(t, index, schema, inputs, tensors, written) for t in made])
        self.calls.append(
            _row(
                RawCall,
                (func, arguments, keywords, tuple(inputs), outputs, module, site, writes),
            )
        )
        if self._observe is not None:
            self._observe(index, made, outputs)
        if self._gradients:
            self._latest = outputs
        return result

    def host(self, name: str, tensor: torch.Tensor, frame: FrameType) -> None:
        """Note that the code took a value to Python by a way that is no operator."""
        site, forward = self.frames.here(frame)
        module = self._stack[-1] if forward is None else self._running(forward)
        serial = self._serial(tensor)
        self.calls.append(RawCall(name, (Ref(serial),), {}, (serial,), (), module, site))

    def turned(self, tensor: torch.Tensor, other: torch.Tensor) -> None:
        """Note that a tensor stands in another object from now on, of another class."""
        if not is_functorch_wrapped_tensor(other) and place_of(other) == place_of(tensor):
            self._ids[id(other)] = (weakref.ref(other), self._serial(tensor))

    # Modules

    def hands_on(self, module: nn.Module, caller: FrameType) -> bool:
        """Whether a module is called by a `__call__` of its own class, on the way to its forward:
        the module call that runs goes on, and no other one begins."""
        runs = self.modules[self._stack[-1]].module if self._stack else None
        own = runs is module and type(module).__call__ is not nn.Module.__call__
        return own and not self.frames.is_forward(caller)

    def enter(self, module: nn.Module, caller: FrameType | None, direct: bool = False) -> int:
        """Note that a module begins; its number among the module calls."""
        parent = -1
        if self._stack:
            parent = self._stack[-1]
            if caller is not None and self.frames.is_forward(caller):
                parent = self._running(caller)
        known = self._state.modules.get(id(module))
        if known is None:
            path = f"{self.modules[parent].path}/{type(module).__name__}"
        else:
            path = known[1]
        index = self._counts.get(path, 0)
        self._counts[path] = index + 1
        number = len(self.modules)
        self.modules.append(RawModule(module, path, index, parent, len(self.calls), direct))
        return number

    def pushed(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The module call `number` runs from now on."""
        self._stack.append(number)
        self.modules[number].inputs = self._known_serials((*args, kwargs) if kwargs else args)

    def left_by(self, error: BaseException, number: int) -> None:
        """The module call `number` is left by an error; it arose in the innermost that is."""
        if self.raised is None or self.raised[0] is not error:
            self.raised = error, number

    def popped(self, number: int, result: Any) -> None:
        """The module call `number` has returned `result`, or raised (None)."""
        entry = self.modules[number]
        entry.outputs = self._known_serials(result)
        entry.module = None
        self._stack.pop()
        self._let_go(number)
        entry.stop = len(self.calls)

    @property
    def current(self) -> int:
        """The number of the innermost module call that runs."""
        return self.calls[-1].module if self.calls else 0

    def _running(self, frame: FrameType) -> int:
        """The module call to which a frame of a forward belongs: the innermost that was entered,
        unless another module's forward was called directly."""
        top = self._stack[-1]
        if self._frame_of.get(top) is frame:
            return top
        if top not in self._frame_of and is_called_by_torch(frame):
            self._hold(top, frame)
            return top
        code = frame.f_code
        name = code.co_varnames[0] if code.co_argcount else ""
        owner = frame.f_locals.get(name)  # which keeps what stands there until the frame ends
        entry = self.modules[top]
        if owner is entry.module or id(owner) not in self._state.modules:
            self._hold(top, frame)
            return top
        for number, known in self._frame_of.items():
            if known is frame:
                self.modules[number].stop = len(self.calls) + 1
                return number
        outer = frame.f_back
        while outer is not None and not self.frames.is_forward(outer):
            outer = None if self.frames.is_start(outer) else outer.f_back
        number = self.enter(owner, outer, direct=True)  # pyright: ignore[reportArgumentType]
        self.modules[number].stop = len(self.calls) + 1
        self._hold(number, frame)
        return number

    def _hold(self, number: int, frame: FrameType) -> None:
        """Remember the frame in which a module call runs, as long as it does."""
        self._let_go(number)
        self._frame_of[number] = frame
        self.frames.hold(frame)

    def _let_go(self, number: int) -> None:
        frame = self._frame_of.pop(number, None)
        if frame is not None:
            self.frames.let_go(frame)

    def serials(self, tensors: Iterable[torch.Tensor]) -> tuple[int, ...]:
        """The newest values of these tensors."""
        return tuple([self._serial(tensor) for tensor in tensors])

    def _known_serials(self, tree: Any) -> tuple[int, ...]:
        if type(tree) is torch.Tensor:
            return (self._serial(tree),)
        found: list[torch.Tensor] = []
        flattened(tree, found)
        return self.serials([plain for tensor in found for plain in plain_ones(tensor)])

    # Values

    def _noted(self, value: Any, serials: list[int], tensors: list[torch.Tensor]) -> Any:
        """An argument with its tensors as Ref."""
        kind = type(value)
        if kind in _SCALARS:  # asking a number whether it is a tensor takes long
            return value
        if kind in _TENSORS or isinstance(value, torch.Tensor):
            serial = self._serial(value)
            serials.append(serial)
            tensors.append(value)
            return Ref(serial)
        if isinstance(value, (list, tuple)):
            items: Any = value
            return [
                item if type(item) in _SCALARS else self._noted(item, serials, tensors)
                for item in items
            ]
        return value

    def _serial(self, tensor: torch.Tensor) -> int:
        """The newest value of a tensor; one that was never seen is adopted."""
        known = self._ids.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        held = self._state.held.get(id(tensor))
        if held is not None and place_of(tensor) == held.place:
            storage = self._storage(tensor, self._state_storages)
            self._held_storages.add(storage)
            return self._new(tensor, storage, 0, held.origin, held.name, -1, -1)
        if is_functorch_wrapped_tensor(tensor):  # operators run on what torch.func has wrapped
            if is_batchedtensor(tensor) and self._stack:
                self.mapped[self.modules[self._stack[-1]].path] = None
            return self._serial(get_unwrapped(tensor))
        with aside():
            serial = self._new(tensor, self._fresh(), 0, "unknown", "", -1, -1)
            self.constants[serial] = tensor.detach().clone()  # as it is before the pass writes it
        self.classes[serial] = type(tensor).__name__
        return serial

    def _input(self, tensor: torch.Tensor, path: str) -> int:
        """The value of an input. One tensor under two names is one value; views share a storage."""
        known = self._ids.get(id(tensor))
        if known is not None:
            return known[1]
        storage = self._storage(tensor, self._input_storages)
        return self._new(tensor, storage, 0, "input", path, -1, -1)

    def _output(
        self,
        tensor: torch.Tensor,
        index: int,
        schema: Schema,
        inputs: list[int],
        tensors: list[torch.Tensor],
        written: list[torch.Tensor],
    ) -> int:
        known = self._ids.get(id(tensor))
        if known is not None and known[0]() is tensor:
            before = known[1]
            if not any(tensor is other for other in written):
                return before  # handed through, as `contiguous` does
            storage = self.values[before].storage
            return self._new(tensor, storage, self._writes[storage], "call", "", index, before)
        if schema.may_alias and tensor.layout is torch.strided:
            for serial, other in zip(inputs, tensors, strict=True):
                if _share_memory(tensor, other):
                    storage = self.values[serial].storage
                    version = self._writes.get(storage, 0)
                    return self._new(tensor, storage, version, "call", "", index, serial)
        self._storages += 1
        return self._new(tensor, self._storages - 1, 0, "call", "", index, -1)

    def _new(
        self, tensor: torch.Tensor, storage: int, version: int, origin: str, name: str,
        producer: int, base: int,
    ) -> int:  # fmt: skip
        serial = len(self.values)
        raw = (meta_of(tensor), storage, version, origin, name, producer, base)
        self.values.append(_row(RawValue, raw))
        # Weakly: a factory such as torch.zeros detaches what somebody else holds as well.
        alive = weakref.ref(tensor)
        self._alive.append(alive)
        self._ids[id(tensor)] = (alive, serial)
        return serial

    def _storage(self, tensor: torch.Tensor, known: dict[int, int]) -> int:
        """The storage of a tensor that is given, which others that are given may share."""
        key = _storage_key(tensor)
        if key is None:
            return self._fresh()
        if key not in known:
            known[key] = self._fresh()
        return known[key]

    def _fresh(self) -> int:
        self._storages += 1
        return self._storages - 1

    def _written(
        self, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[torch.Tensor]:
        """The tensors that this call writes. Those that the module holds are kept aside before."""
        found = schema.written(args, kwargs)
        for tensor in found:
            if self.values[self._serial(tensor)].storage in self._held_storages:
                self._state.about_to_write(tensor)
        return found

    def _note_nodes(self) -> None:
        """The nodes that autograd hung onto the last outputs, after the operator was done."""
        for serial in self._latest:
            tensor = self._alive[serial]()
            if tensor is not None and tensor.grad_fn is not None:
                self.nodes[serial] = tensor.grad_fn.name()
        self._latest = ()

    def forget(self) -> None:
        """Let go of what was noted, too."""
        self.calls, self.values, self.modules = [], [], []

    def finish(self) -> None:
        """Let go of every object of the pass; only what was noted stays."""
        if self._latest:
            self._note_nodes()
        self._ids.clear()
        self._alive.clear()
        for number in list(self._frame_of):
            self._let_go(number)
        self._state_storages.clear()
        self._input_storages.clear()
        for entry in self.modules:
            entry.module = None


def _storage_key(tensor: torch.Tensor) -> int | None:
    if tensor.layout is not torch.strided:
        return None
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
