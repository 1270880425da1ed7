"""Stretches of a pass that run again on random numbers of their own."""

from __future__ import annotations

from threading import Event, Thread

import torch
from torch import nn

from forwardpass.checking.stretches import residual
from forwardpass.probing import record


def test_a_stretch_draws_nothing_that_another_thread_sees() -> None:
    done = record(nn.Linear(8, 8), torch.randn(4, 8))
    dropout, x = nn.Dropout(), torch.ones(64)
    expected = record(dropout, x, mode="train").returned["output"]
    over = Event()
    others: list[torch.Tensor] = []

    def recording() -> None:
        others.extend(record(dropout, x, mode="train").returned["output"] for _ in range(50))
        over.set()

    beside = Thread(target=recording)
    beside.start()
    found = set[float | None]()
    while not over.is_set():
        found.add(residual(done, done.calls, done.inputs["input"], done.outputs["output"]))
    beside.join()
    assert len(others) == 50
    assert all(torch.equal(other, expected) for other in others)
    assert len(found) == 1
