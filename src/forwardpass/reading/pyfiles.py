"""A name out of a Python file, by its path. Runs the file: it is the user's own code."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from forwardpass.errors import LoadError, contained, said


def import_file(path: str | Path) -> ModuleType:
    """Import the Python file at `path` under a name of its own; its folder joins `sys.path`.

    An unchanged file is imported once in a process. Raises LoadError, with the file's own error as
    its cause.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise LoadError(f"there is no Python file {path}")
    edition = f"{path}:{path.stat().st_mtime_ns}"
    name = f"forwardpass_user_{path.stem}_{hashlib.sha256(edition.encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        with contained():
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise LoadError(f"importing {path} raised {said(error)}") from error
    return module
