"""What do other ways in cost, and what does a second engine bring?

gRPC beside REST with binary tensors, each through NVIDIA's own client, on one connection a thread:
one row of a network of 64, 128 and 10 units, and a picture of 3 × 224 × 224 floats, averaged. Texts
answered within 250 ms by one engine and by two, as in `serving_goodput`. A replica on Ray, asked
directly and through Ray's proxy.
"""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import forwardpass as fwd
from benchmarks.open_loop import in_turns
from benchmarks.results import machine, publish, quick, spread, table
from benchmarks.serving_costs import docstrings
from benchmarks.serving_goodput import MODEL, SLO, Bench, ours
from forwardpass.measuring.clocks import WALL

MODELS = """
import torch
from torch import nn

import forwardpass as fwd


class Mean(nn.Module):
    def forward(self, pixels):
        return pixels.mean((2, 3))


torch.manual_seed(0)
mlp = fwd.Model(
    nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval(), "x: f32[batch 64]"
)
picture = fwd.Model(Mean(), "x: f32[batch 3 224 224]")
"""
SHAPES = {"mlp": (1, 64), "picture": (1, 3, 224, 224)}
THREADS = 4


def asked(kind: Any, address: str, model: str, seconds: float) -> float:
    """Requests answered a second, by a client in each thread."""
    array = np.random.default_rng(0).normal(size=SHAPES[model]).astype("f4")

    def ask(_: int) -> int:
        with kind.InferenceServerClient(address) as client:
            given = kind.InferInput("x", list(array.shape), "FP32")
            given.set_data_from_numpy(array)
            client.infer(model, [given])
            began, count = WALL.now(), 0
            while WALL.now() - began < seconds:
                client.infer(model, [given])
                count += 1
            return count

    with ThreadPoolExecutor(THREADS) as threads:
        return sum(threads.map(ask, range(THREADS))) / seconds


def doors(folder: Path, seconds: float, times: int) -> list[list[str]]:
    """A line for each model."""
    import tritonclient.grpc as grpc_client
    import tritonclient.http as http_client

    file = folder / "doors.py"
    file.write_text(MODELS)
    models = {name: f"{file}:{name}" for name in SHAPES}
    rates: dict[tuple[str, str], list[float]] = {}
    with fwd.serve(models, port=0, grpc_port=0, access_log=False) as server:
        assert server.grpc_address is not None
        ways: dict[str, tuple[Any, str]] = {
            "REST": (http_client, server.url.partition("//")[2]),
            "gRPC": (grpc_client, server.grpc_address),
        }
        for _ in range(times):
            for model in SHAPES:
                for name, (kind, address) in ways.items():
                    came = asked(kind, address, model, seconds)
                    rates.setdefault((model, name), []).append(came)
                    print(f"{model}, {name}: {came:,.0f}/s", flush=True)
    return [
        [
            model,
            spread(rates[model, "REST"]),
            spread(rates[model, "gRPC"]),
            spread(
                [a / b for a, b in zip(rates[model, "gRPC"], rates[model, "REST"], strict=True)],
                ".2f",
            ),
        ]
        for model in SHAPES
    ]


def engines(small: bool) -> list[list[str]]:
    """Goodput of one engine and of two, in turns."""
    texts = docstrings(100 if small else 2_000)
    bench = Bench(texts, 40 if small else 1_000, 1.0 if small else 20.0)
    found: dict[str, list[float]] = {}
    for turn in range(1 if small else 3):
        for count in ("1", "2"):
            contender = ours(f"{count} engines", MODEL, "--engines", count)
            near = found.get(count, [40.0])[-1]
            found.setdefault(count, []).append(bench.goodput(contender, False, turn, near))
    beside = [b / a for a, b in zip(found["1"], found["2"], strict=True)]
    return [
        ["one, of 2 threads", spread(found["1"], ".1f"), ""],
        ["two, of 1 thread", spread(found["2"], ".1f"), spread(beside, ".2f")],
    ]


def proxied(folder: Path, seconds: float) -> list[list[str]]:
    """Requests a second of one replica, asked directly and through the proxy."""
    file = folder / "doors.py"
    row = np.random.default_rng(0).normal(size=64).round(4).tolist()
    bodies = [json.dumps({"rows": [row]}).encode()]
    lines: list[list[str]] = []
    served = fwd.serve(f"{file}:mlp", port=8_321, access_log=False, executor=fwd.Ray(workers=1))
    with served as server:
        (own,) = server.urls
        for name, url in (("directly", own), ("through Ray's proxy", server.url)):
            heard = in_turns(f"{url}/models/doors", bodies, 16, seconds)
            assert set(heard.statuses) == {200}, heard.statuses
            rate = heard.good / heard.seconds
            lines.append([name, f"{rate:,.0f}", f"{heard.milliseconds(50):.1f}",
                          f"{heard.milliseconds(99):.1f}"])  # fmt: skip
    return lines


def main() -> None:
    small = quick(__doc__)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        asked_lines = doors(folder, 0.5 if small else 4.0, 1 if small else 5)
        ray_lines = proxied(folder, 1.0 if small else 10.0)
    engine_lines = engines(small)
    publish(
        "serving_doors",
        "Other ways in, and a second engine",
        [
            (__doc__ or "").strip(),
            table(["", "REST, requests/s", "gRPC, requests/s", "gRPC ÷ REST"], asked_lines),
            f"Texts a second of which 99 % are answered within {1e3 * SLO:.0f} ms:",
            table(["engines", "texts/s", "÷ one"], engine_lines),
            "One replica on Ray, 16 connections:",
            table(["", "requests/s", "p50 ms", "p99 ms"], ray_lines),
            machine("ray", "grpcio", "tritonclient"),
        ],
        write=not small,
    )


if __name__ == "__main__":
    main()
