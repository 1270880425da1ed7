"""Engine: a Forward that is built — named batch tensors in, named outputs out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from forwardpass.building import backends, steps
from forwardpass.building.copies import copied
from forwardpass.errors import UsageError, nearest
from forwardpass.loading.calling import placed
from forwardpass.nouns.folders import names, plugin
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Argument, Backend, Step
from forwardpass.nouns.signatures import Output, Signature
from forwardpass.tensors.trees import flatten


class Replica(Protocol):
    """One copy of a built model on one device. What a backend makes."""

    @property
    def device(self) -> torch.device: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def workers(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def stage(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]: ...
    def compute(self, inputs: Mapping[str, torch.Tensor]) -> Any: ...
    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any: ...
    def fetch(self, outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]: ...
    def seed(self, seed: int) -> None: ...


class Engine:
    """A Forward that is built. Calling it computes one batch on its first device.

    Attributes:
        forward: the Forward it was built from; its module is not touched.
        replicas: one copy a device.
        signature: the inputs and, once known, the outputs that leave.
    """

    def __init__(
        self, forward: Forward, replicas: Sequence[Replica], signature: Signature | None
    ) -> None:
        self.forward = forward
        self.replicas = tuple(replicas)
        self.signature = signature
        paths = [item.path for item in signature.inputs] if signature else []
        self._places = placed(forward.model.module, paths) if paths else {}

    def with_outputs(self, outputs: Sequence[Output]) -> Engine:
        """The same engine with its outputs known."""
        assert self.signature is not None
        return Engine(self.forward, self.replicas, Signature(self.signature.inputs, tuple(outputs)))

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Compute one batch: `{path: tensor}` in, `{name: CPU tensor}` out."""
        replica = self.replicas[0]
        return replica.fetch(self.compute(replica, replica.stage(inputs)))

    def compute(
        self, replica: Replica, staged: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The outputs of one batch that is already on the replica's device, by name.

        All tensors leave while the outputs are unknown; afterwards only the declared ones.
        """
        return self._selected(flatten(replica.compute(self.placed(staged))))

    def placed(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs under the names and positions that forward takes them by."""
        return {self._places[path]: value for path, value in inputs.items()}

    def _selected(self, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        declared = self.signature.outputs if self.signature else ()
        if not declared:
            return found
        names = [output.path for output in declared]
        if all(name in found for name in names):
            return {name: found[name] for name in names}
        anonymous = all(name.startswith("output") for name in found)
        if anonymous and len(found) == len(names):
            return dict(zip(names, found.values(), strict=True))
        missing = next(name for name in names if name not in found)
        raise UsageError(
            f"the signature declares the output {missing!r}, which forward did not return; "
            f"{nearest(missing, found)}"
        )


def build(forward: Forward) -> Engine:
    """Build a Forward: apply its steps to a copy of its module, then its backend.

    Raises UsageError for unknown names and arguments, LoadError where the module cannot be copied.
    """
    step_names, backend_names = names(steps), names(backends)
    for step in forward.plan.steps:
        if step.name not in step_names:
            raise UsageError(f"unknown step {step.name!r}; {nearest(step.name, step_names)}")
    backend = forward.plan.backend
    if backend.name not in backend_names:
        raise UsageError(
            f"unknown backend {backend.name!r}; {nearest(backend.name, backend_names)}"
        )
    module = copied(forward.model.module)
    for step in forward.plan.steps:
        module = _applied(step, module)
    lowering = plugin(backends, backend.name)
    replicas = lowering.build(module, **_bound(lowering.build, backend, skip=1))
    return Engine(forward, replicas, forward.model.signature)


def _applied(step: Step, module: nn.Module) -> nn.Module:
    paths = [path for path, _ in module.named_modules(remove_duplicate=False)]
    selected = {path for path in paths if step.selects(path)}
    if not selected:
        wanted = next((glob for glob in step.where if not glob.startswith("!")), step.where[0])
        raise UsageError(f"{step}: no module is called so; {nearest(wanted, filter(None, paths))}")
    apply = plugin(steps, step.name).apply
    return apply(module, selected, **_bound(apply, step, skip=2))


def _bound(function: Any, call: Step | Backend, skip: int) -> dict[str, Any]:
    """The arguments of a step or a backend by name. Raises UsageError where they do not fit."""
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    known = [p.name for p in parameters]
    bound: dict[str, Argument] = {}
    for place, argument in enumerate(call.arguments):
        if not argument.name and place >= len(known):
            raise UsageError(f"{call}: {call.name} takes at most {len(known)} arguments")
        name = argument.name or known[place]
        if name not in known:
            raise UsageError(
                f"{call}: {call.name} has no argument {name!r}; {nearest(name, known)}"
            )
        if name in bound:
            raise UsageError(f"{call}: {call.name} is given {name!r} twice")
        bound[name] = argument
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in bound]
    if missing:
        raise UsageError(
            f"{call}: {call.name} needs {', '.join(missing)}: {call.name}({missing[0]}=…)"
        )
    return {name: argument.value for name, argument in bound.items()}
