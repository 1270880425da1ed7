"""The machine says what it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from forwardpass.measuring import machines
from forwardpass.measuring.machines import machine, pytorch
from forwardpass.nouns.machines import Machine

ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes crc32 atomics asimdhp sve asimddp i8mm bf16 dcpodp
CPU part\t: 0xd40

processor\t: 1
"""
X86 = """processor\t: 0
model name\t: Some CPU: @ 2.40GHz
flags\t\t: fpu sse2 smep smap avx f16c fma avx2 avx512f avx512_vnni amx_tile amx_int8 vnmi
bugs\t\t: spectre_v1
"""


def test_the_digest_changes_with_versions_and_not_with_a_few_bytes_of_memory() -> None:
    here = machine()
    assert here == machine("cpu")
    assert len(here.digest) == 16
    assert here.cores >= 1
    assert (here.library, here.threads, here.devices) == ("", 0, ())
    assert here.cpu in str(here)
    assert msgspec.json.decode(msgspec.json.encode(here), type=Machine) == here
    memory = 8 << 30
    assert (
        msgspec.structs.replace(here, memory_bytes=memory).digest
        == msgspec.structs.replace(here, memory_bytes=memory + 4_096).digest
    )
    assert machine(library="torch 0.0").digest != here.digest
    assert machine(threads=2).digest != here.digest


def test_pytorch_says_its_version_and_what_its_kernels_use() -> None:
    assert pytorch().startswith(f"torch {torch.__version__} (")
    assert torch.backends.cpu.get_cpu_capability() in pytorch()


@pytest.mark.parametrize(
    ("listing", "cpu", "instructions"),
    [
        (X86, "Some CPU: @ 2.40GHz",
         ("amx_int8", "amx_tile", "avx", "avx2", "avx512_vnni", "avx512f", "f16c", "fma")),
        (ARM, "", ("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve")),
        ("", "", ()),
    ],
)  # fmt: skip
def test_the_vector_instructions_are_those_that_the_kernel_lists(
    listing: str, cpu: str, instructions: tuple[str, ...],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    told = tmp_path / "cpuinfo"
    told.write_text(listing, encoding="utf-8")
    monkeypatch.setattr(machines, "_CPUS", told)
    here = machine()
    assert here.instructions == instructions
    assert not cpu or here.cpu == cpu
