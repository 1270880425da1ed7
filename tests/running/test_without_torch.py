"""A run of what computes on NumPy's arrays, each in a process of its own: torch is not imported."""

from __future__ import annotations

import json
from pathlib import Path

import models
import numpy as np
import pyarrow.parquet as pq
import pytest
from artefact import ran

import forwardpass as fwd
from forwardpass import Forward

PROGRAM = """
import sys
import numpy as np
import forwardpass as fwd
from artefact import Artefact

signature = ["ids: i64[batch tokens=1..16] pad 0", "mask: f32[batch tokens] = valid(tokens)"]
model = fwd.Model(Artefact(), signature)
lengths = np.random.default_rng(0).integers(1, 17, 2_000)
ids = [np.arange(n) + i for i, n in enumerate(lengths)]
out, resume = sys.argv[1], len(sys.argv) > 2
report = fwd.run(fwd.load(model) @ "null", {"ids": ids}, out, resume=resume, shard_rows=500)
print(report)
print("ROWS", report.rows, report.resumed_rows)
"""


def test_from_rows_to_shards_and_on_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    said = ran(PROGRAM, str(out))
    assert "ROWS 2000 0" in said
    assert "tokens padded: proved on" in said
    manifest = out / "manifest.jsonl"
    header, *entries, finished = manifest.read_text(encoding="utf-8").splitlines()
    known = json.loads(header)
    assert known["padding"]["paddable"] == ["tokens"]
    assert known["costs"]["points"]
    assert known["outputs"] == ["output_0: i64[batch tokens]", "output_1: f32[batch tokens]"]
    assert known["machine"]["library"] == f"numpy {np.__version__}"
    whole = pq.read_table(sorted(out.glob("part-*")))
    assert len(entries) == 4

    manifest.write_text("\n".join([header, *entries[:2], ""]), encoding="utf-8")
    assert "ROWS 2000 1000" in ran(PROGRAM, str(out), "resume")
    assert manifest.read_text(encoding="utf-8").splitlines() == [header, *entries, finished]
    assert pq.read_table(sorted(out.glob("part-*"))) == whole
    rows = whole.column("output_0").to_pylist()
    lengths = np.random.default_rng(0).integers(1, 17, 2_000)
    assert rows == [list(range(i, i + n)) for i, n in enumerate(lengths)]


ONE_ROW = """
import sys
import forwardpass as fwd
from artefact import Artefact

model = fwd.Model(Artefact(), "ids: i64[batch tokens=1..16] pad 0")
fwd.run(fwd.load(model) @ "null", [{"ids": [1, 2, 3]}])
slow = {"fsspec", "asyncio", "ssl", "numpy.ma", "numpy.random"} & sys.modules.keys()
assert not slow, slow
"""


def test_one_row_loads_nothing_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))
    ran(ONE_ROW)


MODEL = """
import forwardpass as fwd
from artefact import Artefact

signature = ["ids: i64[batch tokens=1..16] pad 0", "mask: f32[batch tokens] = valid(tokens)"]
model = fwd.Model(Artefact(), signature)
"""
COMMAND = """
import sys
from forwardpass.cli import main

main(["run", "model.py @ null", "rows.jsonl", "-o", "-"], standalone_mode=False)
"""


def test_a_file_that_holds_an_artefact_is_run_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL, encoding="utf-8")
    Path("rows.jsonl").write_text('{"ids": [3, 4]}\n{"ids": [5]}\n', encoding="utf-8")
    assert [json.loads(line) for line in ran(COMMAND).splitlines()] == [
        {"key": 0, "output_0": [3, 4], "output_1": [1.0, 1.0]},
        {"key": 1, "output_0": [5], "output_1": [1.0]},
    ]


FIRST_ANSWER = """
import sys
import numpy as np
import forwardpass as fwd

rows = {"features": np.ones((2, 16), np.float32)}
came, _ = fwd.run(fwd.load(sys.argv[1]), rows)
assert came["output"].shape == (2, 4)
slow = {"pyarrow", "fsspec", "asyncio", "ssl", "socket", "email", "importlib.metadata", "numpy.ma"}
assert not slow & sys.modules.keys(), slow & sys.modules.keys()
"""
OF_A_FILE = """
import sys
from forwardpass.cli import main

main(["run", sys.argv[1], "x.npy", "-o", "-", "--quiet"], standalone_mode=False)
slow = {"pyarrow", "fsspec", "asyncio", "ssl", "email", "importlib.metadata"}
assert not slow & sys.modules.keys(), slow & sys.modules.keys()
"""


def test_an_artefact_answers_without_what_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    fwd.export(Forward(models.mlp()) @ "onnxruntime", "mlp.fwd")
    ran(FIRST_ANSWER, "mlp.fwd")
    np.save("x.npy", np.ones((2, 16), np.float32))
    first, second = ran(OF_A_FILE, "mlp.fwd").splitlines()
    assert json.loads(first)["output"] == json.loads(second)["output"]
