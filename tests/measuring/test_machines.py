"""The machine says what it is; its limits are measured once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from forwardpass.measuring import machines
from forwardpass.measuring.machines import Machine, limits, machine


def test_the_digest_changes_with_versions_and_not_with_a_few_bytes_of_memory() -> None:
    here = machine("cpu")
    assert here == machine("cpu")
    assert len(here.digest) == 16
    assert here.cores >= 1
    assert here.threads >= 1
    assert here.devices == ()
    assert here.cpu in str(here)
    assert msgspec.json.decode(msgspec.json.encode(here), type=Machine) == here
    memory = 8 << 30
    assert (
        msgspec.structs.replace(here, memory_bytes=memory).digest
        == msgspec.structs.replace(here, memory_bytes=memory + 4_096).digest
    )
    assert msgspec.structs.replace(here, torch="0.0").digest != here.digest


def test_limits_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    found = limits("cpu")
    assert found.matmul_flops_per_second["f32"] > 1e8
    assert found.copy_bytes_per_second > 1e7
    assert 0 < found.dispatch_seconds < 1e-2
    monkeypatch.setattr(machines, "measure", None)  # a second measurement would fail
    assert limits("cpu") == found
