"""How fast does `fwd.run` go from Parquet to Parquet, and how much memory does it take?

1,000,000 rows of 64 floats through a small MLP, beside a loop written by hand over pyarrow. Each
run is a process of its own. Memory is the peak of the resident set during the run, minus the
resident set just before it, when everything is imported and loaded but nothing is read.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from forwardpass.measuring.clocks import WALL

FEATURES = 64
OUTPUTS = 16
ROW_GROUP = 50_000
LOOP_BATCH = 8_192


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, OUTPUTS)).eval()


def vectors(values: np.ndarray[Any, Any]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def write_source(path: Path, rows: int) -> None:
    """A Parquet file with the columns `number` and `features`, in row groups."""
    generator = np.random.default_rng(0)
    kind = pa.list_(pa.float32(), FEATURES)
    schema = pa.schema([("number", pa.int64()), ("features", kind)])
    with pq.ParquetWriter(path, schema) as file:
        for start in range(0, rows, ROW_GROUP):
            count = min(ROW_GROUP, rows - start)
            features = generator.standard_normal((count, FEATURES), dtype=np.float32)
            numbers = pa.array(np.arange(start, start + count))
            file.write_table(pa.table([numbers, vectors(features)], schema=schema))


def by_hand(net: nn.Module, source: str, out: str) -> None:
    """Read, compute and write one after the other."""
    os.mkdir(out)
    kind = pa.list_(pa.float32(), OUTPUTS)
    schema = pa.schema([("number", pa.int64()), ("output", kind)])
    with pq.ParquetWriter(f"{out}/part.parquet", schema) as file, torch.inference_mode():
        for batch in pq.ParquetFile(source).iter_batches(LOOP_BATCH):
            values = batch["features"].flatten().to_numpy().reshape(-1, FEATURES)
            output = net(torch.from_numpy(values.copy())).numpy()  # Arrow memory is read-only
            file.write_batch(pa.record_batch([batch["number"], vectors(output)], schema=schema))


def by_run(net: nn.Module, source: str, out: str) -> None:
    model = fwd.Model(net, f"features: f32[batch {FEATURES}]")
    fwd.run(model, source, out, key="number")


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def child(compute: Callable[[nn.Module, str, str], None], source: str, out: str) -> None:
    """Compute in this process, and print the seconds and the growth in bytes as JSON."""
    net = network()
    fwd.load(fwd.Model(net))  # imports what loading needs
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins here
    before, start = resident("VmRSS"), WALL.now()
    compute(net, source, out)
    seconds = WALL.now() - start
    print(json.dumps({"seconds": seconds, "growth": resident("VmHWM") - before}))


def outputs(folder: str) -> np.ndarray[Any, Any]:
    """What was written, in order of the shards."""
    tables = [pq.read_table(p, columns=["output"]) for p in sorted(Path(folder).glob("*.parquet"))]
    return pa.concat_tables(tables)["output"].combine_chunks().flatten().to_numpy()


CANDIDATES = {"loop over pyarrow, by hand": by_hand, "`fwd.run`": by_run}


def main() -> None:
    small = quick(__doc__)
    rows = 20_000 if small else 1_000_000
    growth: dict[str, list[int]] = {name: [] for name in CANDIDATES}
    last: dict[str, str] = {}

    with tempfile.TemporaryDirectory() as root:
        source = os.path.join(root, "source.parquet")
        write_source(Path(source), rows)
        bytes_in = os.path.getsize(source)
        environment = {**os.environ, "FORWARDPASS_CACHE": os.path.join(root, "cache")}

        def measured(name: str) -> Callable[[], float]:
            def candidate() -> float:
                last[name] = tempfile.mkdtemp(dir=root) + "/out"
                given = [sys.executable, "-m", "benchmarks.parquet_throughput", "--child", name]
                done = subprocess.run(
                    [*given, source, last[name]],
                    env=environment,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                found = json.loads(done.stdout.splitlines()[-1])
                growth[name].append(found["growth"])
                return float(found["seconds"])

            return candidate

        candidates = {name: measured(name) for name in CANDIDATES}
        cold = candidates["`fwd.run`"]()  # calibrates; cached from here on
        cold_growth = growth["`fwd.run`"].pop()
        seconds = rounds(candidates, 1 if small else 3)
        hand, ours = (outputs(last[name]) for name in CANDIDATES)
        off = np.abs(hand - ours).max()

    rate = {name: [rows / s for s in times] for name, times in seconds.items()}
    middle = {name: statistics.median(values) for name, values in rate.items()}
    base = middle[next(iter(CANDIDATES))]
    lines = [
        [
            name,
            spread(rate[name]),
            f"{middle[name] / base:.2f}",
            spread([value / 1e6 for value in growth[name]]),
        ]
        for name in CANDIDATES
    ]
    lines.append(
        [
            "`fwd.run`, calibration included",
            f"{rows / cold:,.0f}",
            f"{rows / cold / base:.2f}",
            f"{cold_growth / 1e6:,.0f}",
        ]
    )
    about = (
        f"{rows:,} rows of {FEATURES} floats ({bytes_in / 1e6:,.0f} MB of Parquet) through an MLP "
        f"{FEATURES}–128–{OUTPUTS}, to Parquet with the key. Median of {len(rate['`fwd.run`'])} "
        "interleaved rounds (least–most), a process each. Memory: peak of the resident set during "
        "the run, minus the resident set just before it, with everything imported and the model "
        "loaded. `fwd.run` also checksums, syncs and commits its shards. Values differ by "
        f"{off:.0e} at most."
    )
    publish(
        "parquet_throughput",
        "Parquet to Parquet",
        [
            about,
            table(["", "rows/s", "× by hand", "MB above the start"], lines),
            machine("pyarrow"),
        ],
        write=not small,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(CANDIDATES[sys.argv[2]], sys.argv[3], sys.argv[4])
    else:
        main()
