"""What may happen to a cluster within a run: the digest is that of the undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray_nodes import ROWS, SOURCE, disturbed, nodes, run, written

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", SOURCE)  # not all of sys.path, to which other tests add
    return tmp_path


@pytest.mark.parametrize(
    "turns", [1, pytest.param(6, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])]
)
def test_whatever_is_lost_is_computed_elsewhere(folder: Path, turns: int) -> None:
    with nodes(3) as cluster:
        whole = run("whole")
        assert whole.rows == ROWS
        for name, report in disturbed(cluster, turns):
            assert report.digest == whole.digest, name
            assert (report.rows, report.quarantined) == (ROWS, 0), name
            assert report.device == whole.device, name
