"""eager(device=, threads=): PyTorch as it is.

`device` is what torch takes (`cpu`, `cuda:1`, `mps`), or `cuda:*` for one copy on every CUDA
device; the default is where the parameters are. `threads` is the number of threads inside an
operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from forwardpass.errors import UsageError
from forwardpass.tensors.dtypes import coarsest
from forwardpass.tensors.trees import nest


class EagerReplica:
    """One copy of the module on one device."""

    def __init__(self, module: nn.Module, device: torch.device, threads: int | None) -> None:
        self.module = module
        self.device = device
        self.threads = threads
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def workers(self) -> int:
        """Threads that should feed it: on CUDA one transfers while the other computes."""
        return 2 if self.device.type == "cuda" else 1

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest floating dtype that it computes in."""
        return coarsest({tensor.dtype for tensor in self.module.state_dict().values()})

    def stage(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inputs on the device; from pinned memory and on a stream of its own on CUDA."""
        if self.device.type == "cpu":
            return dict(inputs)
        if self._stream is None:
            return {path: value.to(self.device) for path, value in inputs.items()}
        with torch.cuda.stream(self._stream):
            staged = {
                path: value.pin_memory().to(self.device, non_blocking=True)
                for path, value in inputs.items()
            }
        self._stream.synchronize()
        return staged

    def compute(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """What forward returns for these inputs, already on the device."""
        args, kwargs = nest(inputs)
        return self.call(args, kwargs)

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What forward returns for these arguments, in inference mode."""
        with torch.inference_mode(), self._on_device():
            return self.module(*args, **kwargs)

    def fetch(self, outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs in CPU memory; waits for the device."""
        return {name: value.cpu() for name, value in outputs.items()}

    def seed(self, seed: int) -> None:
        """Seed the generators that this replica draws from."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def _on_device(self) -> Any:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()


def build(
    module: nn.Module, device: str | None = None, threads: int | None = None
) -> list[EagerReplica]:
    """One replica a device."""
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UsageError(f"eager(threads={threads}): threads must be a whole number from 1")
    devices = _devices(module, device)
    modules = [module] + [deepcopy(module) for _ in devices[1:]]
    return [
        EagerReplica(copy if device is None else copy.to(place), place, threads)
        for copy, place in zip(modules, devices, strict=True)
    ]


def _devices(module: nn.Module, device: str | None) -> list[torch.device]:
    if device is None:
        tensors = [*module.parameters(), *module.buffers()]
        found = sorted({str(tensor.device) for tensor in tensors if tensor.device.type != "meta"})
        return [torch.device(found[0] if found else "cpu")]
    device = str(device)
    if device == "cuda:*":
        count = torch.cuda.device_count()
        if not count:
            raise UsageError(
                "eager(device=cuda:*): this machine has no CUDA device; use device=cpu"
            )
        return [torch.device("cuda", index) for index in range(count)]
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(
            f"eager(device={device}): not a device that torch knows; "
            "use cpu, cuda, cuda:0, cuda:* or mps"
        ) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"eager(device={device}): this machine has {torch.cuda.device_count()} CUDA devices; "
            "use device=cpu"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("eager(device=mps): this machine has no MPS device; use device=cpu")
    if str(chosen) == "cuda":
        chosen = torch.device("cuda", torch.cuda.current_device())
    return [chosen]
