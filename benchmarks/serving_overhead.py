"""What does a server cost beside the pass? Ours beside a bare ASGI function, mosec and LitServe.

A network of 64, 128 and 10 units, one row of JSON a request, closed loop over 16 and 64 connections
by wrk, which must be installed (`apt install wrk`). Ours has its checks, metrics and deadlines on.
The bare function is uvicorn, msgspec and a thread that computes what waits; the others batch 16
rows at most (1: LitServe is quicker so). Servers take turns. Theirs live in a venv of their own:
`make bench-serving`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import numpy as np

from benchmarks.results import machine, publish, quick, spread, table
from benchmarks.servers import served

PEERS = Path(__file__).parent / "peers"
PYTHON = PEERS / ".venv" / "bin" / "python"
CONNECTIONS = (16, 64)
ROW = np.random.default_rng(0).standard_normal(64).round(4).tolist()
BODY = json.dumps({"rows": [ROW]})
MODEL = """
import sys
sys.path.insert(0, {peers!r})
from mlp_by_hand import mlp
from forwardpass import Model
model = Model(mlp(), inputs="x: f32[batch 64]", outputs="y: f32[batch 10]")
"""


class Contender(NamedTuple):
    """A server: the command that starts it, given a folder and a port, and where it is asked."""

    name: str
    command: Callable[[Path, int], Sequence[str]]
    path: str


def _peer(name: str, *arguments: str) -> Callable[[Path, int], Sequence[str]]:
    return lambda _, port: (
        str(PYTHON),
        str(PEERS / name),
        *(argument.format(port=port) for argument in arguments),
    )


OURS = Contender(
    "**`fwd serve`**",
    lambda folder, port: (
        *(sys.executable, "-m", "forwardpass", "serve", f"mlp={folder / 'mlp.py'}:model"),
        *("--slo", "1s", "--port", str(port), "--quiet", "--no-access-log"),
    ),
    "/models/mlp",
)
BARE = Contender("bare ASGI function", _peer("mlp_bare.py", "{port}", "64"), "/")
OTHERS = (
    BARE,
    Contender("mosec", _peer("mlp_mosec.py", "16", "--port", "{port}"), "/inference"),
    Contender("LitServe", _peer("mlp_litserve.py", "{port}", "16"), "/predict"),
    Contender("LitServe, no batches", _peer("mlp_litserve.py", "{port}", "1"), "/predict"),
)


def _answers(url: str) -> bool:
    request = Request(url, BODY.encode(), {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=5) as reply:
            (row,) = json.load(reply)["rows"]
    except OSError:
        return False
    return len(row["y"]) == 10


def rate(url: str, connections: int, seconds: int, script: Path) -> float:
    """Requests answered a second."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"{url}: {done.stdout}")
    return float(re.findall(r"Requests/sec:\s*([\d.]+)", done.stdout)[0])


def main() -> None:
    small = quick(__doc__)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt install wrk")
    contenders = (OURS, *OTHERS) if PYTHON.exists() else (OURS,)
    missing = "" if PYTHON.exists() else " The others are not installed."
    seconds, turns = (1, 1) if small else (5, 3)
    found: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        (folder / "mlp.py").write_text(MODEL.format(peers=str(PEERS)), encoding="utf-8")
        script = folder / "post.lua"
        script.write_text(
            'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
            f"wrk.body = '{BODY}'\n",
            encoding="utf-8",
        )
        for turn in range(turns):
            for contender in contenders if turn % 2 else reversed(contenders):
                with served(
                    contender.name, partial(contender.command, folder), contender.path, _answers
                ) as up:
                    rate(up.url, 16, 1, script)
                    for connections in CONNECTIONS:
                        came = rate(up.url, connections, seconds, script)
                        found.setdefault((contender.name, connections), []).append(came)
                        print(f"{contender.name}, {connections}: {came:,.0f}/s", flush=True)
    lines: list[list[str]] = []
    for contender in contenders:
        line = [contender.name]
        for connections in CONNECTIONS:
            own, ours = found[contender.name, connections], found[OURS.name, connections]
            ratio = [a / b for a, b in zip(ours, own, strict=True)]
            line += [spread(own), "" if contender is OURS else spread(ratio, ".2f")]
        lines.append(line)
    heads = [h for n in CONNECTIONS for h in (f"requests/s, {n} connections", "ours is ×")]
    about = (
        f"Median of {turns} turns of {seconds} s (least–most); × of the same turn. The client "
        f"takes a part of the same cores.{missing}"
    )
    parts = [(__doc__ or "").strip(), about, table(["", *heads], lines), machine()]
    publish("serving_overhead", "What a server costs beside the pass", parts, write=not small)


if __name__ == "__main__":
    main()
