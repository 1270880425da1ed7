"""Memory that is free, and by how much its peak grows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from forwardpass.measuring import memory
from forwardpass.measuring.memory import available_bytes, peak_growth, total_bytes

MIB = 1 << 20


def test_what_is_free_is_part_of_what_there_is() -> None:
    assert 0 < available_bytes("cpu") <= total_bytes()


_GROWING = """
import numpy as np
from forwardpass.measuring.memory import peak_growth

MIB = 1 << 20
with peak_growth("cpu") as growth:
    for _ in range(3):
        held = np.ones(64 * MIB, dtype=np.uint8)
        del held
    inside = growth.bytes
assert 48 * MIB < inside < 160 * MIB, inside
larger = np.ones(200 * MIB, dtype=np.uint8)
assert growth.bytes < 160 * MIB, growth.bytes
del larger
with peak_growth("cpu") as again:
    pass
assert again.bytes < 32 * MIB, again.bytes
"""


_LONG_LIVED = """
import numpy as np
from forwardpass.measuring.memory import peak_growth

# Blocks below the size from which each has memory of its own; the last one keeps what lies below it
# from going back to the system.
before = [np.ones(100_000, np.uint8) for _ in range(2_000)]
last = np.ones(100_000, np.uint8)
del before
with peak_growth("cpu") as growth:
    held = [np.ones(100_000, np.uint8) for _ in range(1_000)]
assert 80_000_000 < growth.bytes < 160_000_000, growth.bytes
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc gives freed memory back")
def test_what_was_freed_before_hides_no_growth() -> None:
    subprocess.run([sys.executable, "-c", _LONG_LIVED], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process")
def test_the_peak_grows_by_what_was_held_at_once_though_it_is_free_again() -> None:
    """In a process of its own: what other tests freed may go back to the system meanwhile."""
    subprocess.run([sys.executable, "-c", _GROWING], check=True)


def test_a_cgroup_bounds_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files as a kernel of version 2 lays them out, in place of this machine's own."""
    (tmp_path / "memory.max").write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{70 * MIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {20 * MIB}\n")
    monkeypatch.setattr(memory, "_cgroups", lambda: [("memory.max", "memory.current", tmp_path)])
    assert total_bytes() == 100 * MIB
    assert available_bytes("cpu") == 50 * MIB
    (tmp_path / "memory.max").write_text("max\n")
    assert total_bytes() > 100 * MIB


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_peak_of_a_gpu() -> None:
    with peak_growth("cuda") as growth:
        held = torch.ones(64 * MIB, dtype=torch.uint8, device="cuda")
        del held
    assert growth.bytes == 64 * MIB
    assert available_bytes("cuda") > 64 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="what glibc does with what is freed")
def test_what_a_process_keeps_comes_without_page_faults() -> None:
    program = (
        "import resource, sys; from forwardpass.measuring.memory import keep_freed, settle_freed\n"
        "if sys.argv[1:] == ['kept']: keep_freed(1 << 26)\n"
        "if sys.argv[1:] == ['settled']: settle_freed()\n"
        "def faults():\n"
        "    began = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): parts = [bytes(1 << 20) for _ in range(8)]; del parts\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began\n"
        "faults(); print(faults())"
    )

    def faults(*arguments: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", program, *arguments]))

    assert faults("kept") < 2_048  # pages of one round of 8 MiB
    assert faults("settled") < 2_048
    assert faults("kept") < faults()
