"""What all tests share: no network, a cache of their own, and gpu tests that skip in sight."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One cache for the session: calibrations are shared by the tests, not with the user."""
    folder = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORWARDPASS_CACHE", folder)
        yield folder


_SMALL = {
    "checking", "comparing", "explaining", "operators", "recording", "showing",
    "test_cli_check", "test_cli_diff", "test_cli_record", "test_limit_share",
}  # fmt: skip
"""Folders and files whose tensors are too small for more than one thread."""


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same numbers in every run, and one thread, for tests of many small passes."""
    if _SMALL.isdisjoint((request.path.parent.name, request.path.stem)):
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; this machine has none"))
