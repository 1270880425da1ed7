"""tritonclient.http against a whole server: supervisor, HTTP process, engines that compute."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

MODELS = """
import torch
from torch import nn

import forwardpass as fwd

torch.manual_seed(0)


class Bytes(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(256, 8)

    def forward(self, bytes, mask):
        hidden = self.table(bytes) * mask[..., None]
        return {"hidden": hidden, "mean": hidden.sum(1) / mask.sum(1, keepdim=True)}


class Sums(nn.Module):
    def forward(self, x, offset):
        return {"sums": x.cumsum(0) + offset, "last": x.sum(0)}


def encode(rows):
    return {"bytes": [list(text.encode()) for text in rows["text"]]}


texts = fwd.Model(
    Bytes(),
    ["bytes: i64[batch length=1..100] pad 0", "mask: f32[batch length] = valid(length)"],
    encode=encode,
)
sums = fwd.Model(Sums(), ["x: f32[5 batch 4]", "offset: bf16[batch 4]"])
"""
SERVER = """
import sys
from forwardpass.serving.options import ServedModel, ServeOptions
from forwardpass.serving.supervising import supervise
from forwardpass.serving.witnesses import Witness

class Telling(Witness):
    def ready(self, url, models):
        print(url, flush=True)

served = [ServedModel(name=name, forward=f"models.py:{name}") for name in ("texts", "sums")]
sys.exit(supervise(ServeOptions(models=tuple(served), port=0, access_log=False), Telling()))
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    folder: Path = tmp_path_factory.mktemp("served")
    (folder / "models.py").write_text(MODELS)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        url = server.stdout.readline().strip().removeprefix("http://")
        with triton.InferenceServerClient(url) as client:
            yield client
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def given(name: str, array: Any, datatype: str, *, binary: bool = True) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    return tensor.set_data_from_numpy(array, binary_data=binary)


def test_all_is_ready_and_listed(client: Any) -> None:
    assert client.is_server_ready()
    assert [model["state"] for model in client.get_model_repository_index()] == ["READY"] * 2
    told = client.get_model_metadata("sums")
    assert {item["name"]: item["shape"] for item in told["inputs"]} == {
        "x": [-1, 5, 4], "offset": [-1, 4],
    }  # fmt: skip
    assert {item["name"]: item["shape"] for item in told["outputs"]} == {
        "sums": [-1, 5, 4], "last": [-1, 4],
    }  # fmt: skip


def test_tensors_whose_batch_is_not_their_first_axis(client: Any) -> None:
    chance = np.random.default_rng(0)
    x = chance.integers(-9, 9, (7, 5, 4)).astype("f4")
    offset = chance.integers(-9, 9, (7, 4)).astype("f4")
    result = client.infer("sums", [given("x", x, "FP32"), given("offset", offset, "BF16")])
    assert (result.as_numpy("sums") == x.cumsum(1) + offset[:, None]).all()
    assert (result.as_numpy("last") == x.sum(1)).all()


def test_a_row_alone_is_what_it_is_among_others(client: Any) -> None:
    texts = np.array(["four", "äé", "1234"], object)
    whole = client.infer("texts", [given("text", texts, "BYTES")])
    assert whole.as_numpy("hidden").shape == (3, 4, 8)
    for row, text in enumerate(texts):
        ids = np.array([[*text.encode()]])
        for inputs in (
            [given("text", texts[row : row + 1], "BYTES", binary=False)],
            [given("bytes", ids, "INT64")],
        ):
            alone = client.infer("texts", inputs)
            for name in ("hidden", "mean"):
                assert np.allclose(alone.as_numpy(name)[0], whole.as_numpy(name)[row], atol=1e-6)


def test_texts_of_several_lengths_have_no_common_tensor_but_a_mean(client: Any) -> None:
    texts = [given("text", np.array(["a", "longer"], object), "BYTES")]
    with pytest.raises(triton.InferenceServerException, match="only for mean"):
        client.infer("texts", texts)
    mean = client.infer("texts", texts, outputs=[triton.InferRequestedOutput("mean")])
    assert mean.as_numpy("mean").shape == (2, 8)


def test_a_text_that_is_cut_says_so(client: Any) -> None:
    texts = [given("text", np.array(["x", "x" * 101, "x" * 100], object), "BYTES")]
    mean = [triton.InferRequestedOutput("mean")]
    told = client.infer("texts", texts, outputs=mean).get_response()
    assert told["parameters"] == {"truncated_rows": "1"}
    texts = [given("text", np.array(["x", "x" * 100], object), "BYTES")]
    assert "parameters" not in client.infer("texts", texts, outputs=mean).get_response()


def test_a_time_that_is_too_short_is_told_at_once(client: Any) -> None:
    ids = given("bytes", np.zeros((1, 3), np.int64), "INT64")
    with pytest.raises(triton.InferenceServerException) as late:
        client.infer("texts", [ids], timeout=1)
    assert late.value.status() == "503"


def test_statistics_are_of_what_was_computed(client: Any) -> None:
    client.infer("texts", [given("bytes", np.zeros((6, 3), np.int64), "INT64")])
    (told,) = client.get_inference_statistics("texts")["model_stats"]
    assert told["inference_count"] >= 6
    assert told["inference_stats"]["compute_infer"]["ns"] > 0
