"""fwd explain, and the explanation as it is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from rich.cells import cell_len
from torch import nn

from forwardpass import record
from forwardpass.cli import main
from forwardpass.nouns.explanations import Equation, Explanation, Part, Term
from forwardpass.showing.terminal import text

GOLDEN = Path(__file__).parent / "explained.txt"
MODEL = """
import torch
from torch import nn
from forwardpass import Model


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 3)
        self.fc2 = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    model = Model(Net(), "x: f32[batch 4]")
"""


@pytest.fixture
def fwd(workplace: Path) -> Any:
    (workplace / "model.py").write_text(MODEL)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["explain", "model.py", *arguments])

    return call


def test_all_that_can_be_explained_is_listed(fwd: Any) -> None:
    result = fwd("--list")
    assert result.exit_code == 0
    for element in ("output[0, 0]", "fc1[0, 0]", "fc2[0, 0]"):
        assert element in result.stdout
    assert "its code ran" not in result.stdout


def test_an_element_as_text_and_as_json(fwd: Any) -> None:
    printed, encoded = fwd("fc1[0,2]"), fwd("fc1[0,2]", "--json")
    assert printed.exit_code == encoded.exit_code == 0
    assert "W[2, 0] · x[0, 0]" in printed.stdout
    assert "what the pass computed" in printed.stdout
    said = Explanation.from_json(encoded.stdout)
    assert [part.name for part in said.parts] == ["F.linear", "torch.relu"]
    assert said.parts[0].difference == pytest.approx(0, abs=1e-6)


def test_the_way_back_with_and_without_a_loss(fwd: Any) -> None:
    summed = Explanation.from_json(fwd("fc2.weight[1,2]", "--gradient", "--json").stdout).gradient
    one = fwd("fc2.weight[1,2]", "--gradient", "--loss", "output[0,0]", "--json")
    assert summed is not None
    assert summed.loss == "the sum of output"
    gradient = Explanation.from_json(one.stdout).gradient
    assert gradient is not None
    assert (gradient.loss, gradient.value, gradient.autograd) == ("output[0, 0]", 0, 0)
    assert "∂ the sum of output / ∂ x[0, 3]" in fwd("x[0,3]", "--gradient").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fc3[0,0]"], "nothing in the record is called 'fc3'"),
        (["fc1[0,9]"], "lies outside of [1 3]"),
        (["x[0,0]"], "with --gradient its way back"),
        (["fc1.weight[0,0]", "--gradient", "--loss", "fc1[0,0]"], "an element of an output"),
    ],
)
def test_what_is_refused_exits_with_two(fwd: Any, arguments: list[str], said: str) -> None:
    result = fwd(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def fixed() -> nn.Sequential:
    module = nn.Sequential()
    module.add_module("fc1", nn.Linear(8, 3))
    module.add_module("act", nn.ReLU())
    with torch.no_grad():
        weight = torch.arange(24.0).reshape(3, 8)
        module.fc1.weight.copy_(torch.cos(weight) / (1 + weight))
        module.fc1.bias.copy_(torch.tensor([0.5, -0.25, 0.125]))
    return module


def printed() -> str:
    x = torch.tensor([[1.0, -2.0, 3.5, 0.0, 1e-4, 12.0, -0.75, 2.0], [0.5] * 8])
    module = fixed()
    done = record(module, x, grad="off")
    cumulative = record(nn.Softmax(-1), x[:, :2], grad="off")
    said = [
        done.explain("fc1[0, 1]"),
        done.explain("fc1.weight[1, 5]", gradient=True),
        cumulative.explain("output[1, 1]"),
    ]
    return "\n\n".join(str(one) for one in said) + "\n"


def test_the_explanation_as_it_is_printed() -> None:
    """Change explained.txt on purpose, and look at it."""
    assert unplaced(printed()) == unplaced(GOLDEN.read_text(encoding="utf-8"))


def unplaced(page: str) -> list[str]:
    """Without the lines of PyTorch's files and the last digits, which are those of a machine."""
    lines = [line.split(" at torch/")[0] for line in page.splitlines()]
    return [line for line in lines if "difference" not in line]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_of_an_explanation_is_wider_than_the_terminal(width: int) -> None:
    module = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    done = record(module, torch.randn(1, 3, 8), grad="off")
    page = text(done.explain("output[0, 2, 7]"), width)
    assert max(map(cell_len, page.splitlines())) <= width


def part(recorded: float, value: float, *terms: float) -> str:
    summands = tuple(Term(f"t[{i}]", term) for i, term in enumerate(terms))
    steps = (Equation("y", "Σ t", value, summands),)
    one = Part(0, "aten.sum", ".sum", "", "a.py:1", (0,), steps, "", (), value, recorded)
    return str(Explanation(forward="f", element="output[0]", parts=(one,)))


def test_the_largest_terms_come_first_and_the_others_are_summed() -> None:
    page = part(55, 55, *range(1, 11))
    order = [page.index(f"t[{i}]") for i in (9, 8, 7, 6, 5)]
    assert order == sorted(order)
    assert "t[4]" not in page
    assert "the sum of 5 smaller terms" in page
    assert "t[0]" in part(45, 45, *range(1, 10))  # nine are shown to the last


@pytest.mark.parametrize(
    ("recorded", "value", "said"),
    [
        (1.0, 1.0, "difference: none"),
        (1.0, 1.0000001, "difference: rounding"),
        (1.0, 2.0, "! difference: more than rounding explains"),
        (float("nan"), float("nan"), "difference: none"),
        (float("inf"), float("inf"), "difference: none"),
        (float("nan"), 1.0, "! difference: more than rounding"),
        (1.0, float("inf"), "! difference: more than rounding"),
    ],
)
def test_a_difference_is_said_in_words(recorded: float, value: float, said: str) -> None:
    assert said in part(recorded, value, 1.0)
