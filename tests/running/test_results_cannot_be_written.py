"""A full disk, or an output that is removed while a run writes into it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass import durable
from forwardpass.errors import DataError
from forwardpass.running import stores
from forwardpass.running.sinks import npy_file

ROWS = {"x": np.arange(40, dtype=np.float32).reshape(20, 2)}


def model() -> fwd.Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fwd.Model(nn.Linear(2, 1), "x: f32[batch 2]")


@pytest.mark.parametrize("out", ["out", "out.npy"])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_full_disk(out: str, nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is written when room runs out: header, shard, entry or the joined file."""
    count = 0

    def counted(write: Any) -> Any:
        def full(path: Path, *more: Any) -> Any:
            nonlocal count
            count += 1
            if count >= nth:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return write(path, *more)

        return full

    with monkeypatch.context() as patch:
        for module in (stores, npy_file):
            for name in ("written", "appended"):
                if hasattr(module, name):
                    patch.setattr(module, name, counted(getattr(durable, name)))
        with pytest.raises(DataError, match=r"No space left on device\. .* go on with --resume"):
            fwd.run(model(), ROWS, tmp_path / out, batch=5, shard_rows=5)
    report = fwd.run(model(), ROWS, tmp_path / out, batch=5, shard_rows=5, resume=True)
    assert report.rows == 20


@pytest.mark.parametrize("gone", ["out", "out/manifest.jsonl"])
def test_an_output_that_is_removed(gone: str, tmp_path: Path) -> None:
    decoded = 0

    def decode(outputs: dict[str, Any]) -> dict[str, Any]:
        nonlocal decoded
        decoded += len(outputs["output"])
        if decoded == 15:
            path = tmp_path / gone
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return {"y": outputs["output"][:, 0]}

    removing = fwd.Model(nn.Linear(2, 1), "x: f32[batch 2]", decode=decode)
    said = "was removed while the run wrote into it" if gone == "out" else "No such file"
    with pytest.raises(DataError, match=said):
        fwd.run(removing, ROWS, tmp_path / "out", batch=5, shard_rows=5)
    assert not (tmp_path / gone).exists()


def test_a_full_standard_output(tmp_path: Path) -> None:
    """As in `fwd run … -o - > full`: one sentence, no traceback."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\nimport forwardpass as fwd\n"
        "model = fwd.Model(nn.Identity(), 'x: f32[batch 2]')\n"
    )
    np.savez(tmp_path / "rows.npz", x=ROWS["x"])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "forwardpass", "run", "net.py", "rows.npz", "-o", "-", "-q"],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == "fwd: standard output cannot be written: No space left on device\n"
