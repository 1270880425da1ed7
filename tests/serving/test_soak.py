"""A server under everything at once stays what it was: answers, memory, descriptors, processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from soaking import Soaked, soak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def told(soaked: Soaked) -> str:
    """In a few lines, for who looks at the output of a test."""
    lines = [f"{kind}: {what}: {count:,}" for (kind, what), count in soaked.outcomes.items()]
    for role in ("", *soaked.quiet[0].memory):
        held, grew = soaked.held(role)
        lines.append(f"{role or 'all'}: {held / 2**20:.1f} MiB, grew {grew / 2**20:.2f} MiB")
    return "\n".join([f"{soaked.seconds:.0f} s", *sorted(lines)])


def test_a_server_is_the_same_after_a_while_of_everything(tmp_path: Path) -> None:
    soaked = soak(tmp_path, 10, kill_seconds=4)
    print(told(soaked))
    # What is seen in so short a time is a process that runs away; that none grows at all, the long
    # one tells: on a slow machine caches and allocators are still filling when this ends.
    assert not soaked.faults(growth=0.5)
    kinds = {kind for kind, _ in soaked.outcomes}
    assert {"fatal", "poison", "nonsense", "leaving", "kill -9 of an engine"} <= kinds
    answered = {kind for kind, what in soaked.outcomes if what == "answered"}
    assert {"texts", "numbers", "tensors", "slow to send", "slow to read"} <= answered


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_a_server_is_the_same_after_twenty_minutes_of_everything(tmp_path: Path) -> None:
    soaked = soak(tmp_path, 1_200, kill_seconds=20)
    print(told(soaked))
    assert not soaked.faults(growth=0.05)
    assert soaked.answered > 10_000
