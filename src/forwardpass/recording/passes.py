"""Pass: one way to call a module that can be repeated, and that leaves no trace.

Every repetition starts from the same inputs, modes and random generators. Whatever a repetition
changed of the module is put back, whether it returns or raises.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, Literal

import torch
from torch import nn

from forwardpass.keeping.memories import is_strided, numbers
from forwardpass.keeping.states import State
from forwardpass.recording import higher_order
from forwardpass.recording.arguments import copied, dressed, named_tensors
from forwardpass.recording.compilers import uncompiled
from forwardpass.recording.doorway import CLASS_CALLS, HOST_CALLS, Around, Calling, calls_visited
from forwardpass.recording.interception import Interception
from forwardpass.recording.originals import Originals
from forwardpass.recording.schemas import Schema
from forwardpass.recording.tracing import Tracer
from forwardpass.recording.turns import Turns
from forwardpass.tensors.generators import GeneratorStates
from forwardpass.tensors.trees import flatten

Mode = Literal["train", "eval"]
Grad = Literal["on", "off", "inference"]
_AUTOCASTS = ("cpu", "cuda")
ONE_PASS_AT_A_TIME = Turns()
"""What a pass stands on is the process's: its generators, the collector, a module that two threads
may share. A thread that would make one while another does waits for it, or is refused where that
one waits for it."""
_STAGED: ContextVar[bool] = ContextVar("forwardpass_staged", default=False)


@dataclass(frozen=True)
class Pass:
    """A call of `module` that can be repeated.

    Attributes:
        arguments, keywords: pristine copies of what goes in; each repetition gets its own copies.
        grad: whether autograd records, is off, or is off for good (inference mode).
        mode: the mode that the whole module is put into, or None: as each part stands.
        generators: the states from which each repetition starts.
        autocast: device types on which autocast is on, with its dtype.
        threads: inside an operator, or None: as they are.
        expanded: whether PyTorch's fused fast path for transformers is off.
        renamed: the names under which the user gave what forward names otherwise.
        originals: the tensors of which the arguments hold copies.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    grad: Grad
    mode: Mode | None
    generators: GeneratorStates
    autocast: Mapping[str, torch.dtype]
    threads: int | None = None
    expanded: bool = False
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    originals: Originals = field(default_factory=lambda: Originals(()))

    @classmethod
    def of(
        cls,
        module: nn.Module,
        arguments: tuple[Any, ...],
        keywords: Mapping[str, Any],
        *,
        grad: Grad | None = None,
        mode: Mode | None = None,
        threads: int | None = None,
        expanded: bool = False,
        renamed: Mapping[str, str] | None = None,
    ) -> Pass:
        """The pass in the grad mode in which the caller stands, unless `grad` says otherwise."""
        args, kwargs = copied((arguments, dict(keywords)))
        autocast = {
            kind: torch.get_autocast_dtype(kind)
            for kind in _AUTOCASTS
            if torch.is_autocast_enabled(kind)
        }
        with ONE_PASS_AT_A_TIME:
            states = GeneratorStates.now()
        return cls(
            module, args, kwargs, grad or standing(), mode, states, autocast, threads, expanded,
            renamed or {}, Originals((arguments, dict(keywords))),
        )  # fmt: skip

    @contextmanager
    def staged(
        self, *, contents: bool = False, standing: GeneratorStates | None = None
    ) -> Generator[tuple[State, tuple[Any, ...], dict[str, Any]]]:
        """What holds around a repetition: the module's state, and inputs to call it with.

        With `contents` parameters are put back even if nobody announces that they are written.
        `standing` is how the generators stand, where that is known: asking them takes longer than
        many an operator.
        """
        with ONE_PASS_AT_A_TIME, ExitStack() as stack:
            before = standing or GeneratorStates.now()
            collecting = gc.isenabled()
            state = State(self.module, contents=contents)
            stack.callback(_STAGED.reset, _STAGED.set(True))
            stack.callback(before.restore)
            stack.callback(state.restore)
            stack.enter_context(grad_mode(self.grad))
            for kind in _AUTOCASTS:
                if kind in self.autocast:
                    torch.clear_autocast_cache()  # the first pass of a region fills it
                    stack.enter_context(torch.autocast(kind, dtype=self.autocast[kind]))
                elif torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if self.threads is not None:
                stack.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(self.threads)
            stack.enter_context(uncompiled())
            stack.enter_context(higher_order.opened())
            if self.expanded:
                stack.callback(
                    torch.backends.mha.set_fastpath_enabled,
                    torch.backends.mha.get_fastpath_enabled(),
                )
                torch.backends.mha.set_fastpath_enabled(False)
            if self.mode is not None:
                state.put_into(self.mode == "train")
            if before is not self.generators:
                self.generators.restore()
            if collecting:
                gc.disable()
                stack.callback(gc.enable)
            args, kwargs = copied((self.arguments, self.keywords))
            yield state, args, kwargs

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The tensors among these arguments, by the user's names, else by those of forward."""
        found = named_tensors(self.module, args, kwargs)
        return {self._renamed(path): tensor for path, tensor in found.items()}

    def given(self, inputs: Mapping[str, torch.Tensor]) -> Pass:
        """The same pass with other tensors in the places that these paths name."""
        named = self.named(self.arguments, self.keywords)
        instead = {id(named[path]): dressed(tensor, named[path]) for path, tensor in inputs.items()}
        args, kwargs = copied((self.arguments, self.keywords), instead)
        return replace(self, arguments=args, keywords=kwargs)

    def _renamed(self, path: str) -> str:
        root, dot, rest = path.partition(".")
        return self.renamed.get(root, root) + dot + rest

    def plain(self, around: AbstractContextManager[Any] | None = None) -> Any:
        """What the module returns, called as it is, or within `around`."""
        with self.staged(contents=True) as (_, args, kwargs), around or nullcontext():
            return self.module(*args, **kwargs)

    def as_given(self) -> dict[str, torch.Tensor]:
        """What comes out, by path, when the module is called as it is with the very tensors that
        the user gave, as far as these are there and unchanged. They are put back."""
        given = self.arguments, self.keywords
        with (
            self.originals.lent(given) as instead,
            self.staged(contents=True),
        ):
            args, kwargs = copied(given, instead)
            came = flatten(self.module(*args, **kwargs))
            return {path: numbers(tensor) for path, tensor in came.items()}

    def guarded(self) -> Any:
        """What the module returns, as `plain` has it, without a copy of all parameters beforehand:
        an interception keeps those that an operator is about to write."""
        with self.staged() as (state, args, kwargs), _Announcing(state):
            return self.module(*args, **kwargs)


class _Announcing(Interception):
    """Tells a state of what operators are about to write of it."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state
        self._storages = {
            held.alias.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]
            for held in state.held.values()
            if is_strided(held.alias)
        }

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        for tensor in schema.written(args, kwargs) if schema.may_write else ():
            if is_strided(tensor) and tensor.untyped_storage()._cdata in self._storages:  # pyright: ignore[reportPrivateUsage]
                self._state.about_to_write(tensor)
        return func(*args, **kwargs)


def is_staged() -> bool:
    """Whether a repetition runs, rather than a pass that the user's own code makes."""
    return _STAGED.get()


def standing() -> Grad:
    """The grad mode in which the caller stands."""
    if torch.is_inference_mode_enabled():
        return "inference"
    return "on" if torch.is_grad_enabled() else "off"


@contextmanager
def grad_mode(grad: Grad) -> Generator[None]:
    """The context in which autograd is `on`, `off`, or in inference mode."""
    # Entered in any case: the caller may stand in inference mode.
    with torch.inference_mode(grad == "inference"), torch.set_grad_enabled(grad == "on"):
        yield


def traced(
    tracer: Tracer, called: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a module while `tracer` sees its operators, its modules and its ways to Python."""
    with ExitStack() as stack:
        stack.enter_context(tracer)
        stack.enter_context(higher_order.opened())
        stack.enter_context(calls_visited(tracer.kinds, entering(tracer)))
        for name, doorway in HOST_CALLS.items():
            stack.enter_context(doorway.visited(_leaving(tracer, name)))
        for doorway in CLASS_CALLS:
            stack.enter_context(doorway.visited(_turning(tracer)))
        return forwardpass_starts_the_pass(called, args, kwargs)


def forwardpass_starts_the_pass(
    called: Callable[..., Any], args: tuple[Any, ...], kwargs: Any
) -> Any:
    """The frame past which nobody looks for a caller; see frames.START_NAME."""
    return called(*args, **kwargs)


def entering(tracer: Tracer) -> Around:
    """Tells `tracer` of each module that is called."""

    def around(beneath: Calling) -> Calling:
        def call(
            caller: FrameType, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            if tracer.hands_on(module, caller):
                return beneath(caller, module, args, kwargs)
            number = tracer.enter(module, caller)
            tracer.pushed(number, args, kwargs)
            result = None
            try:
                result = beneath(caller, module, args, kwargs)
            except BaseException as error:
                tracer.left_by(error, number)
                raise
            finally:
                tracer.popped(number, result)
            return result

        return call

    return around


def _leaving(tracer: Tracer, name: str) -> Around:
    """Tells `tracer` of each tensor that leaves."""

    def around(beneath: Calling) -> Calling:
        def call(
            caller: FrameType, tensor: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            tracer.host(name, tensor, caller)
            return beneath(caller, tensor, args, kwargs)

        return call

    return around


def _turning(tracer: Tracer) -> Around:
    """Tells `tracer` of each tensor that becomes an object of another class."""

    def around(beneath: Calling) -> Calling:
        def call(
            caller: FrameType, first: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            result = beneath(caller, first, args, kwargs)
            for given in (first, *args, *kwargs.values()):
                if isinstance(given, torch.Tensor):
                    tracer.turned(given, result)
            return result

        return call

    return around
