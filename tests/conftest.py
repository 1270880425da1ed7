"""What all tests share: no network, a cache of their own, one operator thread, the same numbers in
every run, and gpu tests that skip in sight."""

from __future__ import annotations

import compileall
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before anything imports torch: here, in the workers of xdist and in what tests start, there is one
# operator thread. Tensors of tests are small, and the workers use all cores.
os.environ["OMP_NUM_THREADS"] = "1"
# Ray puts a print of its own in place of Python's, which tests of what a model prints would meet.
os.environ["RAY_TQDM_PATCH_PRINT"] = "0"

# Bytecode of the tests is kept from one run to the next, whatever the environment says of it; what
# the tests write and import is left to that.
_WRITES_NONE, sys.dont_write_bytecode = sys.dont_write_bytecode, False

# No test asserts a time, and a busy machine is no failure.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One cache for the session: calibrations are shared by the tests, not with the user."""
    folder = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORWARDPASS_CACHE", folder)
        yield folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same numbers in every run, whatever ran before."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def two_threads(_seeded: None) -> int:
    """Two operator threads, for a test of what is put back."""
    import torch

    torch.set_num_threads(2)
    return 2


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is the current one, for commands: they print for 80 columns, and what
    they put into sys.path or import from the folder goes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


def pytest_configure(config: pytest.Config) -> None:
    # Hundreds of processes import the package: it is compiled once, not by each of them.
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(__file__).parents[1] / "src", quiet=1)


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = _WRITES_NONE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What takes long begins first, so that no core waits for it at the end.
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("long", "timeout"))))
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; this machine has none"))
