"""fwd check on the command line: what is found, what decides the exit code, and whole scripts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from commands import spawned
from torch import nn

import forwardpass as fwd
from forwardpass.cli import main

MODEL = """
import torch
from torch import nn
from torch.nn import functional as F
from forwardpass import Model


class Drops(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return F.dropout(self.fc(x), 0.5)


class Spare(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.spare = nn.Linear(8, 4), nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x)


class Raises(nn.Module):
    def forward(self, x):
        raise ValueError("no")


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    drops = Model(Drops(), "x: f32[batch 8]")
    spare = Model(Spare(), "x: f32[batch 8]")
    parts = nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU()
    sound = Model(nn.Sequential(*parts), "input: f32[batch 8]")
    raises = Model(Raises(), "x: f32[batch 8]")
"""

TRAIN = """
import sys
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.bn, self.two = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 2)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.two(self.drop(self.bn(self.one(x)).relu()))


torch.manual_seed(0)
net, loss_of = Net(), nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
for step in range(int(sys.argv[1])):
    x = torch.randn(32, 8)
    loss = loss_of(net(x), (x[:, 0] > 0).long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
net.eval()
print(sum(net(row[None]).argmax().item() for row in torch.randn(20, 8)))  # alone
net.train()
with torch.no_grad():
    print(net(torch.randn(5, 8)).sum().item())  # noisy
print(__name__, sys.argv, [p.grad.norm().item() for p in net.parameters()])
"""


@pytest.fixture
def folder(workplace: Path) -> Path:
    (workplace / "model.py").write_text(MODEL)
    (workplace / "train.py").write_text(TRAIN)
    return workplace


def invoke(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["check", *arguments])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


# -- a Forward -----------------------------------------------------------------------------------


def test_the_printout(folder: Path) -> None:
    done = invoke("model.py:drops", "--batch", "2", code=1)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("✗ 1 error")
    line = MODEL.splitlines().index("        return F.dropout(self.fc(x), 0.5)") + 1
    assert f"✗ error train-mode model.py:{line}: eval mode, yet dropout" in done.stdout
    assert re.search(r" ran  .*train-mode\s+1\s+pass", done.stdout, re.DOTALL)
    assert max(map(len, lines)) <= 80
    assert "its code ran" in done.stderr
    assert "\x1b" not in done.output


def test_a_guessed_signature_is_no_evidence_of_a_batch(folder: Path) -> None:
    (folder / "cloud.py").write_text(
        "from torch import nn\n\n\n"
        "class Cloud(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(3, 8)\n\n"
        "    def forward(self, points):\n"
        "        return self.fc(points - points.mean(0)).relu()\n\n\n"
        "model = Cloud()\n"
    )
    only = ("--rules", "batch-leak")
    done = invoke("cloud.py", *only)
    assert 'guessed: --signature "points: f32[batch 3]"' in done.stderr
    assert "before any layer has seen a row" in " ".join(done.output.split())
    said = invoke("cloud.py", "--signature", "points: f32[batch 3]", *only, code=1)
    assert "it crosses at .mean" in " ".join(said.output.split())


def test_nothing_found(folder: Path) -> None:
    assert invoke("model.py:sound", "--batch", "3").stdout.startswith("✓ nothing found")


@pytest.mark.parametrize(
    ("fail_on", "code"), [("error", 0), ("warning", 1), ("note", 1), ("never", 0)]
)
def test_fail_on(folder: Path, fail_on: str, code: int) -> None:
    done = invoke("model.py:spare", "--rules", "unused", "--fail-on", fail_on, code=code)
    assert "! warning unused" in done.stdout


def test_json_is_all_of_stdout(folder: Path) -> None:
    done = invoke("model.py:drops", "--json", code=1)
    document = json.loads(done.stdout)
    assert document["schema"] == "forwardpass/findings/1"
    assert fwd.Findings.from_json(done.stdout).of("train-mode")[0].evidence["dropouts"] == 1


def test_rules_and_ignore(folder: Path) -> None:
    findings = fwd.Findings.from_json(
        invoke("model.py:drops", "--rules", "unused,train-mode", "--ignore", "train-mode", "--json")
        .stdout
    )  # fmt: skip
    assert [ran.rule for ran in findings.ran] == ["unused"]
    assert "did you mean 'unused'" in invoke("model.py:drops", "--rules", "unusd", code=2).stderr


def test_mode_and_grad(folder: Path) -> None:
    done = invoke("model.py:sound", "--mode", "train", "--grad", "on", "--batch", "4")
    assert "· note state-changed" in done.stdout
    done = invoke("model.py:sound", "--mode", "train", "--batch", "4", "--fail-on=warning", code=1)
    assert "! warning train-mode" in done.stdout


def test_a_model_that_raises(folder: Path) -> None:
    assert "ValueError: no" in invoke("model.py:raises", "-q", code=4).stderr


def test_quiet(folder: Path) -> None:
    done = invoke("model.py:sound", "--quiet", "--batch", "2")
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["model.py:sound", "--script", "train.py"]])
def test_one_of_the_two_is_given(folder: Path, arguments: list[str]) -> None:
    assert "give one of the two" in invoke(*arguments, code=2).stderr


# -- a script ------------------------------------------------------------------------------------


def test_a_script_computes_what_it_computes_alone(folder: Path) -> None:
    plain = subprocess.run(
        [sys.executable, "train.py", "150"], capture_output=True, text=True, check=True
    )
    done = spawned("check", "--script", "train.py", "150", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(plain.stdout), "losses, weights, gradients, random numbers"
    printed = done.stdout[len(plain.stdout) :]
    assert printed.startswith("! "), printed


def test_what_is_wrong_in_how_a_script_calls_its_model(folder: Path) -> None:
    done = invoke("--json", "--script", "train.py", "5")
    findings = fwd.Findings.from_json(done.stdout)
    assert findings.forward == "train.py 5"
    assert "__main__ ['train.py', '5']" in done.stderr, "what the script prints is put aside"
    lines = TRAIN.splitlines()
    alone = next(n for n, line in enumerate(lines, 1) if line.endswith("# alone"))
    forward = lines.index("        return self.two(self.drop(self.bn(self.one(x)).relu()))") + 1
    places = {(f.rule, f.severity, f.site and f.site.line) for f in findings}
    assert ("grad-kept", "warning", alone) in places
    noisy = next(n for n, line in enumerate(lines, 1) if line.endswith("# noisy"))
    assert ("train-mode", "warning", noisy) in places, "the caller is to be mended"
    assert ("state-changed", "note", forward) in places
    assert findings.of("grad-kept")[0].evidence["passes"] == 20
    assert all(f.site is None or f.site.file == "train.py" for f in findings)


NET = """
import torch
from torch import nn
F = nn.functional
torch.manual_seed(0)
def made(*sizes):
    return nn.Sequential(
        nn.Linear(sizes[0], 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(16, sizes[1]),
    )
def learn(loss, *models):
    loss.backward()
    for model in models:
        for weight in model.parameters():
            weight.data -= 1e-3 * weight.grad if weight.grad is not None else 0.0
            weight.grad = None
net = made(8, 2)
"""


def warned(text: str, *rules: str) -> set[tuple[str, int]]:
    """The rules that say error or warning of a script, with the lines marked FAULT."""
    Path("some.py").write_text(NET + text)
    chosen = ",".join(rules or ("train-mode", "grad-kept", "io-mismatch"))
    done = CliRunner().invoke(main, ["check", "--json", "--rules", chosen, "--script", "some.py"])
    findings = fwd.Findings.from_json(done.stdout)
    assert not [one for one in findings.skipped if "rule failed" in one.reason]
    return {(f.rule, f.site.line) for f in findings if f.severity != "note" and f.site}


IDLE = {
    "inference only": "for _ in range(4):\n    net(torch.randn(6, 8)).argmax(1)  # FAULT\n",
    "validation of several batches": """
for _ in range(3):
    for _ in range(4):
        learn(net(torch.randn(6, 8)).square().mean(), net)
    for _ in range(2):
        net(torch.randn(6, 8)).argmax(1)  # FAULT
""",
    "validation of one batch, after each step": """
for _ in range(3):
    learn(net(torch.randn(6, 8)).square().mean(), net)
    held_out = net(torch.randn(6, 8)).square().mean()  # FAULT
""",
    "one prediction after training": """
for _ in range(200):
    learn(net(torch.randn(6, 8)).square().mean(), net)
print(net(torch.randn(6, 8)).argmax(1))  # FAULT
""",
    "samples of a generator that was trained": """
judge = made(2, 1)
for _ in range(3):
    learn(judge(net(torch.randn(6, 8))).mean(), net, judge)
for _ in range(2):
    net(torch.randn(6, 8)).tolist()  # FAULT
""",
    "an encoder and a decoder": """
decoder = made(2, 8)
for _ in range(3):
    x = torch.randn(6, 8)
    learn(F.mse_loss(decoder(net(x)), x), net, decoder)
    code = net(torch.randn(6, 8))  # FAULT
""",
}


@pytest.mark.parametrize("name", IDLE)
def test_train_mode_where_nothing_is_learned(folder: Path, name: str) -> None:
    line = next(n for n, text in enumerate((NET + IDLE[name]).split("\n"), 1) if "FAULT" in text)
    assert warned(IDLE[name]) == {("train-mode", line), ("grad-kept", line)}


LEARNS = {
    "a generator under the discriminator's step": """
judge = made(2, 1)
for _ in range(3):
    fake = net(torch.randn(6, 8)).detach()
    learn(judge(torch.randn(6, 2)).mean() - judge(fake).mean(), judge)
    learn(judge(net(torch.randn(6, 8))).mean(), net)
""",
    "a critic of several steps, summed": """
judge = made(2, 1)
for _ in range(3):
    loss = 0
    for _ in range(3):
        fake = net(torch.randn(6, 8)).detach()
        loss = loss + judge(fake).mean()
    learn(loss, judge)
    learn(judge(net(torch.randn(6, 8))).mean(), net)
""",
    "gradient accumulation": """
for _ in range(3):
    learn(sum(net(torch.randn(6, 8)).mean() for _ in range(3)), net)
""",
    "an early break": """
for step in range(9):
    loss = net(torch.randn(6, 8)).square().mean()
    if step == 5:
        break
    learn(loss, net)
""",
    "targets of the model itself": """
for _ in range(3):
    target = net(torch.randn(6, 8)).detach()
    learn(F.mse_loss(net(torch.randn(6, 8)), target), net)
""",
    "targets of a teacher, computed last": """
teacher = made(8, 2)
for _ in range(3):
    x = torch.randn(6, 8)
    mine = net(x)
    views = [teacher(x + torch.randn(6, 8)).detach() for _ in range(2)]
    learn(sum(F.mse_loss(mine, view) for view in views), net)
""",
    "a size that is tried out": """
with_head = nn.Linear(net(torch.randn(6, 8)).shape[1], 3)
for _ in range(3):
    learn(with_head(net(torch.randn(6, 8))).mean(), net, with_head)
""",
    "a shape that is tried out": "print(net(torch.randn(6, 8)).shape)\n",
    "gradients of torch.func": """
weights = dict(net.named_parameters())
def loss(weights, x):
    return torch.func.functional_call(net[0], weights, (x,)).square().mean()
weights = dict(net[0].named_parameters())
for _ in range(3):
    torch.func.grad(loss)(weights, torch.randn(6, 8))
""",
    "more passes than are recorded": """
def step(learns):
    y = net(torch.randn(6, 8)).mean()
    if learns:
        learn(y, net)
for number in range(150):
    step(number > 140)
""",
    "eval and no_grad": """
for _ in range(3):
    net.train()
    learn(net(torch.randn(6, 8)).square().mean(), net)
    net.eval()
    with torch.no_grad():
        net(torch.randn(6, 8))
""",
}


@pytest.mark.parametrize("name", LEARNS)
def test_what_training_does_is_not_accused(folder: Path, name: str) -> None:
    assert warned(LEARNS[name]) == set()


UNITS = """
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
for _ in range(20):
    learn(model({learned}).square().mean(), model)
model.eval()
with torch.no_grad():
    for _ in range(2):
        model({given})  # FAULT
"""


@pytest.mark.parametrize(
    ("learned", "given", "is_off"),
    [
        ("torch.rand(16, 8)", "torch.rand(16, 8) * 255", True),
        ("torch.rand(16, 8) * 255", "torch.rand(16, 8)", True),
        ("torch.randn(16, 8)", "torch.randint(0, 256, (4, 8)).float()", True),
        ("torch.rand(16, 8) * 2 - 1", "torch.rand(1, 8) * 255", True),
        ("torch.rand(16, 8)", "torch.rand(16, 8)", False),
        ("torch.rand(16, 8)", "(torch.rand(16, 8) - 0.485) / 0.229", False),
        ("torch.rand(16, 8) * (0.2 + 1.5 * torch.rand(16, 1))", "torch.rand(16, 8)", False),
        ("torch.rand(16, 8)", "torch.rand(1, 8)", False),
        ("torch.rand(16, 8) * 255", "torch.rand(16, 8) * 12", False),
        ("torch.rand(16, 8)", "torch.zeros(16, 8)", False),
        ("(torch.rand(16, 8) > 0.999).float()", "(torch.rand(16, 8) > 0.5).float()", False),
        ("torch.randn(16, 8).exp() ** 3", "torch.randn(4, 8).exp() ** 3", False),
    ],
)
def test_another_unit_than_where_it_learned(
    folder: Path, learned: str, given: str, is_off: bool
) -> None:
    text = UNITS.format(learned=learned, given=given)
    line = next(n for n, code in enumerate((NET + text).split("\n"), 1) if "FAULT" in code)
    assert warned(text, "io-mismatch") == ({("io-mismatch", line)} if is_off else set())


def test_tokens_have_no_unit(folder: Path) -> None:
    text = (
        "words = nn.Sequential(nn.Embedding(900, 8), nn.Flatten(), nn.Linear(40, 2))\n"
        "for _ in range(5):\n"
        "    learn(words(torch.randint(0, 5, (6, 5))).square().mean(), words)\n"
        "words.eval()\n"
        "with torch.no_grad():\n    words(torch.randint(800, 900, (6, 5)))\n"
    )
    assert warned(text, "io-mismatch") == set()


def test_all_calls_of_a_line_are_counted(folder: Path) -> None:
    Path("often.py").write_text(
        "import torch\nnet = torch.nn.Linear(8, 4).eval()\n"
        "for row in torch.randn(200, 1, 8):\n    net(row)\n"
    )
    done = invoke("--json", "--rules", "one-by-one,grad-kept", "--script", "often.py")
    messages = {f.rule: f.message for f in fwd.Findings.from_json(done.stdout)}
    assert messages["one-by-one"].startswith("called 200 times with one row")
    assert messages["grad-kept"].startswith("200 passes in eval mode")


def test_training_in_eval_mode_keeps_what_backward_takes(folder: Path) -> None:
    text = TRAIN.replace("net, loss_of = Net()", "net, loss_of = Net().eval()").split(
        "net.eval()\n"
    )
    Path("tunes.py").write_text(text[0])
    done = invoke("--json", "--rules", "grad-kept", "--script", "tunes.py", "3")
    assert not [f for f in fwd.Findings.from_json(done.stdout) if f.severity != "note"]


def test_options_after_the_script_are_its_own(folder: Path) -> None:
    Path("args.py").write_text(
        "import sys, torch\nprint(sys.argv)\ntorch.nn.Linear(2, 2)(torch.ones(1, 2))"
    )
    done = invoke("--rules", "unused", "--script", "args.py", "--json", "--rules", "x")
    assert done.stdout.startswith("['args.py', '--json', '--rules', 'x']\n✓ nothing found")
    assert invoke("--script=args.py", "--quiet").stdout.startswith("['args.py', '--quiet']")


def test_parts_that_the_script_calls_itself_are_models_and_losses_are_not(folder: Path) -> None:
    Path("parts.py").write_text(
        "import torch\nfrom torch import nn\n"
        "encoder, head = nn.Linear(8, 4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))\n"
        "loss = nn.MSELoss()(head(encoder(torch.randn(6, 8))), torch.zeros(6, 4))\n"
        "loss.backward()\n"
    )
    from forwardpass.checking import Script

    script = Script("parts.py", ())
    with script.ran():
        pass
    assert script.ended is None
    assert [type(root.module) for root in script.roots] == [nn.Linear, nn.Sequential]
    assert [len(root.records) for root in script.roots] == [1, 1]
    assert [root.learned == {root.records[0].caller} for root in script.roots] == [True, True]


def test_what_is_kept_of_a_long_loop_is_bounded(folder: Path) -> None:
    from forwardpass.checking.scripts import MOST_PASSES_A_LINE, Script

    Path("long.py").write_text(
        "import torch\nnet = torch.nn.Linear(8, 4).eval()\n"
        "with torch.no_grad():\n    for row in torch.randn(1000, 1, 8):\n        net(row)\n"
    )
    script = Script("long.py", ())
    with script.ran():
        pass
    assert len(script.roots[0].records) == MOST_PASSES_A_LINE


def test_python_is_as_it_was(folder: Path) -> None:
    before = sys.argv, list(sys.path), sys.modules["__main__"], nn.Module.__call__
    invoke("--script", "train.py", "2")
    assert (sys.argv, list(sys.path), sys.modules["__main__"], nn.Module.__call__) == before


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit(7)", 7, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('enough')", 1, "enough"),
        ("raise ValueError('boom')", 1, 'ends.py", line 4, in <module>'),
        ("raise KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_how_the_script_ends(folder: Path, end: str, code: int, said: str) -> None:
    Path("ends.py").write_text(
        f"import sys, torch\nnet = torch.nn.Linear(2, 2)\nnet(torch.ones(3, 2))\n{end}\n"
    )
    done = invoke("--rules", "unused", "--script", "ends.py", code=code)
    assert "✓ nothing found" in done.stdout, "what was found comes first"
    assert said in done.stderr
    assert "forwardpass" not in done.stderr.replace("fwd: ", "")


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("print('nothing')", [], "it called no model"),
        (None, [], "it cannot be read"),
        ("", ["--mode", "train"], "--mode does not go with --script"),
        ("", ["--batch", "3"], "--batch does not go with --script"),
        ("", ["--inputs", "x.npy"], "--inputs does not go with --script"),
    ],
)
def test_what_is_refused(folder: Path, text: str | None, arguments: list[str], said: str) -> None:
    if text is not None:
        Path("some.py").write_text(text)
    assert said in invoke(*arguments, "--script", "some.py", code=2).stderr


def test_a_pass_that_cannot_be_made_again_is_told(folder: Path) -> None:
    Path("once.py").write_text(
        "import torch\nfrom torch import nn\nopen_now = [True]\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(2, 2)\n"
        "    def forward(self, x):\n        assert open_now\n        return self.fc(x)\n"
        "Net()(torch.ones(3, 2))\nopen_now.clear()\n"
    )
    done = invoke("--script", "once.py")
    assert "all rules: the pass cannot be made again" in done.stdout
