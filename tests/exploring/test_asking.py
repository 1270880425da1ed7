"""Questions of the page, as they arrive: checked, and known by their key."""

from __future__ import annotations

import pytest

from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion, asked, known, views


def test_the_same_question_has_one_key() -> None:
    one = asked(PageQuestion("structure.graph", {"row": 0, "change": {"mode": "train"}}))
    other = asked(PageQuestion("structure.graph", {"change": {"mode": "train"}}))
    assert one.key == other.key
    assert one.key != asked(PageQuestion("structure.graph", {"row": 1})).key


@pytest.mark.parametrize(
    ("of", "arguments", "said"),
    [
        ("structure.grph", {}, "structure.graph"),
        ("structure.graph", {"rows": 1}, "rows"),
        ("structure.graph", {"row": "0"}, "int"),
        ("structure.graph", {"change": {"mode": "sleep"}}, "sleep"),
        ("structure.graph", {"change": {"edits": [{"edit": "nothing"}]}}, "nothing"),
        ("values.cells", {}, "value"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    of: str, arguments: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        asked(PageQuestion(of, arguments))


def test_views_stand_in_their_order_each_with_its_own_key() -> None:
    places = [file.VIEW.place for file in views()]
    assert places == sorted(set(places))
    for file in views():
        assert file.__name__.endswith(f".{file.VIEW.file}")
        assert f"{file.VIEW.file}.predictions" in known()
