"""After a death, `--resume` finds the row that ends the process, leaves it out, and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

FWD = [sys.executable, "-m", "forwardpass"]
ROWS, BAD = 200, 125
MODEL = f"""
import os
import torch
from torch import nn
import forwardpass as fwd

class Dies(nn.Module):
    def __init__(self, bad):
        super().__init__()
        self.bad = bad
    def forward(self, x):
        if (x[:, 0] == self.bad).any():
            os.abort()
        return x.sum(1)

def encode(rows):
    if any(row["x"][0] == {BAD} for row in rows):
        os._exit(7)
    return {{"x": [row["x"] for row in rows]}}

forward = fwd.Model(Dies({BAD}), "x: f32[batch 2]")
encoding = fwd.Model(Dies(-1), "x: f32[batch 2]", encode=encode)
"""


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="exit codes of POSIX")
@pytest.mark.parametrize(
    ("model", "stage", "code"), [("forward", "compute", -6), ("encoding", "encode", 7)]
)
def test_the_row_is_left_out(model: str, stage: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    np.savez(tmp_path / "x.npz", x=np.arange(ROWS, dtype=np.float32)[:, None].repeat(2, 1))
    command = [*FWD, "run", f"net.py:{model}", "x.npz", "-o", "out", "--batch", "16"]
    command += ["--shard-rows", "50", "--quiet", "--resume", "--json"]

    def ran() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ran().returncode == code
    done = ran()
    assert done.returncode == 5, done.stderr
    assert done.stderr.count("fwd: the process ended") == 3
    assert json.loads(done.stdout)["quarantined"] == 1
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    left = json.loads(line)
    assert (left["position"], left["stage"]) == (BAD, stage)
    assert left["error"].startswith("ProcessEnded: each process ended that had this row")
    table = pq.read_table(sorted((tmp_path / "out").glob("part-*")))
    keys = [row for row in range(ROWS) if row != BAD]
    assert table.column("key").to_pylist() == keys
    assert table.column("output").to_pylist() == [2.0 * row for row in keys]
    assert not list((tmp_path / "out").glob(".*")), "nothing is left of it"
