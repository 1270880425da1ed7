"""The standard file of a graph alone: no folder, no manifest, nothing of what goes around it."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from forwardpass.errors import BuildError, UsageError, nearest
from forwardpass.exporting.folders import moved
from forwardpass.nouns.artefacts import GRAPH, Artefact
from forwardpass.nouns.plans import Backend, Plan

Format = Literal["onnx", "openvino", "pt2", "torchscript"]


class Kind(NamedTuple):
    """A format.

    Attributes:
        backend: that writes it. suffixes: of its file, the usual one first.
        route: the only way of writing that makes this format; "" for any.
    """

    backend: str
    suffixes: tuple[str, ...]
    route: str = ""


FORMATS: Final = {
    "onnx": Kind("onnxruntime", (".onnx",)),
    "openvino": Kind("openvino", (".xml",)),
    "pt2": Kind("eager", (".pt2",), "torch.export"),
    "torchscript": Kind("torchscript", (".pt", ".pth", ".ts")),
}


def planned(plan: Plan, format: str, path: Path) -> Plan:
    """The plan that writes this format. Raises UsageError where it says another backend, or the
    file has another suffix."""
    kind = FORMATS.get(format)
    if kind is None:
        raise UsageError(f"unknown format {format!r}; {nearest(format, FORMATS)}")
    if path.suffix not in kind.suffixes:
        raise UsageError(
            f"{path}: a file of the format {format} is called {path.stem}{kind.suffixes[0]}"
        )
    if plan.backend != Backend() and plan.backend.name != kind.backend:
        raise UsageError(
            f"@ {plan.backend} writes no {format}, which is what {kind.backend} writes: leave the "
            "backend out, or the format"
        )
    return plan if plan.backend != Backend() else Plan(plan.steps, Backend(kind.backend))


def files_of(path: Path, format: str) -> tuple[Path, ...]:
    """The files of a format: one, but OpenVINO's IR has its weights beside it."""
    return (path, path.with_suffix(".bin")) if format == "openvino" else (path,)


def take(artefact: Artefact, folder: Path, format: str, path: Path) -> Artefact:
    """Move the graph out of an artefact's folder to `path`; what is written then, as an Artefact.

    Raises BuildError where the graph had to be written in another format, and what `moved` does.
    """
    route, lowered = FORMATS[format].route, artefact.lowered
    if route and lowered.route != route:
        raise BuildError(
            f"{artefact.name} cannot be written as {format}. {'; '.join(lowered.declined)}"
        )
    places = files_of(path, format)  # sorted, what holds the weights comes first, as it has to
    files = dict(zip(sorted((folder / GRAPH).iterdir()), places[::-1], strict=True))
    known = {place.name: artefact.files[f"{GRAPH}/{file.name}"] for file, place in files.items()}
    moved(files)
    return msgspec.structs.replace(artefact, files=known)
