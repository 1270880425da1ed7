"""Importing the package, and asking the command for help, loads nothing heavy.

What is loaded is asserted; how long it takes stands in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "pyarrow", "fsspec", "rich", "msgspec", "transformers", "PIL", "sklearn")


def loaded(program: str) -> set[str]:
    """The modules that are loaded after `program`, in a process of its own."""
    tail = "\nimport sys; print('MODULES', *sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program + tail],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return set(done.stdout.split("MODULES", 1)[1].split())


def test_import_loads_nothing_heavy() -> None:
    assert loaded("import forwardpass").isdisjoint(HEAVY)


def test_ctrl_c_is_heard_before_anything_is_imported() -> None:
    """An import that is interrupted prints a traceback: so next to nothing is, before that."""
    early = loaded("import forwardpass") | loaded("import os, signal, sys")
    assert loaded("import forwardpass.__main__") - early == {"forwardpass.__main__"}


def test_dir_and_version_load_nothing_heavy() -> None:
    program = "import forwardpass; dir(forwardpass); forwardpass.__version__"
    assert loaded(program).isdisjoint(HEAVY)


def test_the_nouns_need_no_torch() -> None:
    program = (
        "from forwardpass import Explanation, Forward, Model, Plan, Profile, Record, Rows, "
        "RunReport, Signature, Tuning, Validation, Watched"
    )
    assert "torch" not in loaded(program)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["record", "--help"],
        ["explain", "--help"],
        ["profile", "--help"],
        ["tune", "--help"],
        ["serve", "--help"],
        ["--version"],
    ],
)
def test_help_loads_no_torch(arguments: list[str]) -> None:
    program = (
        "from forwardpass.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
    )
    assert loaded(program).isdisjoint(("torch", "numpy", "pyarrow", "transformers"))


def test_an_error_of_usage_is_light_too() -> None:
    program = (
        "from forwardpass import Plan, ForwardpassError\n"
        "try:\n    Plan.parse('| cast(')\n"
        "except ForwardpassError as error:\n    assert error.exit_code == 2"
    )
    assert "torch" not in loaded(program)


def test_listing_a_folder_loads_nothing_heavy() -> None:
    program = (
        "from forwardpass.nouns.folders import plugins\n"
        "from forwardpass.reading import sources\nfrom forwardpass.running import sinks\n"
        "assert plugins(sources) and plugins(sinks)"
    )
    heavy = ("pyarrow.compute", "pyarrow.csv", "pyarrow.parquet", "PIL")
    assert loaded(program).isdisjoint(heavy)


def test_a_verb_loads_no_room_that_it_does_not_use(tmp_path: Path) -> None:
    """`fwd record` runs a pass, and none of the machinery that `fwd run` is made of."""
    model = tmp_path / "model.py"
    model.write_text(
        "import forwardpass as fwd\nfrom torch import nn\n"
        "model = fwd.Model(nn.Linear(4, 2), 'features: f32[batch 4]')\n",
        encoding="utf-8",
    )
    program = (
        "import sys\nfrom forwardpass.cli import main\n"
        f"main(['record', {str(model)!r}, '--quiet'], standalone_mode=False)\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('forwardpass.')}\n"
        "assert 'recording' in rooms\n"
        "assert rooms.isdisjoint({'running', 'checking', 'comparing', 'explaining'}), rooms\n"
    )
    loaded(program)


def test_a_run_whose_macs_are_kept_loads_nothing_that_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a model records some rows for `limit_share`, and keeps their macs."""
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model.py"
    model.write_text(
        "import forwardpass as fwd\nimport torch\nfrom torch import nn\ntorch.manual_seed(5)\n"
        "model = fwd.Model(nn.Linear(4, 2), 'features: f32[batch 4]')\n",
        encoding="utf-8",
    )
    program = (
        "import forwardpass as fwd\nimport numpy as np\n"
        f"report = fwd.run({str(model)!r}, {{'features': np.ones((8, 4), np.float32)}})[1]\n"
        "assert report.limit_share"
    )
    first, second = loaded(program), loaded(program)
    assert "forwardpass.recording.tracing" in first
    heavy = ("forwardpass.recording", "forwardpass.operators", "forwardpass.code.frames")
    assert second.isdisjoint(heavy)
