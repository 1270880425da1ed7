"""What is called, and with what: a Forward and the user's inputs → a module's arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from forwardpass.building import Arguments, Example, backends, build
from forwardpass.building.backends.eager import EagerReplica
from forwardpass.building.engines import require_known
from forwardpass.errors import UsageError
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.folders import plugin
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Plan
from forwardpass.tensors.modules import parts_of
from forwardpass.tensors.trees import nest


class Called(NamedTuple):
    """A module with the arguments to call it with.

    Attributes:
        renamed: the user's names of what forward names otherwise, by forward's names.
        threads: inside an operator, or None: as they are.
        notes: what one should know of how this is recorded.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    renamed: dict[str, str]
    threads: int | None
    notes: tuple[str, ...]


def called(forward: Forward, inputs: Any) -> Called:
    """The call that `forward` makes for `inputs`.

    Without steps and with the plain backend it is the user's own module, as it stands; otherwise
    the copy that the plan makes of it, in eval mode. Raises UsageError for inputs that are
    neither a tensor, a tuple nor a dict.
    """
    module, threads = forward.model.module, None
    notes: list[str] = []
    args, kwargs, renamed = _arguments(module, inputs)
    if forward.plan != Plan():
        require_known(forward.plan)
        backend, replica = forward.plan.backend.name, None
        if hasattr(plugin(backends, backend), "build"):
            replica = build(forward, Example(None, Arguments(args, kwargs))).replicas[0]
        if not isinstance(replica, EagerReplica):
            raise UsageError(
                f"{forward}: {backend} computes a graph of its own, which cannot be looked into; "
                "give the Forward without it. `fwd diff` compares its outputs"
            )
        module, threads, device = replica.module, replica.facts.threads, replica.facts.device
        notes.append(f"recorded is the copy that `{forward.plan}` makes of the module")
        args, kwargs = tree_map_only(torch.Tensor, lambda t: t.to(device), (args, kwargs))
    if names := compiled_parts(module):
        notes.append(f"compiled, and recorded as eager: {', '.join(names)}")
    return Called(module, args, kwargs, renamed, threads, tuple(notes))


def _arguments(
    module: nn.Module, inputs: Any
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, str]]:
    if isinstance(inputs, torch.Tensor):
        return (inputs,), {}, {}
    if isinstance(inputs, tuple) and not hasattr(inputs, "_fields"):
        return cast("tuple[Any, ...]", inputs), {}, {}
    if isinstance(inputs, Mapping):
        named = {str(k): v for k, v in cast("Mapping[Any, Any]", inputs).items()}
        places = ModuleProgram(module).placed(list(named))
        args, kwargs = nest({places[path]: value for path, value in named.items()})
        return args, kwargs, dict(_renamed(module, places))
    raise UsageError(
        "record takes inputs as a tensor, a tuple of positional arguments, or a dict of named "
        f"ones, not {type(inputs).__name__}; for one argument that is a list, give ([…],)"
    )


def _renamed(module: nn.Module, places: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Where a user's name went to a position: forward's name of that position, and the user's."""
    names = ModuleProgram(module).arguments()
    for path, place in places.items():
        given, took = path.partition(".")[0], place.partition(".")[0]
        if took != given and took.isdigit():
            yield (names[int(took)] if int(took) < len(names) else took), given


def compiled_parts(module: nn.Module) -> list[str]:
    """Names of the parts that torch.compile would replace: under a recorder they run eagerly.

    PyTorch has no public way to ask, so what it makes of them is named here, and here alone.
    """
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes a second
    if compiler is None:
        return []
    return [
        path or "the module"
        for path, part in parts_of(module)
        if isinstance(part, compiler.OptimizedModule) or part._compiled_call_impl is not None  # pyright: ignore[reportPrivateUsage]
    ]
