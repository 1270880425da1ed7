"""Engine: a Forward that is built — named batch arrays in, named outputs out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forwardpass.building import backends, steps
from forwardpass.building.replicas import Example, Inputs, Replica
from forwardpass.errors import UsageError, nearest
from forwardpass.nouns.folders import names, plugin
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Argument, Backend, Plan, Step
from forwardpass.nouns.programs import Program
from forwardpass.nouns.signatures import Output, Signature
from forwardpass.tensors.arrays import Array

if TYPE_CHECKING:
    from torch import nn


class Engine:
    """A Forward that is built. Calling it computes one batch on its first device.

    Attributes:
        forward: the Forward it was built from; its module is not touched.
        replicas: one copy a device.
        signature: the inputs and, once `learn` was told, the outputs that leave.
    """

    def __init__(self, forward: Forward, replicas: Sequence[Replica]) -> None:
        self.forward = forward
        self.replicas = tuple(replicas)
        self.signature = forward.model.signature

    def learn(self, outputs: Sequence[Output]) -> None:
        """From here on these outputs leave, under these names."""
        assert self.signature is not None
        self.signature = Signature(self.signature.inputs, tuple(outputs))

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute one batch: `{path: array}` in, `{name: array}` in CPU memory out."""
        replica = self.replicas[0]
        return replica.fetch(self.compute(replica, replica.stage(inputs)))

    def compute(self, replica: Replica, staged: Any, seed: int | None = None) -> dict[str, Array]:
        """The outputs of one batch that is already on the replica's device, by name.

        All arrays leave while the outputs are unknown; afterwards only the declared ones.
        """
        return self._selected(replica.compute(staged, seed))

    @property
    def put_back(self) -> tuple[str, ...]:
        """What passes changed of the module, and what was put back after them, a sentence each."""
        said = (r.standing.put_back for r in self.replicas if r.standing is not None)
        return tuple(dict.fromkeys(sentence for sentences in said for sentence in sentences))

    def verify(self) -> None:
        """Raise PassError where a pass left something changed of which nothing was seen."""
        for replica in self.replicas:
            if replica.standing is not None:
                replica.standing.verify()

    def release(self) -> None:
        """From here on what a pass changes of its replica stays for the next one."""
        for replica in self.replicas:
            if replica.standing is not None:
                replica.standing.release()

    def _selected(self, found: dict[str, Array]) -> dict[str, Array]:
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


def build(forward: Forward, inputs: Inputs, fitted: object | None = None) -> Engine:
    """Build a Forward: apply its steps to a copy of its module, then its backend.

    Args:
        inputs: a batch that it takes: the example by which backends build.
        fitted: what an earlier fit found.

    Raises UsageError for unknown names and arguments, LoadError where the module cannot be copied.
    """
    require_known(forward.plan)
    backend = forward.plan.backend
    lowering = plugin(backends, backend.name).build
    arguments = _bound(lowering, backend, skip=3)
    example = Example(forward.model.signature, inputs)
    return Engine(forward, lowering(_stepped(forward), example, fitted, **arguments))


def require_known(plan: Plan) -> None:
    """Raise UsageError for a step or a backend that is not there, with the nearest that is."""
    step_names, backend_names = names(steps), names(backends)
    for step in plan.steps:
        if step.name not in step_names:
            raise UsageError(f"unknown step {step.name!r}; {nearest(step.name, step_names)}")
    name = plan.backend.name
    if name not in backend_names:
        raise UsageError(f"unknown backend {name!r}; {nearest(name, backend_names)}")


def _stepped(forward: Forward) -> Program:
    """The program after the steps of the plan: of a module, a copy that is ours to change."""
    program, plan = forward.model.program, forward.plan
    if program.module is None:
        if plan.steps:
            raise UsageError(
                f"{plan.steps[0]}: steps change a module, and {program.name} is an artefact; "
                "give the step to the model that it was made from"
            )
        return program
    from forwardpass.building.copies import copied
    from forwardpass.loading.programs import ModuleProgram

    module = copied(program.module)
    for step in plan.steps:
        module = _applied(step, module)
    return ModuleProgram(module, program.origin, program.trust)


def _applied(step: Step, module: nn.Module) -> nn.Module:
    from forwardpass.tensors.modules import parts_of

    paths = [path for path, _ in parts_of(module, every_name=True)]
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
