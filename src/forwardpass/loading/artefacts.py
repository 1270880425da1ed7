"""`NAME.fwd`: an exported Forward, opened only after its sums and its trust were looked at."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from forwardpass.errors import GrammarError, LoadError, UsageError
from forwardpass.nouns.artefacts import GRAPH, MANIFEST, Artefact
from forwardpass.nouns.documents import schema_of
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.programs import TRUSTED, Trust
from forwardpass.nouns.signatures import Signature

_LARGEST: Final = 64 << 20
"""Bytes of a manifest; none that we write comes near."""
_READ: Final = 4 << 20
"""Bytes that are read at a time: few times, since each waits for the interpreter's lock."""


@dataclass(frozen=True, eq=False)
class ArtefactProgram:
    """A Program without a module: a folder, of which everything was checked and nothing opened.

    Attributes:
        rebuild: whether a graph that does not fit this machine may be made anew, in a folder of its
            own, of what lies beside it.
    """

    folder: Path
    artefact: Artefact
    origin: str | None = None
    module: None = None
    rebuild: bool = False

    @property
    def trust(self) -> Trust:
        """What opening it may execute."""
        return self.artefact.trust

    @property
    def name(self) -> str:
        """The class of the module that it was made from."""
        return self.artefact.name

    @property
    def instead(self) -> str:
        """What to give where a module is needed."""
        program = next((n for n in self.artefact.files if n == f"{GRAPH}/graph.pt2"), None)
        if (
            program is None
            or not self.artefact.lowered.route.startswith("torch.export")
            or self.trust == "native"
        ):
            return "the model that it was made from"
        return f"the model that it was made from, or the exported program {self.folder / program}"

    def arguments(self) -> tuple[str, ...]:
        """The paths of its inputs."""
        return tuple(port.path for port in self.artefact.lowered.inputs)

    def digest(self) -> str:
        """SHA-256 of the manifest, which holds the sums of all that computes."""
        return hashlib.sha256(msgspec.json.encode(self.artefact)).hexdigest()


def is_artefact(folder: Path) -> bool:
    """Whether a folder is one, or is called as one."""
    return (folder / MANIFEST).is_file() or folder.suffix == ".fwd"


def rebuilt(forward: Forward) -> Forward:
    """The Forward of an artefact, whose graph may be made anew for this machine.

    Raises UsageError for what is no artefact.
    """
    model = forward.model
    if not isinstance(model.program, ArtefactProgram):
        raise UsageError(f"{model.name} is no artefact: there is nothing to rebuild")
    again = Model(
        replace(model.program, rebuild=True), model.signature, encode=model.encode,
        decode=model.decode, origin=model.origin, trust=model.trust,
    )  # fmt: skip
    return Forward(again, forward.plan)


def from_artefact(folder: Path, origin: str, allowed: Trust) -> Forward:
    """The Forward in `folder`, unopened.

    Args:
        allowed: the highest class that may be opened.

    Raises LoadError: it is damaged, of another version, or of a higher class.
    """
    artefact = _manifest(folder)
    _require_files(folder, artefact)
    if TRUSTED.index(artefact.trust) > TRUSTED.index(allowed):
        raise LoadError(
            f"{folder} is {artefact.trust}, and no more than {allowed} may be opened: "
            f"{'; '.join(artefact.code)}. If you trust where it came from, say --trust "
            f"{artefact.trust}, or load(…, trust={artefact.trust!r})"
        )
    for part, description in (("encode", artefact.encode), ("decode", artefact.decode)):
        if artefact.trust == "data" and description and description.get("kind") == "code":
            raise LoadError(
                f"{folder} says that it is data, and its {part} is code: it was not opened"
            )
    graph = {name for name in artefact.files if name.startswith(f"{GRAPH}/")}
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(_require_sums, folder, artefact, graph)
        _require_sums(folder, artefact, artefact.files.keys() - graph)
        if artefact.trust != "data":
            checked.result()  # what encodes may be code
        forward = _described(folder, artefact, origin)
        checked.result()
    return forward


def _described(folder: Path, artefact: Artefact, origin: str) -> Forward:
    """What the manifest says, and files beside the graph."""
    from forwardpass.loading.described import decoder, encoder

    signature, plan = _said(folder, artefact)
    model = Model(
        ArtefactProgram(folder, artefact, origin),
        signature,
        encode=encoder(artefact.encode, folder),
        decode=decoder(artefact.decode),
    )
    return Forward(model, Plan((), plan.backend))


def _said(folder: Path, artefact: Artefact) -> tuple[Signature, Plan]:
    """What the manifest says in the notations. Raises LoadError where they do not parse, or say
    something else than the graph."""
    try:
        signature = Signature.parse(artefact.inputs, artefact.outputs)
        plan = Plan.parse(artefact.plan)
    except GrammarError as error:
        raise LoadError(
            f"{folder / MANIFEST} is damaged: {error}; export the model again"
        ) from error
    takes = {port.path: port.dtype for port in artefact.lowered.inputs}
    for item in signature.inputs:
        if takes.get(item.path) != item.dtype:
            raise LoadError(
                f"{folder / MANIFEST} is damaged: its signature says `{item}`, and its graph takes "
                f"{', '.join(f'{path}: {dtype}' for path, dtype in takes.items())}; export the "
                "model again"
            )
    return signature, plan


def _manifest(folder: Path) -> Artefact:
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise LoadError(
            f"{folder} is no artefact: it has no {MANIFEST} that can be read "
            f"({error.strerror}); write one with `fwd export FORWARD -o {folder.name}`"
        ) from error
    if len(text) > _LARGEST:
        raise LoadError(f"{path} has more than {_LARGEST >> 20} MiB, which no manifest has")
    try:
        return msgspec.json.decode(text, type=Artefact)
    except msgspec.MsgspecError as error:
        raise LoadError(_unreadable(path, text, error)) from error


def _unreadable(path: Path, text: bytes, error: Exception) -> str:
    schema = schema_of(text)
    known = "forwardpass/artefact/1"
    if schema.startswith("forwardpass/artefact/") and schema != known:
        return (
            f"{path} is {schema}, and this version of forwardpass reads {known}; export the model "
            "again, or install the version that wrote it"
        )
    return f"{path} is damaged: {error}; export the model again"


def _require_files(folder: Path, artefact: Artefact) -> None:
    """Raise LoadError unless the files are those of the manifest, as large, and no others."""
    there = {
        place.relative_to(folder).as_posix()
        for parent, inner, names in os.walk(folder)
        for place in (Path(parent) / name for name in (*inner, *names))
        if place.is_symlink() or not place.is_dir()
    }
    for name in sorted(there ^ {MANIFEST, *artefact.files}):
        what = "is missing" if name not in there else "is no part of it"
        raise LoadError(f"{folder}: {name} {what}; copy or export the artefact again")
    for name, expected in artefact.files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise LoadError(
                f"{folder}: {name} is a link or a device, and no file; copy or export the artefact "
                "again"
            )
        if path.stat().st_size != expected.bytes:
            raise _changed(folder, name)


def _require_sums(folder: Path, artefact: Artefact, names: Iterable[str]) -> None:
    """Raise LoadError unless these files are those of the manifest, to the bit."""
    for name in names:
        if digest_of(folder / name) != artefact.files[name].sha256:
            raise _changed(folder, name)


def _changed(folder: Path, name: str) -> LoadError:
    return LoadError(
        f"{folder}: {name} is not what was exported (its checksum differs); copy or export the "
        "artefact again"
    )


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_READ))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
