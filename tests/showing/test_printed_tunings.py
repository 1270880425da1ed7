"""Tunings as they are printed; see test_printed_records for `printed/`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from profiles import near
from rich.cells import cell_len
from tunings import BASELINE, KEEP, MIXED, SENSITIVITY, TRIALS, evidence, trial, tuning

from forwardpass.nouns.tunings import Evidence, Tuning
from forwardpass.showing.terminal import text

PRINTED = Path(__file__).parent / "printed"
EVIL = "\x1b[31m<b>[bold]x[/]"
FLIPS = Evidence(
    keep="flips <= 0.5%", value=0.0, bound=0.0104, limit=0.005, rows=288, holds="unproved",
    needed=598, why="0 over 288 rows, at most 0.0104 with confidence 0.95; ≤ 0.005 is asked; about "
    "598 rows would prove it",
)  # fmt: skip

NOUNS: dict[str, Callable[[], Any]] = {
    "tuning": tuning,
    "tuning_nothing_faster": lambda: tuning(
        chosen="@ eager", proved=(evidence(1.0, rows=4_096),), speedup=None, trials=TRIALS[1:4],
        sensitivity=(), pays_after_rows=None, limit_share=None, artefact=None, notes=(),
    ),
    "tuning_unproved": lambda: tuning(
        chosen="@ eager", keeps=("flips <= 0.5%",), proved=(FLIPS,), speedup=None, trials=(),
        sensitivity=(), artefact=None, calibration_rows=256, search_rows=32, final_rows=288,
    ),
    "tuning_interrupted": lambda: tuning(
        chosen="@ openvino", interrupted=True, trials=TRIALS[:3], sensitivity=(),
        proved=(evidence(0.99998), replace(evidence(0.0), keep="flips <= 0.5%", bound=0.00081,
                                           value=0.0, limit=0.005)),
        keeps=(KEEP, "flips <= 0.5%"), speedup=near(1.4),
    ),
    "tuning_latency": lambda: tuning(
        goal="latency:8", chosen="@ openvino(threads=1)", sensitivity=SENSITIVITY[6:],
        baseline=replace(BASELINE, seconds_per_batch=near(41e-3), rows_per_second=None),
        trials=(trial("@ openvino(threads=1)", 1.9, 0.9999, seconds_per_batch=near(21.6e-3)),),
    ),
    "tuning_size": lambda: tuning(
        goal="size", chosen=TRIALS[2].plan, keeps=("cosine.min >= 0.9",), speedup=None,
        proved=(replace(evidence(0.9), keep="cosine.min >= 0.9", bound=None, limit=0.9,
                        value=0.9312),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOUNS)
def test_as_it_is_printed(name: str) -> None:
    file = PRINTED / f"{name}.txt"
    printed = text(NOUNS[name]())
    if os.environ.get("FORWARDPASS_WRITE_PRINTED"):
        file.write_text(f"{printed}\n", encoding="utf-8")
    assert f"{printed}\n" == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NOUNS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    assert max(map(cell_len, text(NOUNS[name](), width).splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80])
def test_long_names_stay_within_the_width_and_whole(width: int) -> None:
    """A plan is what a user writes out again: no letter of it is left out."""
    plan = f"@ openvino(quantize=int8) where !{'a.very.long.path.' * 9}dense"
    layers = tuple(replace(one, layer="日本." * 40) for one in SENSITIVITY)
    printed = text(
        tuning(chosen=plan, trials=(trial(plan, 2.0, 0.999),), sensitivity=layers), width
    )
    assert max(map(cell_len, printed.splitlines())) <= width
    assert plan.replace(" ", "") in "".join(printed.split())


def test_names_of_the_user_are_no_markup_and_move_no_cursor() -> None:
    evil = tuning(
        forward=EVIL, chosen=EVIL, keeps=(EVIL,), notes=(EVIL,), clock=EVIL, artefact=EVIL,
        proved=(replace(evidence(0.1), keep=EVIL, why=EVIL, holds="broken"),),
        trials=(trial(EVIL, 2.0, 0.9, why=EVIL, did=(EVIL,)),
                trial(EVIL, None, None, fate="failed", why=EVIL)),
        sensitivity=(replace(SENSITIVITY[0], layer=EVIL),),
    )  # fmt: skip
    assert "\x1b" not in str(evil)
    assert "<b>" not in evil._repr_html_()
    assert "[bold]x[/]" in str(evil)


def test_json_there_and_back() -> None:
    assert Tuning.from_json(tuning().to_json()) == tuning()


@pytest.mark.parametrize(
    ("keep", "bound", "limit", "said"),
    [
        ("cosine.mean >= 0.995", 0.99613, 0.995, "at least 0.9961"),
        ("cosine.mean >= 0.9999", 0.999918, 0.9999, "at least 0.999918"),
        ("cosine.mean >= 0.995", 0.99500004, 0.995, "at least 0.995000"),
        ("flips <= 0.5%", 0.00081, 0.005, "at most 0.09%"),
        ("flips <= 0.5%", 0.00499, 0.005, "at most 0.4990%"),
        ("kl.mean <= 0.01", 0.0, 0.01, "at most 0.000"),
    ],
)
def test_a_bound_is_never_rounded_to_claim_more(
    keep: str, bound: float, limit: float, said: str
) -> None:
    proved = replace(evidence(bound), keep=keep, limit=limit)
    printed = " ".join(str(tuning(proved=(proved,), keeps=(keep,))).split())
    assert f"({said})" in printed


def test_plans_with_one_reason_stand_together() -> None:
    assert "@ inductor · @ aot: no compiler" in str(tuning())
    late = tuple(trial(f"@ p{n}", None, None, fate="not tried", why="no time") for n in range(9))
    assert "not tried  @ p0 · @ p1 and 7 more: no time" in str(tuning(trials=late))


def test_the_layers_that_stayed_and_what_each_would_have_cost() -> None:
    lines = str(tuning()).splitlines()
    begin = lines.index("6 of 8 layers stayed in full precision")
    assert "encoder.layer.0.output.dense" in lines[begin + 3]
    assert "0.0021" in lines[begin + 3]


def test_the_chosen_plan_is_marked_and_stands_first() -> None:
    rows = [line for line in str(tuning()).splitlines()[5:] if line and line[0] in "▶✓✗·"]
    assert [line[0] for line in rows] == ["▶", "·", "✗", "✗", "·"]  # ✓: on final rows
    assert MIXED.startswith(rows[0][1:].strip().split("  ")[0])
