"""What a page can be opened on: every noun, saved and live, and Forwards with what goes in."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import torch
from torch import nn
from tunings import tuning

import forwardpass as fwd
from forwardpass.errors import DataError, UsageError
from forwardpass.exploring.opening import of_file, of_noun, of_pass, of_rows
from forwardpass.exploring.rows import PassGiven
from forwardpass.nouns.records import Record


@pytest.fixture(scope="module")
def done() -> fwd.Recording:
    return fwd.record(models.mlp(), torch.randn(5, 16), mode="eval", grad="off")


def test_a_recording_can_be_run_row_by_row(done: fwd.Recording) -> None:
    page = of_noun(done)
    assert page.count == 5
    x = next(iter(done.this.named(done.this.arguments, done.this.keywords).values()))
    one = page.record((3,), values=True)
    assert torch.equal(one.tensors[one.inputs[next(iter(one.inputs))]], x[3:4])


def test_a_saved_record_is_shown_and_not_run(done: fwd.Recording, tmp_path: Path) -> None:
    done.save(tmp_path / "a.record")
    page = of_file(str(tmp_path / "a.record"))
    assert page is not None
    assert page.given is None
    assert page.record().calls == page.noun(Record).calls
    with pytest.raises(UsageError, match="holds no model to run"):
        page.probe()


def test_saved_nouns_open(done: fwd.Recording, tmp_path: Path) -> None:
    nouns = [
        done, tuning(), fwd.check(models.mlp(), torch.randn(8, 16), mode="eval"),
        fwd.diff(models.mlp(), models.mlp(), torch.randn(2, 16), mode="eval"),
        done.validate("b"), done.explain("0[0, 7]"),
    ]  # fmt: skip
    for place, noun in enumerate(nouns):
        path = tmp_path / f"{place}.json"
        path.write_text(noun.to_json())
        page = of_file(str(path))
        assert page is not None
        assert str(page.nouns[0]) == str(noun)


def test_what_is_no_noun_is_left_to_load_and_what_is_damaged_is_said(tmp_path: Path) -> None:
    for name, text in {"a.py": "{}", "b.json": '{"x": 1}', "c.json": "no json"}.items():
        (tmp_path / name).write_text(text)
        assert of_file(str(tmp_path / name)) is None
    assert of_file(str(tmp_path)) is None
    (tmp_path / "d.json").write_text('{"schema": "forwardpass/tuning/1", "forward": 3}')
    with pytest.raises(DataError, match="damaged or of another version"):
        of_file(str(tmp_path / "d.json"))
    (tmp_path / "e.json").write_text('{"schema": "forwardpass/other/9"}')
    with pytest.raises(DataError, match="which no page shows"):
        of_file(str(tmp_path / "e.json"))


def test_a_pass_that_raises_is_shown_as_far_as_it_came() -> None:
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(9, 4)).eval()
    page = of_pass(fwd.Forward(fwd.Model(net)), torch.randn(2, 16))
    assert page.record().failed is not None
    assert {call.name for call in page.record().calls} == {"F.linear", "F.relu"}


def test_an_input_without_a_batch_is_one_row() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(4, 4).sum(0)

    page = of_pass(fwd.Forward(fwd.Model(Fixed())), torch.randn(16))
    assert isinstance(page.given, PassGiven)
    assert page.count == 1
    assert page.record().failed is None


def test_rows_carry_their_labels() -> None:
    rows = [{"features": np.ones(16, np.float32) * n, "answer": n % 4} for n in range(6)]
    forward = fwd.Forward(models.mlp())
    page = of_rows(forward, rows, label="answer")
    assert page.count == 6
    assert page.given is not None
    assert page.given.labels is not None
    assert page.given.labels.values == (0, 1, 2, 3, 0, 1)
    with pytest.raises(UsageError, match="no such column"):
        of_rows(forward, rows, label="answers")
    with pytest.raises(UsageError, match="drawn"):
        of_rows(forward, None, label="answer")
