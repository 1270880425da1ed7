"""A function of the user's in a whole search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from simulated import ROWS, Simulated, Simulation, backends, kinds

from forwardpass.errors import UsageError
from forwardpass.measuring.machines import machine
from forwardpass.nouns.budgets import budget
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.progress import Steps
from forwardpass.tuning.aims import Aim
from forwardpass.tuning.conducting import Conducted, conducted
from forwardpass.tuning.deadlines import Deadline
from forwardpass.tuning.gauges import Gauge
from forwardpass.tuning.ledgers import Ledger
from forwardpass.tuning.workbenches import Workbench
from forwardpass.tuning.workshops import Candidate

TABLE = kinds(openvino=Simulated(1.7, 0.001), onnxruntime=Simulated(3.0, 0.9))


def tuned(function: Any, limit: str, folder: Path) -> tuple[Workbench, Conducted]:
    simulation = Simulation(backends(TABLE))
    bench = Workbench(
        simulation, Candidate("@ eager", None), ROWS, Gauge(budget((function, limit)), {}),
        Aim.parse("throughput"), Deadline(None, simulation.clock), Ledger(folder, "one"), Steps(),
    )  # fmt: skip
    given = Plan.parse("@ eager")
    return bench, conducted(bench, given, tuple, machine(), "data", lambda plan: None)


def spread(predictions: dict[str, Any], labels: Any) -> Any:
    if predictions["output"].std() > 1.2:
        raise ValueError("these are too wide")
    return predictions["output"].std(1)


def test_one_that_raises_of_a_candidate_ends_its_trial_alone(tmp_path: Path) -> None:
    bench, came = tuned(spread, "<= baseline + 2%", tmp_path)
    assert came.choice.plan == "@ openvino"
    failed = bench.trials["@ onnxruntime"]
    assert failed.fate == "failed"
    assert "spread(predictions, labels) of the candidate raised ValueError: these" in failed.why


def test_one_that_the_baseline_breaks_ends_the_tuning(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the baseline itself is at"):
        tuned(spread, ">= 5", tmp_path)
