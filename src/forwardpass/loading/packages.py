"""`package.module:name`, and `pkg:package/path`: what installed packages hold."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from forwardpass.errors import LoadError, contained, said
from forwardpass.loading.python_files import named
from forwardpass.loading.references import missing
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model


def from_module(module: str, name: str) -> Model | Forward:
    """The model called `name` in an importable module; the working folder counts as importable.

    Raises LoadError: no such module, importing it raised, or no such name in it.
    """
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        with contained():
            found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        parts = module.split(".")
        if error.name not in {".".join(parts[:end]) for end in range(1, len(parts) + 1)}:
            raise LoadError(
                f"importing {module} raised ModuleNotFoundError: {error}; "
                f"install what it needs in this environment"
            ) from error
        raise LoadError(
            f"there is no module {error.name!r} in this environment, which {module}:{name} names. "
            f"Install its package, or name the file: {parts[-1]}.py:{name}"
        ) from error
    except Exception as error:
        raise LoadError(f"importing {module} raised {said(error)}") from error
    return named(vars(found), name, f"{module}:{name}", module)


def package_path(reference: str) -> Path:
    """Where `pkg:package/path` lies. The package is found, not imported. Raises LoadError."""
    package, _, inside = reference.removeprefix("pkg:").strip("/").partition("/")
    top, *parts = package.split(".")
    if not top.isidentifier():
        raise LoadError(
            f"{reference!r}: expected pkg:package/path, for example pkg:my_package/model"
        )
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise LoadError(
            f"{reference!r}: there is no package {top!r} in this environment; "
            f"install it, for example with: pip install {top.replace('_', '-')}"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if not folders:
        raise LoadError(
            f"{reference!r}: {top!r} is a single module, not a package with files; "
            f"a model in it is named {top}:NAME"
        )
    wanted = Path(*parts, *Path(inside).parts)
    if ".." in wanted.parts:
        raise LoadError(f"{reference!r}: the path must stay inside the package")
    for folder in folders:
        if (folder / wanted).exists():
            return folder / wanted
    if not any(folder.is_dir() for folder in folders):
        raise LoadError(f"{reference!r}: {top!r} lies in an archive, not in a folder; unpack it")
    raise missing(folders[0] / wanted)
