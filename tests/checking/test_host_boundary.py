"""host-boundary: what is counted, timed and bent; whose lines are to blame."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from random import random as drawn
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forwardpass.checking import check
from forwardpass.checking.rules.host_boundary.escapes import Escapes
from forwardpass.nouns.findings import Finding


class Function(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def found(function: Callable[[Any, Tensor], Tensor], **how: Any) -> tuple[Finding, ...]:
    how = {"mode": "eval", "grad": "off", **how}
    return check(Function(function), torch.randn(4, 8), rules=["host-boundary"], **how).findings


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_a_number_that_goes_back_moves_the_outputs(grad: Any) -> None:
    (finding,) = found(lambda m, x: m.linear(x) * (1 / x.abs().max().item()), grad=grad)
    assert finding.severity == "warning"
    assert "to Python and back into the pass (once" in finding.message
    assert float(finding.evidence["output_moves"]) == pytest.approx(1e-3, rel=0.1)


def test_a_number_that_only_decides_is_a_note() -> None:
    def function(module: Any, x: Tensor) -> Tensor:
        return module.linear(x) if x.max().item() < 100 else x

    (finding,) = found(function)
    assert finding.severity == "note"
    assert finding.evidence["output_moves"] == 0
    assert "to decide by it or to show it" in finding.message


def test_reads_of_one_line_are_counted() -> None:
    def function(module: Any, x: Tensor) -> Tensor:
        return torch.stack([row * float(row.sum()) for row in x])

    (finding,) = found(function)
    assert finding.evidence["times"] == 4
    assert "(4 times" in finding.message


def test_random_numbers_are_seen_under_any_name() -> None:
    assert "random.random" in found(lambda m, x: m.linear(x) * drawn())[0].message
    assert "random.choice" in found(lambda m, x: m.linear(x) * random.choice([1, 2]))[0].message
    assert "np.random.rand" in found(lambda m, x: m.linear(x) * np.random.rand())[0].message
    assert found(lambda m, x: m.linear(x) * drawn(), mode="train")[0].severity == "note"


def test_a_print_is_one_finding_with_all_that_it_reads(capsys: Any) -> None:
    def function(module: Any, x: Tensor) -> Tensor:
        print("x is", x)
        return module.linear(x)

    (finding,) = found(function)
    assert finding.severity == "warning"
    assert finding.message.startswith("forward prints (print, once")
    (finding,) = found(lambda m, x: (sys.stderr.write("x"), m.linear(x))[1])
    assert finding.message.startswith("forward prints (write, once")


def test_everything_is_put_back() -> None:
    before = sys.getprofile(), np.random.rand, np.random.default_rng, random.getstate()
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    found(lambda m, x: m.linear(x) * np.random.rand() * random.random())
    assert before == (sys.getprofile(), np.random.rand, np.random.default_rng, random.getstate())
    assert (state == np.random.get_state()[1]).all()  # type: ignore[index]


def test_it_is_put_back_where_the_pass_raises() -> None:
    before = sys.getprofile(), np.random.rand
    with pytest.raises(ValueError, match="no"), Escapes(nn.Identity()):
        raise ValueError("no")
    assert before == (sys.getprofile(), np.random.rand)


def test_libraries_are_told_of_once_and_as_a_note() -> None:
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    given = {"input_ids": torch.arange(8)[None], "attention_mask": torch.ones(1, 8).long()}
    findings = check(GPT2Model(config), given, rules=["host-boundary"], mode="eval", grad="off")
    assert [f.severity for f in findings] in ([], ["note"])
    assert all("libraries look at values" in f.message for f in findings)
