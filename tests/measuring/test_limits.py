"""The limits of this machine are measured once."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwardpass.measuring import limits as measuring
from forwardpass.measuring.limits import limits


def test_limits_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    found = limits("cpu")
    assert found.matmul_flops_per_second["f32"] > 1e8
    assert found.copy_bytes_per_second > 1e7
    assert 0 < found.dispatch_seconds < 1e-2
    monkeypatch.setattr(measuring, "measure", None)  # a second measurement would fail
    assert limits("cpu") == found
