"""Profiles and Shifts as they are printed; see test_printed_records for `printed/`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from profiles import LAYERS, MACHINE, MEMORY, near, parts, passed, profile
from rich.cells import cell_len

from forwardpass.nouns.machines import Limits, MachineLimits, MemoryRate, ThreadRate
from forwardpass.nouns.profiles import Advice, Estimate, Parts, Profile
from forwardpass.showing.profiles import shown
from forwardpass.showing.terminal import text

PRINTED = Path(__file__).parent / "printed"
EVIL = "\x1b[31m<b>[bold]x[/]"
END_TO_END = "inductor computes a graph of its own: it is timed end to end only"


def beside() -> Profile:
    """Three Forwards: one is faster, one cannot be told apart."""
    faster = passed(
        0.8, forward="net.py | cast(bf16) @ inductor", parts=(), memory=None, lesson=None,
        notes=(END_TO_END,),
    )  # fmt: skip
    alike = passed(1.01, forward="net.py @ eager(threads=2)", parts=(), memory=None, lesson=None)
    said = "net.py | cast(bf16) @ inductor is the fastest: 1.25 × the rows/s of net.py @ eager"
    return profile(passed(), faster, alike, verdict=said)


def deep() -> Parts:
    """Parts of six equal blocks, of which one has a layer that is another."""
    blocks = tuple(
        replace(one, path=f"transformer.encoder.layer.{block}.attention.output.{one.path or 'x'}")
        for block in range(6)
        for one in LAYERS[:3]
    )
    other = replace(blocks[-1], bytes=7, bound="unknown")
    return parts(layers=(*blocks[:-1], other))


CPU = Limits(
    {"f32": 1.7e11, "bf16": 4.1e11, "f16": 4.3e9, "int8": 8e11}, 2.5e10, 0.93e-6,
    memory=(MemoryRate(1 << 18, 1.1e11, 8.5e10), MemoryRate(1 << 28, 2.5e10, 2.3e10)),
    threads=(ThreadRate(1, 9.3e10, 2.4e10), ThreadRate(2, 1.7e11, 2.5e10)),
    refused={"fp8": "no kernel for it"},
)  # fmt: skip
GPU = Limits({"f32": 5e13, "bf16": 7e14}, 2.9e12, 4e-6, memory=(MemoryRate(1 << 32, 2.9e12, 3e12),))


NOUNS: dict[str, Callable[[], Any]] = {
    "profile": profile,
    "profile_beside": beside,
    "profile_deep": lambda: profile(passed(curves=(), advice=(), parts=(deep(),))),
    "profile_bare": lambda: profile(
        passed(curves=(), advice=(Advice("throughput", 0, "no batch was computed"),), parts=(),
               memory=replace(MEMORY, live_bytes=(), why="one operator runs unseen"),
               lesson=None),
        notes=("this machine is too busy to tell: a pass differs from itself by 31 %",),
        noise=0.31,
    ),
    "shifts_none": lambda: profile().compare(profile()),
    "shifts_worse": lambda: profile(passed(1.4)).compare(profile()),
    "machine": lambda: MachineLimits(
        machine=replace(MACHINE, devices=("Example GPU",)),
        limits={"cpu": CPU, "cuda:0": GPU},
        seconds=4.2,
    ),
    "machine_busy": lambda: MachineLimits(
        machine=MACHINE,
        limits={"cpu": replace(CPU, threads=(), lost_share=0.4)},
        seconds=9.0,
        notes=("something else had the cores for 40% of the time",),
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
def test_long_names_and_large_numbers_stay_within_the_width(width: int) -> None:
    long = parts(layers=tuple(replace(one, path=f"a.very.long.path.{'x' * 90}") for one in LAYERS))
    large = passed(9e4, forward="hf:" + "x" * 200, parts=(long,))
    printed = text(profile(large, passed(9e4, forward="日本" * 60)), width)
    assert max(map(cell_len, printed.splitlines())) <= width


def test_names_of_the_user_are_no_markup_and_move_no_cursor() -> None:
    evil = passed(
        forward=EVIL, headline=EVIL, notes=(EVIL,), advice=(Advice(EVIL, 32, EVIL),),
        parts=(parts(layers=(replace(LAYERS[0], path=EVIL),), why=EVIL),),
    )  # fmt: skip
    for noun in (profile(evil, verdict=EVIL, notes=(EVIL,)), profile(evil).compare(profile(evil))):
        assert "\x1b" not in str(noun)
        assert "<b>" not in noun._repr_html_()
    assert "[bold]x[/]" in str(profile(evil))


def test_what_is_within_both_intervals_is_too_close_to_call() -> None:
    last = {line.split("  ")[0]: line for line in str(beside()).splitlines() if " rows  " in line}
    assert last["net.py @ eager(threads=2)"].endswith("too close to call")
    assert last["net.py | cast(bf16) @ inductor"].endswith("1.25 × (1.20–1.30)")


def test_long_plans_of_one_model_stand_side_by_side_without_it() -> None:
    names = [f"pkg:a_model_of_some_name/model @ {name}" for name in ("eager", "onnxruntime")]
    one, other = (passed(forward=name) for name in names)
    printed = text(profile(one, other))
    lines = [line for line in printed.splitlines() if line.startswith("@ ")]
    assert [line.split()[1] for line in lines] == ["eager", "onnxruntime"]
    assert all(name in printed for name in names)


def test_an_interval_many_times_as_wide_as_its_median_is_told_as_that() -> None:
    odd = replace(LAYERS[0], seconds=Estimate(1e-5, 1e-5, 1e-2))
    assert "10.0 µs ±>999%" in str(profile(passed(parts=(parts(layers=(odd,)),))))


def test_what_no_call_took_stands_on_a_row_of_its_own_even_below_zero() -> None:
    odd = passed(parts=(parts(unattributed=Estimate(-3e-6, -9e-6, 2e-6)),))
    row = next(line for line in str(profile(odd)).splitlines() if "unattributed" in line)
    assert "-3.00 µs" in row


def test_as_many_layers_as_are_asked_for() -> None:
    printed = text_of(shown(profile(), layers=2))
    assert printed.count("… and 4 more") == 2
    assert "head Linear" not in printed


def test_layers_that_are_alike_stand_together_and_nothing_is_lost() -> None:
    from forwardpass.showing.layers import folded

    given = deep().layers
    found = folded(given)
    assert [one.times for one in found] == [6, 6, 5, 1]
    for field in ("macs", "bytes", "calls"):
        assert sum(getattr(one.cost, field) for one in found) == sum(
            getattr(one, field) for one in given
        )
    assert sum(one.cost.seconds.median for one in found) == pytest.approx(
        sum(one.seconds.median for one in given)
    )


def text_of(drawn: Any) -> str:
    from rich.console import Console

    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()


def test_json_there_and_back() -> None:
    assert Profile.from_json(beside().to_json()) == beside()
    shifts = profile(passed(1.4)).compare(profile())
    assert type(shifts).from_json(shifts.to_json()) == shifts


def test_the_advised_batches_are_marked() -> None:
    marked = [line.split()[0] for line in str(profile()).splitlines() if "◀" in line]
    assert marked == ["8", "32"]


def test_a_median_of_zero_is_shown() -> None:
    nothing = passed(parts=(parts(whole=near(0.0), layers=(replace(LAYERS[0], seconds=near(0)),)),))
    assert "0 ns" in str(profile(nothing))
