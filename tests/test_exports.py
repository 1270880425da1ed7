"""What is public: the verbs, `load`, and the nouns. Nothing before it is built, nothing besides."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import forwardpass as fwd

PUBLIC = [
    "Artefact",
    "Diff",
    "Encoded",
    "Explanation",
    "Finding",
    "Findings",
    "Forward",
    "ForwardpassError",
    "Model",
    "Plan",
    "Profile",
    "Ray",
    "Record",
    "Recording",
    "Rows",
    "RunReport",
    "Server",
    "Signature",
    "Tuning",
    "Validation",
    "Watched",
    "check",
    "diff",
    "explain",
    "export",
    "load",
    "profile",
    "record",
    "run",
    "serve",
    "tune",
    "watch",
]


def test_all_is_what_it_is_and_sorted() -> None:
    assert fwd.__all__ == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there_and_documented(name: str) -> None:
    value = getattr(fwd, name)
    assert value.__doc__
    assert value.__name__ == name


def test_dir_lists_the_public_names_and_the_version() -> None:
    assert sorted(dir(fwd)) == sorted([*PUBLIC, "__version__"])
    assert fwd.__version__ == metadata.version("forwardpass")


def test_star_import_brings_these_and_nothing_else() -> None:
    program = (
        "before = set(globals())\nfrom forwardpass import *\n"
        "print(*sorted(set(globals()) - before - {'before'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == PUBLIC


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'forwardpass' has no attribute 'runn'"):
        fwd.runn  # noqa: B018


def test_modules_of_the_rooms_do_not_hide_verbs() -> None:
    """`fwd.run` stays the verb, whatever was imported: rooms end in -ing, nouns in -s."""
    program = (
        "import forwardpass as fwd, importlib, pkgutil\n"
        "rooms = [m.name for m in pkgutil.iter_modules(fwd.__path__)]\n"
        "print(*sorted(set(rooms) & set(fwd.__all__)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
