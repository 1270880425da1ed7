"""This machine alone: what it is, and the most that its devices can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from msgspec.structs import replace

from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.limits import limits
from forwardpass.measuring.machines import machine, pytorch
from forwardpass.nouns.machines import BUSY, Limits, MachineLimits


def machine_limits() -> MachineLimits:
    """The limits of the CPU and of each device that PyTorch has here: measured in a few seconds,
    or kept from before."""
    began = WALL.now()
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    known = {device: limits(device) for device in devices}
    names = tuple(name for device in devices for name in machine(device).devices)
    return MachineLimits(
        machine=replace(machine("cpu", pytorch(), torch.get_num_threads()), devices=names),
        limits=known,
        seconds=WALL.now() - began,
        notes=tuple(_notes(known)),
    )


def _notes(known: Mapping[str, Limits]) -> Iterator[str]:
    for device, one in known.items():
        if one.lost_share > BUSY:
            yield (
                f"while {device} was measured, something else had the cores for "
                f"{one.lost_share:.0%} of the time: these are the best figures that were seen, "
                "a quiet machine may reach more, and they are measured again next time"
            )
