"""What may happen to a cluster within a run: the digest is that of the undisturbed run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ray_nodes import FAULTS, ROWS, nodes, run, written

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return tmp_path


def test_whatever_is_lost_is_computed_elsewhere(folder: Path) -> None:
    with nodes(3) as cluster:
        whole = run("whole", 2)
        assert whole.rows == ROWS
        for name, fault in FAULTS.items():
            report = run(name.replace(" ", "-"), 2, lambda fault=fault: fault(cluster))
            assert report.digest == whole.digest, name
            assert report.quarantined == 0, name


@pytest.mark.soak
def test_thirty_times(folder: Path) -> None:
    counts = dict.fromkeys(FAULTS, 0)
    with nodes(3) as cluster:
        whole = run("whole", 2)
        for turn in range(8):
            for name, fault in FAULTS.items():
                if name == "node lost":
                    cluster.add_node(num_cpus=1)
                report = run(f"{turn}-{name[-4:]}", 2, lambda fault=fault: fault(cluster))
                assert report.digest == whole.digest, name
                counts[name] += 1
    assert sum(counts.values()) >= 30
