"""Laws of the search, on plans whose errors and speeds are known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from simulated import ROWS, Simulated, Simulation, backends, kinds

from forwardpass.errors import BuildError, PassError, UsageError
from forwardpass.measuring.machines import machine
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.tunings import Evidence, Trial
from forwardpass.tuning.aims import Aim
from forwardpass.tuning.conducting import Conducted, conducted
from forwardpass.tuning.deadlines import Deadline
from forwardpass.tuning.ledgers import Ledger, begun
from forwardpass.tuning.stations import failure
from forwardpass.tuning.workbenches import Workbench
from forwardpass.tuning.workshops import (
    Candidate,
    Outputs,
    PartName,
    PassingTrialError,
    TrialError,
)

LIMIT = 0.5


class ByError:
    """The mean of the largest error of each row, by a bound of three standard errors."""

    def __call__(
        self, baseline: Outputs, came: Outputs, part: PartName, looks: int
    ) -> tuple[Evidence, ...]:
        errors = np.abs(np.asarray(baseline["output"]) - np.asarray(came["output"])).max(axis=1)
        value = float(errors.mean())
        half = 3 * float(errors.std()) / len(errors) ** 0.5
        holds = "kept" if value + half <= LIMIT else "broken" if value - half > LIMIT else ""
        return (
            Evidence(
                keep=f"error <= {LIMIT}", value=value, bound=value + half, limit=LIMIT,
                rows=len(errors), holds=holds or "unproved", why=f"the error is {value:.2f}",
            ),
        )  # fmt: skip

    def require_kept(self, baseline: Outputs, part: PartName) -> None:
        assert part == "final"


def tuned(
    simulation: Simulation, folder: Path, goal: str = "throughput", minutes: float | None = None,
    cores: int = 0,
) -> tuple[Workbench, Conducted]:  # fmt: skip
    deadline = Deadline(None if minutes is None else 60 * minutes, simulation.clock)
    ledger = Ledger(folder, "one")
    bench = Workbench(
        simulation, Candidate("@ eager", None), ROWS, ByError(), Aim.parse(goal), deadline, ledger,
        Steps(),
    )  # fmt: skip
    here = msgspec.structs.replace(machine(), cores=cores or machine().cores)
    return bench, conducted(bench, Plan.parse("@ eager"), tuple, here, "data", lambda plan: None)


def test_the_fastest_that_keeps_the_budget_is_chosen(tmp_path: Path) -> None:
    table = kinds(
        openvino=Simulated(1.7, 0.001),
        onnxruntime=Simulated(1.3, 0.001),
        **{"openvino(quantize=int8)": Simulated(3.0, 0.9)},
        **{"onnxruntime(quantize=int8)": Simulated(2.1, 0.1)},
    )
    bench, came = tuned(Simulation(backends(table)), tmp_path)
    assert came.choice.plan == "@ onnxruntime(quantize=int8)"
    assert came.choice.speedup is not None
    assert came.choice.speedup.low < 2.1 < came.choice.speedup.high * 1.02
    assert all(one.holds == "kept" and one.rows == ROWS["final"] for one in came.choice.proved)
    assert bench.trials["@ openvino(quantize=int8)"].fate == "dropped"
    assert "the error is" in bench.trials["@ openvino(quantize=int8)"].why
    assert bench.trials["@ torchscript"].fate == "not tried"
    assert "--trust code" in bench.trials["@ torchscript"].why


@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_is_proved_and_better_beyond_noise(seed: int, tmp_path: Path) -> None:
    """Speeds, errors, noise and failures at random: what is chosen keeps the budget and is faster,
    no trial sees the final rows, and time is kept."""
    draw = np.random.default_rng(seed)
    names = [
        "openvino", "onnxruntime", "inductor", "openvino(quantize=int8)",
        "onnxruntime(quantize=int8)", "openvino(quantize=int8, weight_only=true)",
    ]  # fmt: skip
    table = kinds()
    for name in names:
        table[name] = Simulated(
            speed=float(draw.uniform(0.5, 3)),
            error=float(draw.choice([0.001, 0.1, 0.3, 0.35, 1.0])),
            seconds=float(draw.uniform(0, 40)),
            raises=TrialError("killed by signal 4") if draw.random() < 0.2 else None,
            breaks_when=str(draw.choice(["", "", "", "final", "search"])),
        )
    minutes = float(draw.choice([0.2, 1, 2, 10]))
    simulation = Simulation(backends(table), noise=float(draw.uniform(0, 0.2)), seed=seed)
    bench, came = tuned(simulation, tmp_path, minutes=minutes)
    chosen = table[came.choice.plan.removeprefix("@ ")]
    assert simulation.now <= 60 * minutes
    assert came.choice.proved
    assert bench.trials[came.choice.plan].fate == "kept" or came.choice.made is None
    if came.choice.plan != "@ eager":
        assert all(one.holds == "kept" for one in came.choice.proved)
        assert came.choice.speedup is not None
        assert came.choice.speedup.low > 1
        assert chosen.speed > 1
        assert chosen.error < 1
    seen = [plan for plan, part in simulation.seen if part == "final"]
    assert len(set(seen)) <= 5  # the baseline, and so many looks
    for trial in bench.trials.values():
        assert trial.why, trial


def test_what_is_no_faster_stays_as_it_was(tmp_path: Path) -> None:
    table = kinds(openvino=Simulated(1.0), onnxruntime=Simulated(0.99), inductor=Simulated(1.003))
    for seed in range(5):
        _, came = tuned(Simulation(backends(table), seed=seed, noise=0.05), tmp_path / str(seed))
        assert came.choice.plan == "@ eager"
        assert came.choice.speedup is None
        assert came.choice.made is not None
        assert all(one.holds == "kept" for one in came.choice.proved)


@pytest.mark.parametrize("part", ["search", "final"])
def test_an_artefact_of_the_given_plan_that_fails_is_not_left(
    tmp_path: Path, part: PartName
) -> None:
    table = kinds(eager=Simulated(breaks_when=part))
    _, came = tuned(Simulation(backends(table)), tmp_path)
    assert came.choice.plan == "@ eager"
    assert came.choice.made is None
    assert any("no artefact of @ eager is left: its process was" in note for note in came.notes)


def test_a_second_call_takes_up_what_was_tried(tmp_path: Path) -> None:
    table = kinds(onnxruntime=Simulated(1.7, seconds=30), openvino=Simulated(2.1, seconds=30))
    first = Simulation(backends(table))
    _, short = tuned(first, tmp_path, minutes=1.2)
    second = Simulation(backends(table))
    _, came = tuned(second, tmp_path)
    whole = Simulation(backends(table))
    _, alone = tuned(whole, tmp_path / "other")
    assert short.choice.plan == "@ onnxruntime"
    assert came.choice.plan == alone.choice.plan == "@ openvino"
    third = Simulation(backends(table))
    _, again = tuned(third, tmp_path)
    assert again.choice.plan == came.choice.plan
    assert third.made == ["@ eager", "@ openvino"]


def test_ctrl_c_leaves_the_best_so_far(tmp_path: Path) -> None:
    def plan(text: str) -> Simulated:
        if text == "@ openvino(quantize=int8)":
            raise KeyboardInterrupt
        return backends(kinds(openvino=Simulated(1.7), onnxruntime=Simulated(1.2)))(text)

    _, came = tuned(Simulation(plan), tmp_path)
    assert came.interrupted
    assert came.choice.plan == "@ openvino"
    slow = Simulation(plan, rate=20.0)
    _, came = tuned(slow, tmp_path / "slow")
    assert came.interrupted
    assert came.choice.plan == "@ eager"
    assert any("@ openvino came first so far" in note for note in came.notes)


def test_a_baseline_that_cannot_be_computed_is_said(tmp_path: Path) -> None:
    simulation = Simulation(backends(kinds()))
    simulation.until = 0.0

    def spend(seconds: float) -> None:
        raise TrialError("its process was killed")

    simulation.spend = spend  # type: ignore[method-assign]
    with pytest.raises(PassError, match="@ eager cannot be computed: its process"):
        tuned(simulation, tmp_path)


def test_no_time_for_the_baseline_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give more minutes, or fewer rows"):
        tuned(Simulation(backends(kinds()), rate=0.1), tmp_path, minutes=0.5)


def test_a_slow_model_is_looked_at_on_fewer_rows(tmp_path: Path) -> None:
    simulation = Simulation(backends(kinds(openvino=Simulated(2.0, 0.001))), rate=5.0)
    bench, came = tuned(simulation, tmp_path, minutes=10)
    assert 8 <= bench.few < 64
    assert came.choice.plan == "@ openvino"
    assert simulation.now <= 600


def test_goals(tmp_path: Path) -> None:
    table = kinds(
        openvino=Simulated(1.7, peak_bytes=900, bytes=300),
        onnxruntime=Simulated(1.1, peak_bytes=400, bytes=80),
    )
    for goal, plan in {
        "memory": "@ onnxruntime", "size": "@ onnxruntime", "latency:4": "@ openvino",
        "pareto": "@ openvino",
    }.items():  # fmt: skip
        bench, came = tuned(Simulation(backends(table)), tmp_path / goal, goal)
        assert came.choice.plan == plan, goal
        if goal == "pareto":
            both = [bench.trials[name] for name in ("@ openvino", "@ onnxruntime")]
            assert all(trial.fate == "kept" for trial in both)
        if goal.startswith("latency"):
            assert bench.trials[plan].seconds_per_batch is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed", "there is none called so"),
        ("latency", "write latency:8"),
        ("latency:0", "how many rows"),
        ("size:3", "write size"),
    ],
)
def test_goals_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Aim.parse(text)


def test_a_disk_that_is_full_ends_no_tuning(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "one")
    (tmp_path / "trials.jsonl").unlink()
    (tmp_path / "trials.jsonl").mkdir()
    ledger.write(Trial(plan="@ eager", fate="kept", why="made"))
    assert list(ledger.known) == ["@ eager"]
    assert "could not be written to the end" in ledger.refused[0]


def test_what_differs_in_how_it_is_opened_is_not_taken_for_as_dear(tmp_path: Path) -> None:
    """A graph took a minute; with other threads it is there, and a minute is not left."""
    table = kinds(openvino=Simulated(2.0, seconds=60))
    for name in ("threads=1", "threads=2", "threads=1, streams=2", "threads=2, streams=1"):
        speed = 3.0 if "streams=2" in name else 1.5
        table[f"openvino({name})"] = Simulated(speed, seconds=2)
    _, came = tuned(Simulation(backends(table)), tmp_path, minutes=2.0, cores=2)
    assert came.choice.plan == "@ openvino(threads=1, streams=2)"


def test_with_more_time_nothing_slower_is_chosen(tmp_path: Path) -> None:
    """What others take to be built does not cost the best so far the time to be proved."""
    slow = ("onnxruntime", "openvino", "openvino(quantize=int8, weight_only=true)", "inductor")
    table = kinds(**dict.fromkeys(slow, Simulated(1.5, seconds=60)))
    table["openvino(quantize=int8)"] = Simulated(5.0, 0.001, seconds=10)
    chosen: list[bool] = []
    for minutes in np.arange(1.5, 14, 0.25):
        simulation = Simulation(backends(table), rate=20.0)
        _, came = tuned(simulation, tmp_path / f"{minutes}", minutes=float(minutes))
        assert simulation.now <= 60 * minutes
        chosen.append(came.choice.plan == "@ openvino(quantize=int8)")
    assert chosen == sorted(chosen)
    assert sum(chosen) > len(chosen) / 2


@pytest.mark.parametrize(("minutes", "seconds"), [(2.0, 4.0), (5.0, 6.0), (60.0, 12.0)])
def test_the_gate_takes_a_share_of_the_time(tmp_path: Path, minutes: float, seconds: float) -> None:
    """Sizes of batches are looked for as long, once; less is not worth it."""
    simulation = Simulation(backends(kinds(openvino=Simulated(2.0))))
    _, came = tuned(simulation, tmp_path, minutes=minutes)
    assert came.choice.plan == "@ openvino"
    first, *others = simulation.fresh[1:]  # after the baseline by itself
    assert first == pytest.approx((seconds, max(5.0, seconds)))
    assert others == [pytest.approx((seconds, 5.0))] * 2


def test_what_the_disk_had_no_room_for_is_tried_by_another_call(tmp_path: Path) -> None:
    refused = BuildError("the graph could not be written")
    try:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"a graph")
    except OSError as error:
        refused.__cause__ = error
    full = failure(refused, making=True)
    assert isinstance(full, PassingTrialError)
    table = kinds(openvino=Simulated(3.0, raises=full), onnxruntime=Simulated(1.5))
    bench, came = tuned(Simulation(backends(table)), tmp_path)
    assert came.choice.plan == "@ onnxruntime"
    trial = bench.trials["@ openvino"]
    assert trial.fate == "not tried"
    assert trial.why.startswith("the disk is full: the graph could not be written")
    assert "@ openvino" not in Ledger(tmp_path, "one").known
    table["openvino"] = Simulated(3.0)
    assert tuned(Simulation(backends(table)), tmp_path)[1].choice.plan == "@ openvino"


def test_a_journal_that_was_cut_off_loses_its_last_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "one")
    ledger.write(Trial(plan="@ eager", fate="kept", why="made"))
    ledger.write(Trial(plan="@ openvino", fate="kept", why="made"))
    file = tmp_path / "trials.jsonl"
    file.write_bytes(file.read_bytes()[:-5])
    again = Ledger(tmp_path, "one")
    assert list(again.known) == ["@ eager"]
    again.write(Trial(plan="@ aot", fate="failed", why="it crashed"))
    assert list(Ledger(tmp_path, "one").known) == ["@ eager", "@ aot"]
    assert not Ledger(tmp_path, "other").known
    assert not Ledger(tmp_path, "one", ("8", "8", "8")).known, "judged on other rows"


def test_a_tuning_has_begun_before_its_first_trial(tmp_path: Path) -> None:
    assert not begun(tmp_path, "one")
    Ledger(tmp_path, "one", ("4", "4", "8"))
    assert begun(tmp_path, "one")
    assert not begun(tmp_path, "other")
