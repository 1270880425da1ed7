"""Diffs and changes as they are printed in 80 columns; `printed/` holds them.

Change a file on purpose, and look at it: FORWARDPASS_WRITE_PRINTED=1 writes them anew.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from forwardpass.nouns.calls import Site
from forwardpass.nouns.diffs import CallDiff, Diff, Error, Fork, LayerDiff, OutputDiff, Unpaired
from forwardpass.nouns.fingerprints import Changes, Deviation
from forwardpass.showing.terminal import text

PRINTED = Path(__file__).parent / "printed"
LINE = Site("model.py", 31, "Block.forward")
EVIL = "\x1b[31m[red]bold[/red]\x07" + "x" * 90


def output(relative: float = 0.0, **more: Any) -> OutputDiff:
    error = Error(relative, relative / 3, relative, 1 - relative**2)
    fields = {"path": "logits", "shape": (8, 10), "error": error, "tolerance": 3.5e-6}
    return OutputDiff(**{**fields, **more})


def layer(path: str, made: float, **more: Any) -> LayerDiff:
    fields: dict[str, Any] = {
        "path": path, "other": "", "kind": "Linear", "made": made, "relative": 2 * made,
        "tolerance": 1.2e-6, "call": 12, "site": LINE,
    }  # fmt: skip
    return LayerDiff(**{**fields, **more})


def step(**more: Any) -> CallDiff:
    fields: dict[str, Any] = {
        "a": 12, "b": 12, "operator": "aten.addmm.default", "module": "encoder.layer.3.fc",
        "site": LINE, "shape": (8, 10), "error": Error(0.2, 0.01, 0.13, 0.99), "made": 0.11,
        "tolerance": 1.2e-6,
    }  # fmt: skip
    return CallDiff(**{**fields, **more})


def same() -> Diff:
    return Diff(a="a.py @ eager", b="b.py @ eager", verdict="same", outputs=(output(),),
                floor="10 × the distance from the same pass in float64")  # fmt: skip


def rounding() -> Diff:
    return Diff(a="a.py @ eager", b="b.py @ eager", verdict="rounding", outputs=(output(2e-7),),
                layers=(layer("fc", 1e-7),), floor="10 × the distance in float64")  # fmt: skip


def differs() -> Diff:
    deep = "encoder.layer.11.attention.output.dense.inner.projection.of.something.long"
    return Diff(
        a="model.py @ eager",
        b="model.py | cast(bf16) @ eager",
        verdict="differs",
        outputs=(
            output(0.13, flips=2, rows=8),
            output(path="norms", error=Error(25.0, 3.0, sys.float_info.max, None, 4)),
        ),
        only_outputs=("hidden is in a only", "mask is [8, 1] in a, [8, 2] in b"),
        layers=(
            layer("encoder.layer.3.fc", 0.11, other="blocks.3.fc"),
            layer(deep, 0.002, relative=None),
            layer("", 12.0, kind="Net", missing=("relu only in a",)),
            *(layer(f"encoder.layer.{i}", 1e-7) for i in range(12)),
        ),
        steps=(step(),),
        first=0,
        unpaired=(
            *[Unpaired("a", 7, "aten.relu.default", "compute", "encoder.act", LINE)] * 3,
            Unpaired("b", 9, "aten.view.default", "view", "encoder", LINE),
        ),
        fork=Fork(after=LINE, a=Site("model.py", 32, "f"), b=None, counts=((LINE, 3, 4_000),)),
        floor="10 × the unit of rounding: in float64 it cannot run (TypeError: float32 only)",
        notes=("input x differs by 0.12",),
    )


def as_before() -> Changes:
    return Changes(forward="model.py @ eager", changes=(), compared=("inputs", "operators", "macs"))


def changed() -> Changes:
    changes = (
        Deviation("input x", "f32[4 64]", "f32[5 64]"),
        Deviation("aten._to_copy.default", "0 ×", "2 ×"),
        Deviation("peak_bytes", "2,048", "1,792"),
        Deviation("max of output logits", "0.54731", "0.546875"),
    )
    return Changes(forward="model.py | cast(bf16) @ eager", changes=changes, compared=("inputs",))


NOUNS = {
    "diff_same": same, "diff_rounding": rounding, "diff_differs": differs,
    "changes_none": as_before, "changes": changed,
}  # fmt: skip


@pytest.mark.parametrize("name", NOUNS)
def test_as_it_is_printed(name: str) -> None:
    printed = text(NOUNS[name]())
    assert max(map(len, printed.splitlines())) <= 80
    path = PRINTED / f"{name}.txt"
    if os.environ.get("FORWARDPASS_WRITE_PRINTED"):
        path.write_text(printed + "\n", encoding="utf-8")
    assert printed + "\n" == path.read_text(encoding="utf-8")


def test_what_comes_from_models_obeys_nothing() -> None:
    found = Diff(
        a=EVIL, b=EVIL, verdict="differs", outputs=(output(0.1, path=EVIL),),
        only_outputs=(EVIL,), layers=(layer(EVIL, 0.1, other=EVIL, missing=(EVIL,)),),
        steps=(step(module=EVIL),), first=0,
        unpaired=(Unpaired("a", 1, EVIL, "compute", EVIL, LINE),), notes=(EVIL,), floor=EVIL,
    )  # fmt: skip
    printed = text(found)
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "[red]" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert "\x1b" not in text(
        Changes(forward=EVIL, changes=(Deviation(EVIL, EVIL, EVIL),), compared=())
    )
