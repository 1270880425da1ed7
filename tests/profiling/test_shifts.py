"""Shifts: what is worse is said, what cannot be told is not; no machine is blamed on a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from profiles import LAYERS, LIMITS, MACHINE, MEMORY, near, parts, passed, profile

from forwardpass.errors import DataError, UsageError
from forwardpass.measuring.timings import timing
from forwardpass.nouns.profiles import Estimate, Profile
from forwardpass.profiling.shifts import opened


def test_a_profile_beside_itself_has_not_moved() -> None:
    shifts = profile().compare(profile())
    assert {shift.verdict for shift in shifts.shifts} == {"alike"}
    assert all(shift.ratio.median == pytest.approx(1) for shift in shifts.shifts)
    assert not shifts.notes


@pytest.mark.parametrize(("scale", "verdict"), [(1.4, "worse"), (1 / 1.4, "better")])
def test_what_is_beyond_intervals_and_noise_has_moved(scale: float, verdict: str) -> None:
    shifts = profile(passed(scale)).compare(profile())
    moved = {shift.name: shift.verdict for shift in shifts.shifts if shift.verdict != "alike"}
    assert moved["batch 1"] == moved["batch 32: blocks.0.conv (Conv2d)"] == verdict
    assert set(moved.values()) == {verdict}


@given(scale=st.floats(0.2, 5.0), share=st.floats(0.0, 0.5), noise=st.floats(0.0, 0.5))
def test_nothing_is_both_worse_and_better(scale: float, share: float, noise: float) -> None:
    """Swap the two, and every verdict turns round; what is worse is so beyond noise."""
    one = profile(passed(parts=(parts(whole=near(1e-3, share)),)), noise=noise)
    other = profile(passed(scale), noise=noise)
    there, back = one.compare(other), other.compare(one)
    turned = {"worse": "better", "better": "worse", "alike": "alike"}
    assert [s.verdict for s in back.shifts] == [turned[s.verdict] for s in there.shifts]
    for shift in there.regressed:
        assert not shift.after.overlaps(shift.before)
        assert shift.unit == "bytes" or shift.ratio.low > 1 + noise


def test_a_small_layer_that_moves_within_the_noise_of_its_pass_is_no_regression() -> None:
    """0.5 µs more of a layer of 4 µs are nothing that anybody sees of a pass of 2 ms."""
    slow = replace(LAYERS[-1], seconds=near(6e-6))
    now = passed(parts=(parts(layers=(*LAYERS[:-1], slow)),))
    then = passed(parts=(parts(layers=LAYERS),))
    assert not profile(now).compare(profile(then)).regressed


def test_what_other_work_may_have_added_is_no_shift() -> None:
    """Threads that waited for a core half of their time would have taken half as long without."""
    slower, far = passed(1.8), passed(3.0)
    assert profile(slower).compare(profile()).regressed
    busy = profile(slower, lost_share=0.5).compare(profile())
    assert not [shift for shift in busy.regressed if shift.unit == "seconds"]
    assert "for 50% of the time of the newer profile" in busy.notes[0]
    assert profile(far, lost_share=0.5).compare(profile()).regressed


def test_memory_that_grew_is_said() -> None:
    now = passed(memory=replace(MEMORY, peak_bytes=2 * MEMORY.peak_bytes))
    (grown,) = profile(now).compare(profile()).regressed
    assert (grown.unit, grown.name, grown.ratio.median) == ("bytes", "batch 32: peak of memory", 2)


def test_another_machine_is_refused() -> None:
    other = profile(machine=replace(MACHINE, cpu="Another CPU"))
    with pytest.raises(UsageError, match=r"another machine \(Another CPU.*profile both on one"):
        profile().compare(other)


def test_a_machine_that_became_slower_is_refused() -> None:
    halved = {dtype: rate / 2 for dtype, rate in LIMITS.matmul_flops_per_second.items()}
    slow = profile(passed(2.0), limits=replace(LIMITS, matmul_flops_per_second=halved))
    with pytest.raises(UsageError, match=r"multiplies f32 0\.50 × as fast as when"):
        slow.compare(profile())


def test_limits_that_were_measured_beside_other_work_refuse_nothing() -> None:
    """What it could do then was not what it can do."""
    halved = {dtype: rate / 2 for dtype, rate in LIMITS.matmul_flops_per_second.items()}
    busy = replace(LIMITS, matmul_flops_per_second=halved, lost_share=0.4)
    notes = profile(limits=busy).compare(profile()).notes
    assert "multiplied f32 0.50 × as fast as when the older profile was made" in notes[0]
    assert "other work had the cores for 40% of that time" in notes[0]


@pytest.mark.parametrize("rounds", [3, 5, 10, 100])
def test_of_profiles_of_one_model_on_one_machine_hardly_a_figure_is_called_worse(
    rounds: int,
) -> None:
    """The machine is quicker for a while, then slower, by 5 %, and each figure scatters."""
    generator = np.random.default_rng(0)

    def again(value: float) -> Estimate:
        levels = np.repeat(generator.normal(1.0, 0.05, 10), -(-rounds // 10))[:rounds]
        return timing((value * levels * generator.normal(1.0, 0.02, rounds)).tolist()).estimate

    def made() -> Profile:
        points = [replace(p, seconds=again(p.seconds.median)) for p in passed().curves[0].points]
        layers = [replace(one, seconds=again(one.seconds.median)) for one in LAYERS]
        curve = replace(passed().curves[0], points=tuple(points))
        inside = parts(layers=tuple(layers), noise=0.0)
        return profile(passed(curves=(curve,), parts=(inside,)), noise=0.0)

    shifts = [s for _ in range(20) for s in made().compare(made()).shifts if s.unit == "seconds"]
    assert np.mean([shift.after.overlaps(shift.before) for shift in shifts]) >= 0.9
    assert np.mean([shift.verdict == "worse" for shift in shifts]) <= 0.05


def test_another_version_is_compared_and_said() -> None:
    """Whether a new version is slower is what one asks."""
    now = profile(machine=replace(MACHINE, library="torch 2.14.0 (AVX512)", threads=1))
    assert now.compare(profile()).notes == (
        "library: torch 2.14.0 (AVX512), then torch 2.13.0 (AVX512)",
        "threads: 1, then 2",
    )


def test_other_forwards_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no figure of b\.py @ eager .* of net\.py @ eager"):
        profile(passed(forward="b.py @ eager")).compare(profile())


def test_a_checkout_in_another_folder_is_the_same_forward() -> None:
    then = profile(passed(forward="/a/net.py @ eager"))
    assert profile(passed(forward="/b/c/net.py @ eager")).compare(then).shifts
    with pytest.raises(UsageError, match="no figure"):
        profile(passed(forward="/b/c/net.py | cast(bf16) @ eager")).compare(then)
    two = profile(passed(forward="/a/net.py @ eager"), passed(forward="/b/net.py @ eager"))
    with pytest.raises(UsageError, match="no figure"):  # of which of the two?
        profile(passed(forward="/c/net.py @ eager")).compare(two)


def test_what_has_no_counterpart_is_noted() -> None:
    fewer = passed(curves=(replace(passed().curves[0], points=passed().curves[0].points[:2]),))
    notes = profile(fewer, passed(forward="b")).compare(profile()).notes
    assert any(note.startswith("net.py @ eager: not measured now: batch 4") for note in notes)
    assert "b: the older profile has no such Forward" in notes


def test_another_dtype_is_not_compared() -> None:
    now = profile(passed(dtype="bf16"), passed(forward="b"))
    shifts = now.compare(profile(passed(), passed(forward="b")))
    assert {shift.forward for shift in shifts.shifts} == {"b"}
    assert "computes in bf16 on cpu, then in f32 on cpu" in shifts.notes[0]


def test_figures_of_zero_have_no_ratio_and_no_verdict() -> None:
    zero = Estimate(0.0, 0.0, 0.0)
    nothing = passed(parts=(parts(layers=(replace(LAYERS[0], seconds=zero),)),))
    shifts = profile(nothing).compare(profile(nothing))
    assert not shifts.regressed
    assert str(shifts)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no profile"),
        ("{}", "holds no profile"),
        ("\x00\x01", "holds no profile"),
        ("[1, 2]", "holds no profile"),
        ('{"schema": "forwardpass/run/1"}', "is forwardpass/run/1, and no profile"),
        ('{"schema": "forwardpass/profile/9"}', "of another version of forwardpass"),
        ('{"schema": "forwardpass/profile/1"}', "damaged"),
        (profile().to_json()[:500], "holds no profile"),
    ],
)
def test_a_file_that_is_none(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        opened(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        opened(tmp_path / "old.json")


def test_a_file_that_is_one(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(profile().to_json())
    assert opened(path) == profile()
