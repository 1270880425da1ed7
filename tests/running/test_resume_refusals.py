"""--resume goes on with the same run and no other; what differs is said."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from commands import FWD, spawned

import forwardpass as fwd
from forwardpass.errors import OutputExistsError, ResumeError

ROWS, SHARD = 20, 4


def values(rows: int = ROWS) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).normal(size=(rows, 16)).astype(np.float32)


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "data.npy"
    np.save(path, values())
    return str(path)


def compute(forward: Any, source: Any, out: Path, **options: Any) -> fwd.RunReport:
    return fwd.run(forward, source, out, **{"batch": 4, "shard_rows": SHARD, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def cut_back(out: Path, lines: int = 3) -> None:
    """As if the run had been killed after its header and some shards."""
    manifest = out / "manifest.jsonl"
    kept = manifest.read_text().splitlines(keepends=True)[:lines]
    manifest.write_text("".join(kept))
    committed = {json.loads(line)["file"] for line in kept[1:]}
    for part in out.glob("part-*"):
        if part.name not in committed:
            part.unlink()


def resealed(lines: list[str]) -> str:
    """A manifest of these lines, each with the checksum of itself and of the one before it."""
    checksum, done = "", list[str]()
    for line in lines:
        fields = json.loads(line)
        fields.pop("checksum", None)
        body = json.dumps(fields)[:-1]
        checksum = hashlib.sha256(f"{checksum}{body}".encode()).hexdigest()
        done.append(f'{body},"checksum":"{checksum}"}}\n')
    return "".join(done)


def edit_header(out: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = out / "manifest.jsonl"
    first, *others = manifest.read_text().splitlines(keepends=True)
    header = json.loads(first)
    edit(header)
    manifest.write_text(resealed([json.dumps(header), *others]))


def refused(message: str, forward: Any, source: Any, out: Path, **options: Any) -> None:
    """The run is not resumed, says what differs, and leaves everything as it was."""
    before = contents(out)
    with pytest.raises(ResumeError, match=message) as caught:
        compute(forward, source, out, resume=True, **options)
    assert caught.value.exit_code == 2
    assert contents(out) == before


# -- beginning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [False, True], ids=["absent", "empty"])
@pytest.mark.parametrize("name", ["out", "out.npy"])
def test_resume_begins_where_nothing_is_there(
    there: bool, name: str, data: str, tmp_path: Path
) -> None:
    folder = tmp_path / ("out.npy.run" if name == "out.npy" else name)
    if there:
        folder.mkdir()
    report = compute(models.mlp(), data, tmp_path / name, resume=True)
    assert (report.rows, report.resumed_rows) == (ROWS, 0)


def test_what_is_there_is_refused_without_resume_and_stays(data: str, tmp_path: Path) -> None:
    compute(models.mlp(), data, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="go on with it by --resume") as caught:
        compute(models.mlp(), data, tmp_path / "out")
    assert caught.value.exit_code == 2
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_others_is_refused(resume: bool, data: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00000.parquet").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="not the output of a run"):
        compute(models.mlp(), data, tmp_path / "out", resume=resume)
    assert contents(tmp_path / "out") == {"part-00000.parquet": b"mine"}


def test_a_manifest_of_others_is_refused(data: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_text('{"kind": "theirs"}\n')
    (tmp_path / "out" / "part-9.npy").write_bytes(b"mine")
    with pytest.raises(OutputExistsError):
        compute(models.mlp(), data, tmp_path / "out")
    refused("line 1.*cannot be resumed", models.mlp(), data, tmp_path / "out")


def test_a_manifest_of_others_without_an_end_of_line_is_left_alone(
    data: str, tmp_path: Path
) -> None:
    """Its only line is torn in our eyes; it is not ours to empty."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_text('{"kind": "theirs"}')
    (tmp_path / "out" / "part-9.npy").write_bytes(b"mine")
    refused("cannot be resumed", models.mlp(), data, tmp_path / "out")


# -- another Forward -----------------------------------------------------------------------------


@pytest.fixture
def begun(data: str, tmp_path: Path) -> Path:
    """A run that was cut off after two shards."""
    compute(models.mlp(), data, tmp_path / "out")
    cut_back(tmp_path / "out")
    return tmp_path / "out"


def test_the_same_run_goes_on(begun: Path, data: str, tmp_path: Path) -> None:
    report = compute(models.mlp(), data, begun, resume=True)
    assert (report.rows, report.resumed_rows) == (ROWS, 2 * SHARD)
    assert report.digest == compute(models.mlp(), data, tmp_path / "whole").digest


def test_other_weights(begun: Path, data: str) -> None:
    model = models.mlp()
    with torch.no_grad():
        model.module[2].bias[3] += 1e-7  # type: ignore[index, operator]
    refused("What differs: the Forward has other weights", model, data, begun)


def test_another_plan(begun: Path, data: str) -> None:
    forward = fwd.Forward(models.mlp(), fwd.Plan.parse("| cast(f64) @ eager"))
    refused(r"the Forward was 'Sequential @ eager', is .*cast\(f64\)", forward, data, begun)


def test_another_signature(begun: Path, data: str) -> None:
    model = fwd.Model(models.mlp().module, "features: f32[batch width=16..17]")
    refused("the Forward", model, data, begun)


def test_another_module_of_the_same_weights(begun: Path, data: str) -> None:
    first, _, last = models.mlp().module  # type: ignore[misc]
    model = fwd.Model(torch.nn.Sequential(first, torch.nn.GELU(), last), models.FEATURES)
    refused("the Forward", model, data, begun)


HEAD = """
import functools
import torch
from torch import nn
from torch.nn import functional as F
from forwardpass import Model

torch.manual_seed(0)
"""
TAIL = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 4)
        self.scales = [1.0, 2.0]
        self.activation = F.relu
        self.shift = torch.tensor([1.0])

    def forward(self, features):
        return self.activation(self.linear(features)) * self.scales[0] + self.shift + BIAS


model = Model(Net(), "features: f32[batch 16]", encode=encode)
"""
ENCODERS = {
    "code": ("def encode(rows):\n    return {'features': rows['array'] * 1}", "* 1", "* 2"),
    "a default": (
        "def encode(rows, scale=1):\n    return {'features': rows['array'] * scale}",
        "scale=1",
        "scale=2",
    ),
    "a constant of the file": (
        "SCALE = 1\ndef encode(rows):\n    return {'features': rows['array'] * SCALE}",
        "SCALE = 1",
        "SCALE = 2",
    ),
    "a function that it calls": (
        "def scaled(x):\n    return x * 1\n"
        "def encode(rows):\n    return {'features': scaled(rows['array'])}",
        "x * 1",
        "x * 2",
    ),
    "a closure": (
        "def made(scale):\n    return lambda rows: {'features': rows['array'] * scale}\n"
        "encode = made(1)",
        "made(1)",
        "made(2)",
    ),
    "a partial": (
        "def scaled(rows, scale):\n    return {'features': rows['array'] * scale}\n"
        "encode = functools.partial(scaled, scale=1)",
        "scale=1",
        "scale=2",
    ),
    "a method": (
        "class Encoder:\n    def __init__(self, scale):\n        self.scale = scale\n"
        "    def encode(self, rows):\n        return {'features': rows['array'] * self.scale}\n"
        "encode = Encoder(1).encode",
        "Encoder(1)",
        "Encoder(2)",
    ),
    "an object": (
        "class Encoder:\n    def __init__(self, scale):\n        self.scale = scale\n"
        "    def __call__(self, rows):\n        return {'features': rows['array'] * self.scale}\n"
        "encode = Encoder(1)",
        "Encoder(1)",
        "Encoder(2)",
    ),
    "an object inside an object": (
        "class Scale:\n    def __init__(self, scale):\n        self.scale = scale\n"
        "class Encoder:\n    def __init__(self, scale):\n        self.inner = Scale(scale)\n"
        "    def __call__(self, rows):\n"
        "        return {'features': rows['array'] * self.inner.scale}\n"
        "encode = Encoder(1)",
        "Encoder(1)",
        "Encoder(2)",
    ),
}
PLAIN = ENCODERS["code"][0]


def made(program: str) -> fwd.Model:
    """The model of a program, wherever its file may lie and whenever it was written."""
    names: dict[str, Any] = {"__name__": "users"}
    exec(program, names)
    return names["model"]


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encode_that_was_changed(name: str, data: str, tmp_path: Path) -> None:
    encoder, old, new = ENCODERS[name]
    program = (
        HEAD + encoder + "\nmodel = Model(nn.Linear(16, 4), 'x: f32[batch 16]', encode=encode)\n"
    )
    program = program.replace("'features'", "'x'").replace("'x: f32", "'input: f32")
    program = program.replace("{'x':", "{'input':")
    compute(made(program), data, tmp_path / "out")
    cut_back(tmp_path / "out")
    assert compute(made(program), data, tmp_path / "out", resume=True).resumed_rows == 2 * SHARD
    cut_back(tmp_path / "out")
    refused("the Forward", made(program.replace(old, new)), data, tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.scales[0] +", "self.scales[1] +"),
        ("[1.0, 2.0]", "[3.0, 2.0]"),
        ("F.relu", "F.gelu"),
        ("torch.tensor([1.0])", "torch.tensor([2.0])"),
        ("BIAS = 0.0", "BIAS = 1.0"),
    ],
    ids=["code", "a list", "a function", "a plain tensor", "a constant of the file"],
)
def test_a_module_that_was_changed(old: str, new: str, data: str, tmp_path: Path) -> None:
    program = HEAD + "BIAS = 0.0\n" + PLAIN + TAIL
    compute(made(program), data, tmp_path / "out")
    cut_back(tmp_path / "out")
    assert compute(made(program), data, tmp_path / "out", resume=True).resumed_rows == 2 * SHARD
    cut_back(tmp_path / "out")
    refused("the Forward", made(program.replace(old, new)), data, tmp_path / "out")


def test_an_encoder_that_remembers(data: str, tmp_path: Path) -> None:
    """A cache that fills while rows are encoded is no other encoder."""
    program = HEAD + (
        "class Encoder:\n    def __init__(self):\n        self.seen = {}\n"
        "        self.calls = 0\n"
        "    def __call__(self, rows):\n        self.calls += 1\n"
        "        self.seen[len(rows)] = self.calls\n"
        "        return {'input': rows['array']}\n"
        "model = Model(nn.Linear(16, 4), 'input: f32[batch 16]', encode=Encoder())\n"
    )
    compute(made(program), data, tmp_path / "out")
    cut_back(tmp_path / "out")
    assert compute(made(program), data, tmp_path / "out", resume=True).resumed_rows == 2 * SHARD


@pytest.mark.long
def test_a_file_beside_the_model_that_was_changed(data: str, tmp_path: Path) -> None:
    """encode calls a function that the model's file imports from the user's own next file."""
    (tmp_path / "scaling_of_mine.py").write_text("def scaled(x):\n    return x * 1\n")
    (tmp_path / "model.py").write_text(
        HEAD
        + "from scaling_of_mine import scaled\n"
        + "def encode(rows):\n    return {'input': scaled(rows['array'])}\n"
        + "model = Model(nn.Linear(16, 4), 'input: f32[batch 16]', encode=encode)\n"
    )
    program = (
        "import sys, forwardpass as fwd; fwd.run(sys.argv[1], sys.argv[2], sys.argv[3], "
        "resume=True, batch=4, shard_rows=4)"
    )

    def codes() -> tuple[int, str]:
        command = [sys.executable, "-B", "-c", program, str(tmp_path / "model.py"), data]
        done = subprocess.run(
            [*command, str(tmp_path / "out")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    assert codes()[0] == 0
    cut_back(tmp_path / "out")
    assert codes()[0] == 0, "unchanged, it goes on"
    cut_back(tmp_path / "out")
    (tmp_path / "scaling_of_mine.py").write_text("def scaled(x):\n    return x * 2\n")
    status, said = codes()
    assert status == 1
    assert "ResumeError" in said


@pytest.mark.parametrize("elsewhere", [False, True], ids=["touched", "moved"])
def test_a_model_file_of_the_same_content(elsewhere: bool, data: str, tmp_path: Path) -> None:
    """git checkout, cp or touch change no value: the run goes on."""
    path = tmp_path / "model.py"
    path.write_text(HEAD + "BIAS = 0.0\n" + PLAIN + TAIL)
    compute(str(path), data, tmp_path / "out")
    cut_back(tmp_path / "out")
    if elsewhere:
        (tmp_path / "other").mkdir()
        path = path.rename(tmp_path / "other" / "model.py")
    else:
        os.utime(path, (1, 1))
    assert compute(str(path), data, tmp_path / "out", resume=True).resumed_rows == 2 * SHARD


BODIES = {
    "a set in the code": "        assert 'x' not in {'one', 'two', 'three', 'four', 'five'}\n",
    "an address in a list": "        self.words = [Word()]\n",
    "a set in a dict": "        self.words = {'set': {'a', 'b', 'c', 'd', 'e'}}\n",
    "a day": "        import numpy\n        self.day = numpy.array(['2026-01-01'], 'M8[D]')\n",
}


def test_the_digest_is_the_same_in_another_process(data: str, tmp_path: Path) -> None:
    """A digest that holds addresses or the order of a set would refuse what it should resume."""
    for name, body in BODIES.items():
        (tmp_path / f"{name}.py").write_text(
            HEAD
            + "class Word:\n    pass\nclass Encoder:\n    def __init__(self):\n"
            + body
            + "    def __call__(self, rows):\n"
            + (body if "assert" in body else "")
            + "        return {'input': rows['array']}\n"
            + "model = Model(nn.Linear(16, 4), 'input: f32[batch 16]', encode=Encoder())\n"
        )
    program = (
        "import sys, forwardpass as fwd; ballast = [object()] * int(sys.argv[1])\n"
        "for name in sys.argv[3:]:\n"
        "    fwd.run(name + '.py', sys.argv[2], name, resume=True, batch=4, shard_rows=4)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, seed * 5, data, *BODIES],
            cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-600:]
        for name in BODIES:
            cut_back(tmp_path / name)


def test_a_tokenizer_that_was_changed(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    config = BertConfig(
        vocab_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(tmp_path / "bert")

    def tokenize(*words: str) -> None:
        tokenizer = Tokenizer(
            kinds.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.enable_truncation(8)  # what a file says; transformers sets it anew at each call
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
        ).save_pretrained(tmp_path / "bert")

    (tmp_path / "texts.txt").write_text("cat dog\ndog\n" * 8)
    tokenize("[PAD]", "[UNK]", "cat", "dog")
    loaded = fwd.load(str(tmp_path / "bert"))
    compute(loaded, str(tmp_path / "texts.txt"), tmp_path / "out")
    # The one that was used remembers how it cut the last texts; that changes no result.
    for forward in (loaded, str(tmp_path / "bert")):
        cut_back(tmp_path / "out")
        same = compute(forward, str(tmp_path / "texts.txt"), tmp_path / "out", resume=True)
        assert same.resumed_rows == 2 * SHARD
    cut_back(tmp_path / "out")
    tokenize("[PAD]", "[UNK]", "dog", "cat")
    refused("the Forward", str(tmp_path / "bert"), str(tmp_path / "texts.txt"), tmp_path / "out")


# -- other data, options, machine ----------------------------------------------------------------


def test_other_content(begun: Path, data: str) -> None:
    when = Path(data).stat()
    np.save(data, values() + 1)
    os.utime(data, ns=(when.st_atime_ns, when.st_mtime_ns))
    refused(r"the data: .*data\.npy: .*was .*, is ", models.mlp(), data, begun)


def test_another_time_of_change(begun: Path, data: str) -> None:
    os.utime(data, (1, 1))
    refused(r"the data: .*data\.npy: mtime", models.mlp(), data, begun)


def test_another_size(begun: Path, data: str) -> None:
    np.save(data, values(ROWS + 1))
    refused(r"the data: .*data\.npy: ", models.mlp(), data, begun)


def test_one_file_more(tmp_path: Path) -> None:
    for i in range(2):
        np.save(tmp_path / f"d{i}.npy", values(8))
    compute(models.mlp(), str(tmp_path / "d*.npy"), tmp_path / "out")
    cut_back(tmp_path / "out")
    np.save(tmp_path / "d2.npy", values(8))
    refused(
        "the data: 2 files then, 3 now", models.mlp(), str(tmp_path / "d*.npy"), tmp_path / "out"
    )


def test_other_data_in_memory(tmp_path: Path) -> None:
    compute(models.mlp(), {"features": values()}, tmp_path / "out")
    cut_back(tmp_path / "out")
    other = values()
    other[-1, -1] += 1e-3
    refused("the data: sha256 was", models.mlp(), {"features": other}, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 5}, "options: batch was 4, is 5"),
        ({"batch": "auto"}, "options: batch was 4, is 'auto'"),
        ({"limit": 7}, "options: limit was None, is 7"),
        ({"shard_rows": 5}, "options: shard_rows was 4, is 5"),
        ({"outputs": ["output"]}, "options: outputs was"),
        ({"keep": ["array"]}, "options: keep was"),
        ({"key": "array"}, "options: key was None, is 'array'"),
        ({"columns": {"features": "array"}}, "options: columns was"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_options(options: dict[str, Any], message: str, begun: Path, data: str) -> None:
    refused(message, models.mlp(), data, begun, **options)


def test_another_machine(begun: Path, data: str) -> None:
    edit_header(begun, lambda header: header["machine"].update({"cpu": "A Machine of Old"}))
    refused("machine: cpu was 'A Machine of Old', is", models.mlp(), data, begun)


def test_another_version_of_the_manifest(begun: Path, data: str) -> None:
    edit_header(begun, lambda header: header.update({"schema": "forwardpass/manifest/1"}))
    refused("begun by another version of forwardpass: its schema is", models.mlp(), data, begun)


def test_another_number_of_threads(begun: Path, data: str) -> None:
    threads = json.loads((begun / "manifest.jsonl").read_text().splitlines()[0])["machine"]
    assert "threads" in threads
    edit_header(begun, lambda header: header["machine"].update({"threads": 77}))
    refused("machine: threads was 77, is", models.mlp(), data, begun)


def test_another_version_of_what_computes(begun: Path, data: str) -> None:
    edit_header(begun, lambda header: header["machine"].update({"library": "torch 1.0 (AVX2)"}))
    refused(r"machine: library was 'torch 1.0 \(AVX2\)', is 'torch 2", models.mlp(), data, begun)


def test_all_differences_are_named(begun: Path, data: str) -> None:
    os.utime(data, (1, 1))
    refused(r"limit was None, is 3; .*mtime", models.mlp(), data, begun, limit=3)


# -- finished runs, leftovers --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out", "out.npy"])
def test_a_finished_run_is_left_as_it_is(name: str, data: str, tmp_path: Path) -> None:
    first = compute(models.mlp(), data, tmp_path / name)
    folder = tmp_path / ("out.npy.run" if name == "out.npy" else name)
    before = contents(folder)
    with before_each_pass(lambda *_: pytest.fail("it computes again")):
        again = compute(models.mlp(), data, tmp_path / name, resume=True)
    assert (again.rows, again.resumed_rows, again.digest) == (ROWS, ROWS, first.digest)
    assert contents(folder) == before


def test_a_torn_last_line(data: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = compute(models.mlp(), data, out).digest
    manifest = (out / "manifest.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(manifest) if byte == 10]
    for torn in (ends[0] + 1, ends[1] - 1, ends[2] + 9, ends[-1] - 1):
        (out / "manifest.jsonl").write_bytes(manifest[:torn])
        report = compute(models.mlp(), data, out, resume=True)
        assert (report.digest, report.rows) == (whole, ROWS)
        assert (out / "manifest.jsonl").read_bytes() == manifest


def test_files_that_were_written_aside_are_cleared(begun: Path, data: str) -> None:
    (begun / ".part-00002.parquet.aside").write_bytes(b"half")
    first = (begun / "part-00000.parquet").read_bytes()
    (begun / "part-00002.parquet").write_bytes(first)  # renamed and never committed
    compute(models.mlp(), data, begun, resume=True)
    assert not list(begun.glob(".*"))
    assert (begun / "part-00002.parquet").read_bytes() != first


def test_only_something_aside_is_as_good_as_empty(data: str, tmp_path: Path) -> None:
    """Killed before the manifest had its name: nothing was begun."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".manifest.jsonl.aside").write_bytes(b"{")
    assert compute(models.mlp(), data, tmp_path / "out").rows == ROWS


@pytest.mark.parametrize("finished", [False, True])
def _unsealed(line: str, seal: str = "") -> str:
    return re.sub(',"checksum":"[0-9a-f]*"', seal, line)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda a, b, c, *d: [a, b.replace(f'"rows":{SHARD}', '"rows":999'), c, *d], 2),
        (lambda a, *d: [a.replace('"limit":null', '"limit":16'), *d], 1),
        (lambda a, b, c, *d: [a, c, *d], 2),
        (lambda a, b, c, *d: [a, c, b, *d], 2),
        (lambda a, b, *d: [a, _unsealed(b, ',"checksum":""'), *d], 2),
        (lambda a, b, *d: [a, _unsealed(b), *d], 2),
    ],
    ids=["a count", "an option", "one left out", "two swapped", "no checksum", "none at all"],
)
def test_a_manifest_that_was_changed(
    damage: Callable[..., list[str]], line: int, finished: bool, data: str, tmp_path: Path
) -> None:
    """Each line holds a checksum of itself and of those before it."""
    out = tmp_path / "out"
    compute(models.mlp(), data, out)
    if not finished:
        cut_back(out)
    lines = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    changed = damage(*lines)
    assert changed != lines
    (out / "manifest.jsonl").write_text("".join(changed))
    refused(f"line {line} is not as it was written", models.mlp(), data, out)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_a_committed_shard_that_is_damaged(
    finished: bool, damage: str, data: str, tmp_path: Path
) -> None:
    """The manifest holds its checksum; going on without it would report rows that are not there."""
    out = tmp_path / "out"
    compute(models.mlp(), data, out)
    if not finished:
        cut_back(out)
    part = out / "part-00001.parquet"
    if damage == "removed":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    refused(r"part-00001\.parquet", models.mlp(), data, out)


@contextmanager
def before_each_pass(hook: Callable[[Any, Any], None]) -> Iterator[None]:
    """A hook on every module of the process, which is no part of the model."""
    handle = torch.nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_two_at_once(data: str, tmp_path: Path) -> None:
    """The second run on the same OUT is refused while the first one is computing."""
    said: list[str] = []

    def second(*_: object) -> None:
        if (tmp_path / "out" / "manifest.jsonl").exists() and not said:
            said.append("tried")
            with pytest.raises(ResumeError, match="another process is writing") as caught:
                compute(models.mlp(), data, tmp_path / "out", resume=True)
            said.append(str(caught.value))

    with before_each_pass(second):
        assert compute(models.mlp(), data, tmp_path / "out").rows == ROWS
    assert len(said) == 2
    assert compute(models.mlp(), data, tmp_path / "out", resume=True).rows == ROWS, "it lets go"


# -- interrupted ---------------------------------------------------------------------------------


def test_interrupted_in_the_model(data: str, tmp_path: Path, two_threads: int) -> None:
    whole = compute(models.mlp(), data, tmp_path / "whole")
    for at in (0, 1, 9, 10, 17, 19):
        out, row = tmp_path / f"out-{at}", torch.from_numpy(values()[at])

        def interrupt(_: object, inputs: tuple[Any, ...], row: torch.Tensor = row) -> None:
            if inputs[0].shape[1:] == row.shape and bool((inputs[0] == row).all(1).any()):
                raise KeyboardInterrupt

        with before_each_pass(interrupt), pytest.raises(KeyboardInterrupt):
            compute(models.mlp(), data, out)
        assert torch.get_num_threads() == two_threads
        report = compute(models.mlp(), data, out, resume=True)
        assert (report.rows, report.digest) == (ROWS, whole.digest)


SLOW = """
import time
import torch
from torch import nn
from forwardpass import Model

torch.manual_seed(0)


class Slow(nn.Linear):
    def forward(self, features):
        time.sleep(0.02)
        return super().forward(features)


model = Model(Slow(16, 4), "features: f32[batch 16]")
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupted_by_ctrl_c(data: str, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(SLOW)
    np.save(data, values(500))
    arguments = [f"{tmp_path / 'model.py'}", data, "--batch", "4", "--shard-rows", "8"]
    out = tmp_path / "out"
    manifest = out / "manifest.jsonl"
    with subprocess.Popen(
        [*FWD, "run", *arguments, "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores the signal for what runs in its background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        while process.poll() is None:
            if manifest.exists() and manifest.read_text().count("\n") >= 3:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate()
    assert process.returncode == 130, said
    assert printed == ""
    assert f"interrupted; go on with --resume into {out}" in said
    assert "Traceback" not in said
    assert "finished" not in manifest.read_text()
    done = spawned("run", *arguments, "-o", str(out), "--resume", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"] == 500
    assert report["resumed_rows"] >= 16
    whole = compute(str(tmp_path / "model.py"), data, tmp_path / "whole", shard_rows=8)
    assert whole.digest == report["digest"]


def rows_of(count: int, until: int | None = None) -> Iterator[dict[str, Any]]:
    for i, row in enumerate(values(count)):
        if i == until:
            raise KeyboardInterrupt
        yield {"features": row}


def test_a_source_that_is_interrupted(tmp_path: Path) -> None:
    options = {"batch": 100, "shard_rows": 1000}
    whole = compute(models.mlp(), rows_of(6000), tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        compute(models.mlp(), rows_of(6000, until=5000), tmp_path / "out", **options)
    report = compute(models.mlp(), rows_of(6000), tmp_path / "out", **options, resume=True)
    assert (report.rows, report.digest) == (6000, whole.digest)


def test_a_function_that_yields_rows_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(
        "import numpy as np\n"
        "def rows():\n"
        "    for row in np.random.default_rng(5).normal(size=(20, 16)):\n"
        "        yield {'features': row}\n"
    )
    source = str(tmp_path / "rows.py") + ":rows"
    whole = compute(models.mlp(), source, tmp_path / "out").digest
    cut_back(tmp_path / "out")
    report = compute(models.mlp(), source, tmp_path / "out", resume=True)
    assert (report.rows, report.resumed_rows, report.digest) == (ROWS, 2 * SHARD, whole)
    cut_back(tmp_path / "out")
    text = (tmp_path / "rows.py").read_text()
    (tmp_path / "rows.py").write_text(text.replace("default_rng(5)", "default_rng(6)"))
    refused("the data", models.mlp(), source, tmp_path / "out")


def test_calibration_is_stored_not_repeated(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--batch auto: a resumed run forms its batches by the costs of the first one."""
    out = tmp_path / "out"
    whole = compute(models.mlp(), data, out, batch="auto")
    header = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    assert header["costs"]["points"]
    cut_back(out)

    def sized(*_: object, **__: object) -> None:
        raise AssertionError("sizes are tried again")

    monkeypatch.setattr("forwardpass.preparing.preparing.sized", sized)
    with pytest.raises(AssertionError, match="tried again"):
        compute(models.mlp(), data, tmp_path / "other", batch="auto")
    report = compute(models.mlp(), data, out, batch="auto", resume=True)
    assert report.digest == whole.digest


def test_partial_encoders_in_memory(data: str, tmp_path: Path) -> None:
    def encode(rows: fwd.Rows, scale: float) -> dict[str, Any]:
        return {"features": rows["array"] * scale}

    def model(scale: float) -> fwd.Model:
        return fwd.Model(
            models.mlp().module, models.FEATURES, encode=functools.partial(encode, scale=scale)
        )

    compute(model(1.0), data, tmp_path / "out")
    cut_back(tmp_path / "out")
    refused("the Forward", model(2.0), data, tmp_path / "out")
