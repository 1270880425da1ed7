"""What cannot be explained is refused in one sentence that says why and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from explained_models import Fn, explained, mlp
from torch import nn

from forwardpass import Record, record
from forwardpass.errors import PassError, UsageError
from forwardpass.explaining import targets


def refused(done: Record, element: str, **how: Any) -> str:
    with pytest.raises(UsageError) as raised:
        done.explain(element, **how)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("element", "said"),
    [
        ("fc3[0, 1]", "nothing in the record is called 'fc3'; did you mean 'fc"),
        ("outptu[0, 1]", "did you mean 'output'?"),
        ("fc1:1[0, 1]", "nothing in the record is called 'fc1:1'"),
        ("fc1[0]", "'fc1[0]' has 1 numbers, and [2 8] has 2 axes"),
        ("fc1[0, 1, 2]", "has 3 numbers, and [2 8] has 2 axes"),
        ("fc1[0, 8]", "'fc1[0, 8]' lies outside of [2 8]; indexes begin at 0"),
        ("fc1[-3, 0]", "lies outside of [2 8]"),
        ("fc1", "'fc1' names a tensor [2 8]; say which element: fc1[…]"),
        ("fc1[]", "say which element"),
        ("fc1[0, x]", "an index is whole numbers with commas, such as [0, 7]"),
        ("fc1[0, 1.5]", "an index is whole numbers"),
        ("fc1[:, 0]", "an index is whole numbers"),
        ("fc1[0, 1", "is no element; write for example `fc1[0, 7]`"),
        ("", "is no element"),
        ("#99[0]", "#99: the record has calls #0 to #"),
        ("input[0, 1]", "input is given, not computed; with --gradient"),
        ("fc1.weight[0, 1]", "fc1.weight is given, not computed; with --gradient"),
        ("fc1.wieght[0, 1]", "nothing in the record is called 'fc1.wieght'"),
    ],
)
def test_texts_that_name_no_element(element: str, said: str) -> None:
    assert said in refused(record(mlp(), torch.randn(2, 6), grad="off"), element)


def test_names_of_parameters_are_suggested_for_the_way_back() -> None:
    done = record(mlp(), torch.randn(2, 6), grad="on")
    assert "did you mean 'fc1.weight'?" in refused(done, "fc1.wieght[0, 1]", gradient=True)


def test_an_input_that_passes_through_is_given() -> None:
    done = record(Fn(lambda s, x: (x.t(), x * 2)), torch.randn(2, 3), grad="off")
    said = refused(done, "output_0[2, 1]")
    assert "element [1, 2] of 0, which is given, not computed" in said


def test_a_record_from_a_file(tmp_path: Path) -> None:
    done = record(mlp(), torch.randn(2, 6), grad="off")
    done.save(tmp_path / "record.fwd")
    loaded = Record.load(tmp_path / "record.fwd")
    for gradient in (False, True):
        said = refused(loaded, "fc1[0, 1]", gradient=gradient)
        assert said == (
            "a record from a file or of watch holds no model to compute with; record the model "
            "again, then explain"
        )


def test_numbers_that_are_not_floating() -> None:
    done = record(Fn(lambda s, x: (x.argmax(1), x > 0)), torch.randn(2, 3), grad="on")
    assert done.explain("output_0[1]").parts[0].lacking
    assert done.explain("output_1[1, 1]").parts[0].recorded in (0, 1)
    assert "only floating values have gradients" in refused(done, "output_0[1]", gradient=True)
    ids = record(nn.Embedding(5, 3), torch.tensor([1, 2]), grad="on")
    assert "input[1] is i64: only floating" in refused(ids, "input[1]", gradient=True)


def test_complex_and_sparse_numbers() -> None:
    done = record(Fn(lambda s, x: torch.fft.fft(x)), torch.randn(4), grad="off")
    assert "output[1] is complex" in refused(done, "output[1]")
    done = record(Fn(lambda s, x: (x * 2).to_sparse()), torch.eye(3), grad="off")
    assert "sparse" in refused(done, "output[1, 1]")


def test_a_model_on_the_meta_device() -> None:
    module = mlp().to("meta")
    done = record(module, torch.randn(2, 6, device="meta"), grad="off")
    assert "record it with real weights" in refused(done, "fc1[0, 0]")
    assert "record it with real weights" in refused(done, "fc1.weight[0, 0]", gradient=True)


def test_a_buffer_has_no_way_back() -> None:
    done = record(nn.BatchNorm1d(3).eval(), torch.randn(2, 3), grad="on")
    assert "running_mean" in refused(done, "running_mean[0]", gradient=True)


def test_a_pass_that_goes_another_way_says_so() -> None:
    module = Fn(lambda s, x: x.relu() if s.up else x.tanh(), up=True)
    done = record(module, torch.randn(2), grad="off")
    module.up = False
    with pytest.raises(PassError, match=r"went another way than when it was recorded.*again"):
        done.explain("output[0]")


def test_what_ran_before_a_pass_raised_is_explained() -> None:
    def raises(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) @ torch.zeros(7, 7)

    with pytest.raises(PassError) as raised:
        record(Fn(raises, fc=nn.Linear(3, 2)), torch.randn(2, 3), grad="on")
    explained(raised.value.record, "fc[1, 1]")
    assert "there is no way back" in refused(raised.value.record, "fc.weight[1, 1]", gradient=True)


def test_calls_and_reused_modules_by_their_names() -> None:
    module = Fn(lambda s, x: {"a": {"b": s.fc(s.fc(x))}}, fc=nn.Linear(3, 3))
    done = record(module, torch.randn(2, 3), grad="off")
    first, second = (explained(done, text)[0] for text in ("fc[1, 2]", "fc:1[1, 2]"))
    assert first.call < second.call
    assert explained(done, "fc:0[1, 2]") == (first,)
    assert explained(done, f"#{second.call}[1, 2]") == (second,)
    assert explained(done, "a.b[1, 2]") == (second,)
    assert explained(done, " a.b [ -1, 2 ] ")[0].element == (1, 2)


def test_one_number_needs_no_index() -> None:
    done = record(Fn(lambda s, x: x.exp().tanh()[0]), torch.randn(1), grad="off")
    assert explained(done, "output")[0].operator == "aten.tanh.default"


def test_all_that_is_listed_can_be_explained() -> None:
    module = nn.TransformerEncoderLayer(4, 2, 4, batch_first=True).eval()
    for expanded in (False, True):
        done = record(module, torch.randn(1, 2, 4), grad="off", expanded=expanded)
        for target in targets(done):
            index = ", ".join("0" * len(target.value.shape))
            done.explain(f"{target.name}[{index}]")
