"""Which kind a reference is, by its form and by what lies at its path."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from forwardpass.errors import LoadError
from forwardpass.loading.damage import loading, require_content
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.programs import TRUSTED, Trust

_PYTHON_FILE = re.compile(r"(?P<path>.*\.py)(?::(?P<name>[^/\\:]+))?")
_MODULE = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")
_PREFIX = re.compile(r"(?P<prefix>[A-Za-z][\w+.-]*):(?P<rest>.*)")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_FORMS = (
    "file.py, file.py:name, package.module:name, a folder, pkg:package/path, "
    "hf:org/name@revision, an artefact NAME.fwd, model.pt2, or TorchScript model.pt"
)


def resolve(reference: str, trust: Trust | None = None) -> Model | Forward:
    """What `reference` names.

    Args:
        trust: the highest class that may be opened. None: any, but of artefacts data alone.

    Raises LoadError saying what is there instead, or which class it is of.
    """
    if reference.startswith("pkg:"):
        from forwardpass.loading.packages import package_path

        return at_path(package_path(reference), reference, trust)
    if reference.startswith("hf:"):
        from forwardpass.loading.hub import downloaded

        return at_path(downloaded(reference), reference, trust)
    if match := _PYTHON_FILE.fullmatch(reference):
        from forwardpass.loading.python_files import from_file

        _require(trust, "code", reference)
        path = Path(match["path"]).expanduser()
        if not path.is_file():
            raise missing(path)
        return from_file(path, match["name"])
    path = Path(reference).expanduser()
    if path.exists():
        return at_path(path.resolve(), str(path.resolve()), trust)
    if match := _MODULE.fullmatch(reference):
        from forwardpass.loading.packages import from_module

        _require(trust, "code", reference)
        return from_module(match["module"], match["name"])
    if match := _PREFIX.fullmatch(reference):
        raise LoadError(
            f"{reference!r}: {match['prefix'] + ':'!r} is not a prefix of a model; "
            f"known are pkg: and hf:. A reference is {_FORMS}"
        )
    if _HUB_NAME.fullmatch(reference) and not Path(reference).parent.exists():
        raise LoadError(
            f"there is no file or folder {reference!r}; if it is a model of the Hugging Face hub, "
            f"write hf:{reference}"
        )
    raise missing(path)


def at_path(path: Path, origin: str, trust: Trust | None = None) -> Model | Forward:
    """The model in an existing file or folder, which another process finds at `origin`."""
    if path.suffix.lower() == ".py" and not path.is_dir():
        _require(trust, "code", origin)
        from forwardpass.loading.python_files import adopted, from_file

        return adopted(from_file(path, None), origin, str(path))
    with loading(str(path)):
        return _data_at(path, origin, trust)


def _data_at(path: Path, origin: str, trust: Trust | None) -> Model | Forward:
    if path.is_dir():
        from forwardpass.loading.artefacts import from_artefact, is_artefact

        if is_artefact(path):
            return from_artefact(path, origin, trust or "data")
        from forwardpass.loading.folders import from_folder

        return from_folder(path, origin)
    require_content(path)
    if path.suffix.lower() == ".pt2":
        from forwardpass.loading.exported_programs import from_pt2

        return from_pt2(path, origin)
    from forwardpass.loading.weight_files import from_other_file

    _require(trust, "code", origin)
    return from_other_file(path, origin)


def _require(allowed: Trust | None, needed: Trust, reference: str) -> None:
    if allowed is not None and TRUSTED.index(needed) > TRUSTED.index(allowed):
        raise LoadError(
            f"{reference} is {needed}, and no more than {allowed} may be opened: say --trust "
            f"{needed} if you trust where it came from"
        )


def missing(path: Path) -> LoadError:
    """The error for a path where nothing lies: what lies near it."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        return LoadError(f"there is no {path}, and {folder} cannot be read: {error.strerror}")
    wanted = path.relative_to(folder).parts[0] if path != folder else path.name
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
    where = f"{folder.resolve()} has no {wanted!r}"
    if close:
        return LoadError(f"there is no {path}: {where}; nearest: {', '.join(close)}")
    holds = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
    return LoadError(f"there is no {path}: {where}; it holds {holds}")
