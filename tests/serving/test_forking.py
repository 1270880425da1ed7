"""A process that has loaded a model is forked only where a fork computes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import models
import pytest
import torch

from forwardpass import Forward
from forwardpass.serving import forking

_LOADED = """
import models
from forwardpass import Forward
from forwardpass.serving import forking

forking.put_off_threads()
forward = Forward(models.mlp())
print([forking.unforkable(each) for each in (forward, forward @ "eager(device=cuda:0)")])
"""
_A_FOLDER = """
import sys
from forwardpass.serving import forking

forking.put_off_threads()
import transformers
from forwardpass import load

sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
config = transformers.BertConfig(**sizes, vocab_size=9)
transformers.BertModel(config).save_pretrained(sys.argv[1])
print([forking.unforkable(load(sys.argv[1]))])
"""


def test_a_model_that_was_loaded_may_be_forked_unless_another_device_computes() -> None:
    done = subprocess.run(  # this process may have threads of other tests
        [sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.stdout.startswith("['', 'it computes on cuda:0")


def test_a_folder_of_transformers_may_be_forked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _A_FOLDER, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "['']\n"


def test_threads_of_the_users_are_named() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="prefetcher")
    thread.start()
    try:
        assert "prefetcher" in forking.unforkable(Forward(models.mlp()))
    finally:
        done.set()
        thread.join()


_WITH_A_TEAM = """
import torch
torch.set_num_threads(2)
_ = torch.ones(1 << 20) + 1
from forwardpass import load
from forwardpass.serving.forking import unforkable
print(unforkable(load(torch.nn.Linear(1, 1))))
"""


@pytest.mark.soak  # it waits for what hangs
def test_a_team_of_threads_that_was_there_before_is_found_by_trying() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITH_A_TEAM], capture_output=True, text=True, check=True
    )
    assert "does not compute" in done.stdout


def test_threads_are_put_off_until_they_are_taken_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    assert forking.put_off_threads() == 2
    assert torch.get_num_threads() == 1
    forking.take_up_threads(2)
    assert torch.get_num_threads() == 2
    assert os.environ["OMP_NUM_THREADS"] == "2"


def test_threads_that_have_nothing_to_do_sleep_unless_somebody_says_otherwise() -> None:
    code = (
        "import os; from forwardpass.serving.forking import put_off_threads; put_off_threads(); "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    for said, found in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | said
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == found
