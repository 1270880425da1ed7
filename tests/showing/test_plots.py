"""Plots: one figure a file, whatever a profile holds and however things are called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from profiles import LAYERS, MEMORY, parts, passed, profile

from forwardpass.errors import MissingExtraError, UsageError
from forwardpass.nouns.machines import Limits
from forwardpass.showing import plots

BARE = passed(parts=(), memory=None, curves=(), advice=())
PROFILES = {
    "one": profile(),
    "two": profile(passed(), passed(0.8, forward="b", parts=(), memory=None)),
    "end to end only": profile(passed(parts=(), memory=None)),
    "nothing": profile(BARE),
    "nothing multiplies": profile(passed(parts=(parts(layers=(LAYERS[4],)),))),
    "parts at one batch": profile(passed(parts=(parts(1, 0.1),))),
    "no limits": profile(limits=Limits({}, 1e10, 1e-6)),
    "one call": profile(passed(memory=replace(MEMORY, live_bytes=(8,), within_bytes=(8,)))),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_figure_of_any_profile(name: str, tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    plots.write(PROFILES[name], str(path))
    assert path.read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_png_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "PLOT.PNG"
    plots.write(profile(), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_same_profile_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plots.write(profile(), str(tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_names_are_no_formulas(tmp_path: Path) -> None:
    """A dollar sign would begin one, and a wrong one would raise."""
    evil = r"a$\frac{$.py | b_c^\x1b[0m"
    layers = (replace(LAYERS[0], path=evil), *LAYERS[1:])
    odd = passed(forward=evil, parts=(parts(1, 0.2), parts(layers=layers)))
    plots.write(profile(odd, passed(forward=evil)), str(tmp_path / "plot.svg"))


@pytest.mark.parametrize("name", ["plot.pdf", "plot", "plot.svg.gz"])
def test_another_kind_of_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"written as \.svg or \.png"):
        plots.write(profile(), str(tmp_path / name))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        plots.write(profile(), str(tmp_path / "missing" / "plot.svg"))


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'forwardpass\[plot\]'"):
        plots.write(profile(), str(tmp_path / "plot.svg"))


def test_the_settings_of_this_process_stay(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.write(profile(), str(tmp_path / "plot.svg"))
    assert dict(matplotlib.rcParams) == before
