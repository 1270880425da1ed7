"""Engine: a Forward that is built — named batch arrays in, named outputs out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from forwardpass.building import backends, steps
from forwardpass.building.calls import bound
from forwardpass.building.opening import opened
from forwardpass.building.replicas import Example, Inputs, Replica
from forwardpass.errors import UsageError, nearest
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.measuring.memory import settle_freed
from forwardpass.nouns.applied import Applied
from forwardpass.nouns.folders import names, plugin, plugins
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.lowered import Lowered
from forwardpass.nouns.plans import Plan, Where
from forwardpass.nouns.programs import Program, Trust
from forwardpass.nouns.signatures import Output, Signature
from forwardpass.tensors.arrays import Array


class Engine:
    """A Forward that is built. Calling it computes one batch on its first device.

    Attributes:
        forward: the Forward it was built from; its module is not touched.
        replicas: one copy a device.
        applied: what the steps of its plan did, and its backend.
        signature: the inputs and, once `learn` was told, the outputs that leave.
    """

    def __init__(
        self, forward: Forward, replicas: Sequence[Replica], applied: Sequence[Applied] = ()
    ) -> None:
        self.forward = forward
        self.replicas = tuple(replicas)
        self.applied = (
            *applied,
            *(done for one in self.replicas[:1] for done in one.facts.applied),
        )
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

    def verify(self, replica: Replica) -> None:
        """Raise PassError where a pass left something of a replica changed of which nothing was
        seen. No pass of it may be under way."""
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
        if names == [*found]:
            return found
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


def build(forward: Forward, example: Example) -> Engine:
    """Build a Forward: apply its steps to a copy of its module, then its backend.

    Raises UsageError for unknown names and arguments, LoadError where the module cannot be copied,
    BuildError where a step or a backend cannot make it.
    """
    settle_freed()
    program = forward.model.program
    if isinstance(program, ArtefactProgram):
        return Engine(forward, opened(forward, program), program.artefact.steps)
    require_known(forward.plan)
    backend = forward.plan.backend
    file = plugin(backends, backend.name)
    if hasattr(file, "build"):
        (arguments,) = bound(backend, (file.build, 2))
        program, applied = _stepped(forward, example)
        return Engine(forward, file.build(program, example, **arguments), applied)
    with TemporaryDirectory(prefix="forwardpass-") as folder:  # what is open stays so without it
        saved = save(forward, example, Path(folder))
        return Engine(forward, saved.replicas, saved.applied)


class Reopened(NamedTuple):
    """What a backend wrote, opened.

    Attributes:
        lowered: what it says of it. replicas: as they were opened. applied: what the steps did.
        trust: what opening it may execute, and why, in a sentence.
    """

    lowered: Lowered
    replicas: Sequence[Replica]
    applied: tuple[Applied, ...]
    trust: Trust
    why: str

    def outputs(self, inputs: Inputs) -> dict[str, Array]:
        """Of one batch, by name."""
        replica = self.replicas[0]
        return replica.fetch(replica.compute(replica.stage(inputs)))


def save(forward: Forward, example: Example, folder: Path) -> Reopened:
    """Write a Forward into `folder`, in the way of its backend, and open what was written.

    Raises UsageError for unknown names and arguments, and for a backend that writes nothing;
    BuildError where it cannot make it.
    """
    require_known(forward.plan)
    backend = forward.plan.backend
    file = plugin(backends, backend.name)
    if not hasattr(file, "save"):
        able = [n for n, other in plugins(backends).items() if hasattr(other, "save")]
        raise UsageError(
            f"{backend.name} writes no artefact; of the backends do: {', '.join(able)}"
        )
    saving, opening = bound(backend, (file.save, 3), (file.open, 2))
    if backend.where:
        saving["layers"] = Where(backend.where)
    program, applied = _stepped(forward, example)
    lowered = file.save(program, example, folder, **saving)
    replicas = file.open(folder, lowered, **opening)
    trust: Trust = file.trust(lowered)
    return Reopened(
        lowered, replicas, applied, trust, (inspect.getdoc(file.trust) or "").rstrip(".")
    )


def require_known(plan: Plan) -> None:
    """Raise UsageError for a step or a backend that is not there, with the nearest that is, and for
    layers chosen where there is nothing to choose."""
    step_names, backend_names = names(steps), names(backends)
    for step in plan.steps:
        if step.name not in step_names:
            raise UsageError(f"unknown step {step.name!r}; {nearest(step.name, step_names)}")
    name = plan.backend.name
    if name not in backend_names:
        raise UsageError(f"unknown backend {name!r}; {nearest(name, backend_names)}")
    if plan.backend.where and not _chooses(name):
        raise UsageError(
            f"@ {plan.backend}: `where` chooses the layers that a backend quantizes, and {name} "
            "quantizes none; leave it out"
        )


def _chooses(backend: str) -> bool:
    save = getattr(plugin(backends, backend), "save", None)
    return save is not None and "layers" in inspect.signature(save).parameters


def _stepped(forward: Forward, example: Example) -> tuple[Program, tuple[Applied, ...]]:
    """The program after the steps of the plan, of a module a copy that is ours to change; and what
    the steps did."""
    program, plan = forward.model.program, forward.plan
    if program.module is None:  # one of the user's own making: what it takes is for it to say
        return program, ()
    from forwardpass.building.copies import copied

    module, applied = copied(program.module), ()
    if plan.steps:
        from forwardpass.building.stepping import stepped

        module, applied = stepped(module, plan.steps, example)
    from forwardpass.loading.programs import ModuleProgram

    return ModuleProgram(module, program.origin, program.trust), applied
