"""What a page is about: rows that go in alone, passes that failed, records from a file."""

from __future__ import annotations

import linecache
import os
import traceback
from contextlib import closing
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from torch import nn
from untouched import untouched

import forwardpass as fwd
from forwardpass import Forward, Model
from forwardpass.errors import PassError, UsageError
from forwardpass.exploring.asking import PageQuestion, asked
from forwardpass.exploring.desks import Desk
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.loading import load
from forwardpass.probing.changes import Change
from forwardpass.probing.edits import SetElement


def test_each_row_goes_in_alone_at_its_own_size() -> None:
    rows = {"ids": [np.array([5, 6, 7]), np.array([8])]}
    model = Model(nn.Sequential(nn.Embedding(16, 4)), "ids: i64[batch tokens] pad 0")
    exploration = Exploration("words", given(Forward(model), rows))
    shapes = [exploration.probe((row,)).inputs["ids"].shape for row in range(exploration.count)]
    assert [tuple(shape) for shape in shapes] == [(1, 3), (1, 1)]
    assert tuple(exploration.probe((0, 1)).inputs["ids"].shape) == (2, 3)


def test_a_recorded_batch_is_shown_row_by_row() -> None:
    module, batch = nn.Linear(3, 2).eval(), torch.randn(4, 3)
    exploration = Exploration("linear", PassGiven(fwd.record(module, batch)))
    assert exploration.count == 4
    assert torch.equal(exploration.probe((2,)).outputs()["output"], module(batch[2:3]))


def test_a_pass_that_raises_is_shown_as_far_as_it_came() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(4, 1))
    exploration = Exploration("broken", given(Forward(Model(module, "x: f32[batch 4]"))))
    record = exploration.record()
    assert record.failed is not None
    assert record.totals.calls >= 2
    with pytest.raises(PassError):
        exploration.probe()
    with pytest.raises(PassError):  # it is not shown as it is, as if nothing moved
        exploration.record((0,), Change(edits=(SetElement("0.bias", (0,), 0.0),)))


def test_a_record_from_a_file_is_shown_and_nothing_can_be_run(tmp_path: Path) -> None:
    path = tmp_path / "linear.record"
    fwd.record(nn.Linear(3, 2), torch.randn(1, 3), values="all").save(path)
    exploration = Exploration("linear", None, [fwd.Record.load(path)])
    assert exploration.record().totals.calls == 1 or exploration.record().calls
    with pytest.raises(UsageError, match="fwd explain FORWARD"):
        exploration.probe()


def test_an_edit_is_made_on_a_copy() -> None:
    model = models.mlp()
    exploration = Exploration("mlp", given(Forward(model)))
    with untouched(model.module):
        probe = exploration.probe()
        name, weight = list(model.module.named_parameters())[-1]
        before = probe.outputs()
        edit = SetElement(name, (0,) * weight.dim(), 100.0)
        after = probe.outputs(Change(edits=(edit,)))
        assert not torch.equal(*[next(iter(came.values())) for came in (before, after)])
        again = probe.outputs()
        assert torch.equal(*[next(iter(came.values())) for came in (before, again)])


@pytest.mark.parametrize(
    "edit", [SetElement("fc9.weight", (0, 0), 1.0), SetElement("0.weight", (0, 999), 1.0)]
)
def test_an_edit_that_does_not_fit_is_refused(edit: SetElement) -> None:
    exploration = Exploration(
        "one", given(Forward(Model(nn.Sequential(nn.Linear(4, 2)), "x: f32[batch 4]")))
    )
    with pytest.raises(UsageError, match="weight"):
        exploration.probe().outputs(Change(edits=(edit,)))


@pytest.mark.parametrize("row", [-1, 8])
def test_a_row_that_is_not_there_is_refused(row: int) -> None:
    exploration = Exploration("mlp", given(Forward(models.mlp())))
    with pytest.raises(UsageError, match=f"row {row}"):
        exploration.probe((row,))


def test_a_file_that_changed_is_shown_and_run_as_it_was_loaded(tmp_path: Path) -> None:
    """Of a row, too, that is recorded only after the change."""
    code = (
        "from torch import nn\nfrom forwardpass import Model\n\n\nclass Net(nn.Module):\n"
        "    def forward(self, x):\n        return x * 2  # then\n\n\n"
        "model = Model(Net().eval(), 'x: f32[batch 4]')\n"
    )
    file = tmp_path / "held_net.py"
    file.write_text(code, encoding="utf-8")
    exploration = Exploration(str(file), given(load(str(file))))
    with closing(Desk(exploration)) as desk:
        desk.answer(asked(PageQuestion("path.lines", {"row": 0})))
        file.write_text("# one more line\n" + code.replace("2  # then", "3  # now"), "utf-8")
        os.utime(file, (1, 1))
        assert exploration.changed()
        answer = desk.answer(asked(PageQuestion("path.lines", {"row": 1})))
        assert isinstance(answer, bytes)
        assert b"# then" in answer
        assert b"# now" not in answer
    traceback.StackSummary.extract(traceback.walk_stack(None))
    linecache.checkcache()
    assert "# now" in "".join(linecache.getlines(str(file))), "nothing is held outside of it"
