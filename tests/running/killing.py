"""A run that is killed, again and again, and goes on each time: shared by the tests and the soak.

As a script it computes one run in a process of its own: `python killing.py FOLDER OUT`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

ROWS, SHARD = 400, 40

MODEL = """
import time
import torch
from torch import nn
from forwardpass import Model

torch.manual_seed(0)
net = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 4))


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net

    def forward(self, ids, mask):
        time.sleep(0.002 * len(ids) ** 0.5)
        if (ids == 49).any():
            raise ValueError("poison")
        weight = mask[..., None].float()
        mean = (self.net(ids) * weight).sum(1) / weight.sum(1)
        return {"mean": mean, "noise": torch.rand(len(ids))}


model = Model(
    Slow(),
    ["ids: i64[batch tokens=1..64] pad 0", "mask: i64[batch tokens] = valid(tokens)"],
)
"""


def prepare(folder: Path) -> None:
    """The model and the data: rows of every length, some unreadable, some poisonous."""
    (folder / "model.py").write_text(MODEL)
    lines = []
    for i in range(ROWS):
        ids = [(i * 7 + k) % 48 + 1 for k in range(i % 29 + 1)]
        if i % 97 == 13:
            ids[-1] = 49
        row = {"name": f"row {i}", "ids": "none" if i % 83 == 5 else ids}
        lines.append("{broken" if i % 71 == 7 else json.dumps(row))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def command(folder: Path, out: Path) -> list[str]:
    return [sys.executable, __file__, str(folder), str(out)]


def delivered(out: Path) -> dict[str, object]:
    """Everything that a finished run delivered, values by their bits."""
    import pyarrow.parquet as pq

    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert lines[-1]["schema"] == "forwardpass/finished/1"
    shards = [line for line in lines if line["schema"] == "forwardpass/shard/1"]
    tables = [pq.read_table(out / shard["file"]).to_pydict() for shard in shards]
    leftovers = [p.name for p in out.iterdir() if p.name.startswith(".")]
    assert leftovers == []
    assert {p.name for p in out.glob("part-*")} == {shard["file"] for shard in shards}
    return {
        "digest": lines[-1]["digest"],
        "tables": tables,
        "shards": [(s["file"], s["sha256"], s["start"], s["stop"], s["rows"]) for s in shards],
        "quarantine": (out / "quarantine.jsonl").read_text(),
    }


def kill(folder: Path, out: Path, seconds: float) -> bool:
    """Start the run, kill it after `seconds` counted from its first sign; whether it was killed."""
    with subprocess.Popen(command(folder, out), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL


def finish(folder: Path, out: Path) -> float:
    """Run to the end; the seconds that it took from its first sign."""
    with subprocess.Popen(command(folder, out), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.perf_counter()
        assert process.wait() == 0
        return time.perf_counter() - began


def compute(folder: Path, out: Path, limit: int | None = None) -> None:
    import forwardpass as fwd

    fwd.run(
        f"{folder / 'model.py'} @ eager(threads=1)",
        str(folder / "rows.jsonl"),
        out,
        resume=True,
        limit=limit,
        keep=["name"],
        shard_rows=SHARD,
    )


if __name__ == "__main__":
    import forwardpass

    _ = forwardpass.run  # everything is imported before the first sign
    print("begun", flush=True)
    compute(Path(sys.argv[1]), Path(sys.argv[2]))
