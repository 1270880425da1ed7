"""An artefact's graph, opened where it fits this machine, or made anew for it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from forwardpass.building import backends, golden
from forwardpass.building.calls import bound, parameters, written_arguments
from forwardpass.building.replicas import Replica
from forwardpass.errors import BuildError, LoadError, UsageError, nearest
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.measuring.machines import machine
from forwardpass.nouns.artefacts import GRAPH, Artefact
from forwardpass.nouns.folders import names, plugin
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.plans import Argument, Backend, Plan
from forwardpass.nouns.programs import TRUSTED, Trust


def opened(forward: Forward, program: ArtefactProgram) -> Sequence[Replica]:
    """The replicas of an artefact, which have computed its golden rows again.

    Raises UsageError for a plan that it cannot follow, LoadError for what is damaged or claims to
    be less than it is, BuildError where it is for another machine, or computes otherwise here.
    """
    backend, artefact, name = forward.plan.backend, program.artefact, program.folder.name
    made = Plan.parse(artefact.plan).backend
    if made.name not in names(backends):
        raise LoadError(
            f"{name} was lowered to {made.name}, a backend that is not here; "
            f"{nearest(made.name, names(backends))}"
        )
    if forward.plan.steps:
        raise UsageError(
            f"{forward.plan.steps[0]}: steps change a module, and {name} is an artefact; give the "
            "step to the model that it was made from"
        )
    if backend.name != made.name:
        raise UsageError(
            f"{name} was lowered to {made.name}; for {backend.name} export the model that it was "
            "made from again"
        )
    file = plugin(backends, backend.name)
    needed: Trust = file.trust(artefact.lowered)
    if TRUSTED.index(needed) > TRUSTED.index(artefact.trust):
        raise LoadError(
            f"{name} says that it is {artefact.trust}, and its graph for {backend.name} is "
            f"{needed}: it was not opened"
        )
    saving, opening = bound(backend, (file.save, 3), (file.open, 2))
    wrote, _ = bound(made, (file.save, 3), (file.open, 2))
    if backend.where not in ((), made.where) or any(
        (value or None) != (wrote.get(argument) or None) for argument, value in saving.items()
    ):
        raise UsageError(
            f"@ {backend}: {name} was written as @ {made}, and is not written anew; export the "
            "model that it was made from"
        )

    def of(graph: Path) -> Sequence[Replica]:
        replicas = file.open(graph, artefact.lowered, **opening)
        golden.replay(replicas[0], program.folder, artefact.lowered)
        return replicas

    try:
        if needed == "native":
            _require_machine(name, artefact)
        return of(program.folder / GRAPH)
    except BuildError as error:
        if not program.rebuild:
            raise
        if not hasattr(file, "rebuild"):
            raise BuildError(f"{error}. It cannot be rebuilt: an artefact of {backend.name} holds "
                             "nothing that it was made from") from error  # fmt: skip
    with TemporaryDirectory(prefix="forwardpass-") as folder:  # what is open stays so without it
        file.rebuild(program.folder / GRAPH, Path(folder))
        return of(Path(folder))


def sharing_graph(plan: Plan) -> Plan:
    """The plan without those arguments of its backend that only say how a graph is opened: plans of
    which this is the same have the same graph. Its backend writes artefacts."""
    file = plugin(backends, plan.backend.name)
    writing = set(parameters(file.save, 3))
    return _with(plan, {n: one for n, one in _written(plan.backend).items() if n in writing})


def one_at_a_time(plan: Plan) -> Plan:
    """The plan for batches that come one at a time, as to a server: what its streams have of
    threads, one batch has."""
    opens = getattr(plugin(backends, plan.backend.name), "open", None)
    if opens is None or "streams" not in parameters(opens, 2):
        return plan
    written = _written(plan.backend)
    streams, threads = written.pop("streams", None), written.get("threads")
    if streams is None or type(streams.value) is not int:  # opening says what is wrong with it
        return plan
    if threads is not None and type(threads.value) is int:
        written["threads"] = Argument(str(streams.value * threads.value))
    return _with(plan, written)


def in_threads(plan: Plan, threads: int) -> Plan:
    """The plan with so many threads inside an operator, where its backend has threads of its own
    and nobody said how many."""
    opens = getattr(plugin(backends, plan.backend.name), "open", None)
    if opens is None or "threads" not in parameters(opens, 2):
        return plan
    written = _written(plan.backend)
    return _with(plan, {"threads": Argument(str(threads)), **written})


def _written(backend: Backend) -> dict[str, Argument]:
    file = plugin(backends, backend.name)
    return written_arguments(backend, (file.save, 3), (file.open, 2))


def _with(plan: Plan, written: Mapping[str, Argument]) -> Plan:
    named = tuple(Argument(one.text, name) for name, one in written.items())
    return Plan(plan.steps, Backend(plan.backend.name, named, plan.backend.where))


def _require_machine(name: str, artefact: Artefact) -> None:
    """Raise BuildError where machine code was made for what is not here; it would end the process,
    so it is not tried."""
    here = set(machine().instructions)
    lacking = [item for item in artefact.instructions if item not in here]
    reasons: list[str] = []
    if artefact.platform != (system := this_platform()):
        reasons.append(f"{artefact.platform or 'another system'}, and this is {system}")
    elif lacking:
        reasons.append(f"a processor with {', '.join(lacking[:6])}, which this one has not")
    for library, made in artefact.versions.items():
        if library in ("forwardpass", "python"):
            continue
        there = _version(library)
        if there != (wanted := made.split(" ")[0]):
            reasons.append(f"{library} {wanted}, and here it is {there or 'missing'}")
    if reasons:
        raise BuildError(
            f"{name} is machine code for {'; for '.join(reasons)}: it was not opened. Say "
            "--rebuild, or load(…, rebuild=True), to make it anew for this machine, or export the "
            "model here"
        )


def _version(library: str) -> str:
    from importlib import metadata  # it reads mail headers, and brings all that e-mail takes

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def this_platform() -> str:
    """The system and the kind of processor that machine code is for."""
    return f"{platform.system()} {platform.machine()}"
