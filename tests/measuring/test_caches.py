"""What is kept on disk comes back for the same identity, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from forwardpass.measuring import caches
from forwardpass.nouns.costs import CostPoint, CostTable

TABLE = CostTable((CostPoint(2, {"tokens": 8}, 8, 0.25),))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_stored_and_loaded_by_identity(place: Path) -> None:
    identity = {"model": "a", "threads": 2}
    assert caches.load("costs", identity, CostTable) is None
    caches.store("costs", identity, TABLE)
    assert caches.load("costs", {"threads": 2, "model": "a"}, CostTable) == TABLE
    assert caches.load("costs", {"threads": 3, "model": "a"}, CostTable) is None
    assert caches.load("limits", identity, CostTable) is None
    assert len(list(place.iterdir())) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"identity": 1, "value": 2}', b"\xff\x00", b'{"value": {}}']
)
def test_an_unreadable_file_counts_as_absent_and_is_replaced(place: Path, content: bytes) -> None:
    caches.store("costs", {}, TABLE)
    (path,) = place.iterdir()
    path.write_bytes(content)
    assert caches.load("costs", {}, CostTable) is None
    caches.store("costs", {}, TABLE)
    assert caches.load("costs", {}, CostTable) == TABLE


def test_a_value_of_another_form_counts_as_absent(place: Path) -> None:
    caches.store("costs", {}, {"points": [{"rows": "many"}]})
    assert caches.load("costs", {}, CostTable) is None


def test_a_folder_that_cannot_be_written_warns_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.warns(UserWarning, match=r"cannot keep costs in .*set FORWARDPASS_CACHE"):
        caches.store("costs", {}, TABLE)
    assert caches.load("costs", {}, CostTable) is None


def test_the_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORWARDPASS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert caches.folder() == tmp_path / "forwardpass"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert caches.folder() == Path.home() / ".cache" / "forwardpass"
