"""Which rules run and which findings are left out: by name, by comments, by pyproject.toml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.code.sources import file_of, lines_at
from forwardpass.errors import UsageError
from forwardpass.nouns.calls import Site
from forwardpass.nouns.findings import Finding
from forwardpass.reading.pyfiles import import_file

MODEL = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.fc(x)
        return F.dropout(
            x,
            0.5,
        ){comment}
"""
X = torch.ones(3, 8)


def found(workplace: Path, comment: str = "", **more: Any) -> fwd.Findings:
    file = workplace / "net.py"
    file.write_text(MODEL.format(comment=comment))
    model = import_file(file).Net().eval()
    return check(model, X, grad="off", **{"rules": ["train-mode", "unused"], **more})


# -- comments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comment", "left_out"),
    [
        ("", 0),
        ("  # fwd: ignore[train-mode]", 1),
        ("  # noqa; fwd: ignore[unused]", 0),
        ("  # fwd: ignore[unused, train-mode] on purpose", 1),
        ("  # fwd: ignore", 0),
    ],
)
def test_a_comment_at_the_end_of_the_statement(
    workplace: Path, comment: str, left_out: int
) -> None:
    findings = found(workplace, comment)
    assert findings.ignored == left_out
    assert len(findings) == 1 - left_out


def test_the_first_line_counts_and_those_between_do_not(workplace: Path) -> None:
    file = workplace / "lines.py"
    file.write_text(
        "x = (\n  1,  # between\n  2,  # here\n)  # end\nif x:  # head\n  y = 1  # in\n"
    )
    at = [[line.strip() for line in lines_at(Site(str(file), line, ""))] for line in (3, 5, 6, 9)]
    assert at == [["2,  # here", "x = (", ")  # end"], ["if x:  # head"], ["y = 1  # in"], []]


def test_a_file_that_does_not_parse_has_lines_all_the_same(workplace: Path) -> None:
    file = workplace / "broken.py"
    file.write_text("def (:\n")
    assert list(lines_at(Site(str(file), 1, ""))) == ["def (:\n"]


def test_the_file_behind_a_short_name() -> None:
    assert file_of("torch/nn/functional.py") == torch.nn.functional.__file__
    assert file_of("no/such/file.py") == "no/such/file.py"


# -- names and functions -------------------------------------------------------------------------


def test_rules_and_ignore(workplace: Path) -> None:
    assert [ran.rule for ran in found(workplace).ran] == ["train-mode", "unused"]
    assert [ran.rule for ran in found(workplace, rules=None, ignore=["train-mode"]).ran] != []
    assert "train-mode" not in [
        r.rule for r in found(workplace, rules=None, ignore=["train-mode"]).ran
    ]
    assert found(workplace, ignore=["train-mode", "unused"]).ran == ()


@pytest.mark.parametrize("argument", ["rules", "ignore"])
def test_an_unknown_rule_is_refused_with_the_nearest(workplace: Path, argument: str) -> None:
    with pytest.raises(
        UsageError, match=r"no rule 'trainmode'; did you mean 'train-mode'\? known:"
    ):
        found(workplace, **{argument: ["trainmode"]})


def test_a_single_name_is_no_list(workplace: Path) -> None:
    with pytest.raises(UsageError, match="as lists of names"):
        found(workplace, rules="unused")
    with pytest.raises(UsageError, match="a rule is a name or a function"):
        found(workplace, rules=[3])


def wide_outputs(probe: Examination) -> Iterator[Finding]:
    """Outputs that are wider than three."""
    for path, serial in probe.record.outputs.items():
        if probe.record.values[serial].shape[-1] > 3:
            yield probe.finding("warning", f"{path} is wide", "make it narrow", width=4)


def test_a_function_of_ones_own_is_a_rule() -> None:
    findings = fwd.check(nn.Linear(8, 4).eval(), X, rules=[wide_outputs, "unused"])
    (finding,) = findings
    assert (finding.rule, finding.message) == ("wide-outputs", "output is wide")
    assert finding.evidence == {"width": 4}
    assert [ran.rule for ran in findings.ran] == ["wide-outputs", "unused"]


def test_a_function_may_prove_nothing_and_its_errors_are_its_own() -> None:
    def shy(probe: Examination) -> Iterator[Finding]:
        raise Inapplicable("nothing to see")

    def wrong(probe: Examination) -> Iterator[Finding]:
        raise KeyError("x")

    (skipped,) = fwd.check(nn.Linear(8, 4), X, rules=[shy]).skipped
    assert (skipped.rule, skipped.reason) == ("shy", "nothing to see")
    with pytest.raises(KeyError):
        fwd.check(nn.Linear(8, 4), X, rules=[wrong])


def test_a_rule_that_returns_none_finds_nothing() -> None:
    def quiet(probe: Examination) -> None:
        assert probe.rows

    assert not fwd.check(nn.Linear(8, 4), X, rules=[quiet]).findings  # pyright: ignore


@pytest.mark.parametrize("came", ["text", 3, False, ["text"], [None]])
def test_a_rule_that_gives_no_findings_is_named(came: Any) -> None:
    def odd_one(probe: Examination) -> Any:
        return came

    with pytest.raises(UsageError, match=r"the rule 'odd-one' gave .*: a rule yields findings"):
        fwd.check(nn.Linear(8, 4), X, rules=[odd_one])


def test_two_functions_of_one_name_are_refused() -> None:
    def unused(probe: Examination) -> Iterator[Finding]:
        yield from ()

    with pytest.raises(UsageError, match="two rules have the name 'unused'"):
        fwd.check(nn.Linear(8, 4), X, rules=["unused", unused])


# -- pyproject.toml ------------------------------------------------------------------------------


def test_the_nearest_table_upwards_holds(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "pyproject.toml").write_text('[tool.forwardpass.check]\nignore = ["train-mode"]\n')
    (workplace / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(workplace / "a" / "b")
    assert "train-mode" not in [ran.rule for ran in found(workplace, rules=None).ran]
    assert len(found(workplace)) == 1, "what is asked for by name runs"
    (workplace / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert "train-mode" in [ran.rule for ran in found(workplace, rules=None).ran]


def test_rules_of_the_table(workplace: Path) -> None:
    (workplace / "pyproject.toml").write_text('[tool.forwardpass.check]\nrules = ["unused"]\n')
    assert [ran.rule for ran in found(workplace, rules=None).ran] == ["unused"]


@pytest.mark.parametrize(("glob", "left_out"), [("net.py", 1), ("*.py", 1), ("models/*", 0)])
def test_files_of_the_table(workplace: Path, glob: str, left_out: int) -> None:
    table = f'[tool.forwardpass.check.per-file]\n"{glob}" = ["train-mode"]\n'
    (workplace / "pyproject.toml").write_text(table)
    assert found(workplace).ignored == left_out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.forwardpass.check]\nignroe = []", "has no key 'ignroe'; did you mean 'ignore'"),
        ("[tool.forwardpass.chek]", "has no key 'chek'; did you mean 'check'"),
        ('[tool.forwardpass.check]\nignore = "unused"', "ignore is a list of rules"),
        ('[tool.forwardpass.check]\nrules = ["unusd"]', "there is no rule 'unusd'; did you mean"),
        ("[tool.forwardpass.check.per-file]\n'*.py' = ['x']", r"per-file\] '\*.py': there is no"),
        ("[tool.forwardpass]\ncheck = 3", "tool.forwardpass.check is a table"),
        ("[tool", "it cannot be read"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused_by_file_and_key(workplace: Path, text: str, message: str) -> None:
    (workplace / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        found(workplace)
    assert str(workplace / "pyproject.toml") in str(caught.value)
