"""How many texts a second does a server answer in time? Ours beside LitServe, mosec and Triton.

all-MiniLM-L6-v2, fp32; a request is one docstring, whole, cut at 256 tokens: they are very
different in length. Open loop, Poisson and bursty, latency from the moment a request was due.
Goodput is the highest offered rate of which 99 % are answered within 250 ms. The others serve the
model as people write it by hand, each at its best max batch of several; servers take turns. Theirs
live in venvs of their own: `make bench-serving`; Triton's, with nvidia-pytriton, is
`benchmarks/peers/.venv-triton`. `FORWARDPASS_TUNED=NAME.fwd`, as `fwd tune` leaves one, is served,
too; `FORWARDPASS_BATCHES=1,2` tries these max batches alone.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.open_loop import Heard, fire, in_turns, moments
from benchmarks.results import machine, publish, quick, spread, table
from benchmarks.servers import Served, family, memory, served
from benchmarks.serving_costs import docstrings
from benchmarks.text_throughput import MODEL, STDLIB

SLO = 0.25
GOOD = 0.99
STEP = 1.05
"""Between rates that are told apart."""
BATCHES = tuple(map(int, os.environ.get("FORWARDPASS_BATCHES", "1,2,4,8,16").split(",")))
WAIT = 0.005
"""Seconds for which the others wait for a batch to fill."""
PEERS = Path(__file__).parent / "peers"
PYTHON = PEERS / ".venv" / "bin" / "python"
TRITON = PEERS / ".venv-triton" / "bin" / "python"
TUNED = os.environ.get("FORWARDPASS_TUNED", "")


@dataclass(frozen=True)
class Contender:
    """A server with its settings.

    Attributes:
        command: that starts it, given a port.
        path: to which texts are posted. body: of a text.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    path: str
    body: Callable[[str], bytes]


def _text(text: str) -> bytes:
    return json.dumps({"text": text}).encode()


def litserve(most: int) -> Contender:
    script = str(PEERS / "serve_litserve.py")
    return Contender(
        f"LitServe, max batch {most}",
        lambda port: (str(PYTHON), script, str(port), str(most), str(WAIT)),
        "/predict",
        _text,
    )


def mosec(most: int) -> Contender:
    script = str(PEERS / "serve_mosec.py")
    return Contender(
        f"mosec, max batch {most}",
        lambda port: (
            *("env", f"MAX_BATCH={most}", f"WAIT_SECONDS={WAIT}"),
            *(str(PYTHON), script, "--port", str(port), "--log-level", "error"),
        ),
        "/inference",
        _text,
    )


def triton(most: int) -> Contender:
    script = str(PEERS / "serve_pytriton.py")

    def body(text: str) -> bytes:
        given = {"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
        return json.dumps({"inputs": [given]}).encode()

    return Contender(
        f"Triton (pytriton), max batch {most}",
        lambda port: (str(TRITON), script, str(port), str(most), str(WAIT)),
        "/v2/models/minilm/infer",
        body,
    )


def ours(name: str, forward: str, *more: str) -> Contender:
    return Contender(
        name,
        lambda port: (
            *(sys.executable, "-m", "forwardpass", "serve", f"minilm={forward}"),
            *("--slo", f"{1e3 * SLO:.0f}ms", "--port", str(port), "--quiet", "--no-access-log"),
            *("--samples", f"{STDLIB}:docs"),
            *more,
        ),
        "/models/minilm",
        lambda text: json.dumps({"rows": [text]}).encode(),
    )


OURS = ours("**`fwd serve`**", MODEL)
PEERS_OF: dict[Callable[[int], Contender], Path] = {
    litserve: PYTHON, mosec: PYTHON, triton: TRITON,
}  # fmt: skip


@contextmanager
def warm(contender: Contender, texts: Sequence[str], seconds: float) -> Generator[Served]:
    """A server that is up, and was asked for so long."""
    bodies = [contender.body(text) for text in texts]

    def answers(url: str) -> bool:
        return fire(url, bodies[:1], [0.0], SLO).statuses.get(200) == 1

    with served(contender.name, contender.command, contender.path, answers) as up:
        in_turns(up.url, bodies, 8, seconds)
        yield up


@dataclass
class Bench:
    """What is offered to every server."""

    texts: Sequence[str]
    number: int
    warm_seconds: float

    def offered(
        self, contender: Contender, url: str, rate: float, bursty: bool, seed: int, bad: float
    ) -> Heard:
        chosen = random.Random(seed).choices(self.texts, k=self.number)
        at = list(moments(rate, self.number, bursty, seed))
        bodies = [contender.body(text) for text in chosen]
        heard = fire(url, bodies, at, SLO, bad_share=bad)
        print(
            f"{contender.name}, {rate:.1f}/s{' bursty' if bursty else ''}: {heard.good} of "
            f"{heard.offered} in time, {heard.statuses}, p50 {heard.milliseconds(50):.0f} ms, p99 "
            f"{heard.milliseconds(99):.0f} ms, sent {1e3 * heard.behind:.1f} ms late at most",
            flush=True,
        )
        return heard

    def goodput(self, contender: Contender, bursty: bool, seed: int, guess: float) -> float:
        """The highest rate that holds, in steps of STEP, looked for around `guess`."""
        with warm(contender, self.texts, self.warm_seconds) as up:

            def holds(step: int) -> bool:
                rate = STEP**step
                heard = self.offered(contender, up.url, rate, bursty, seed, 1 - GOOD)
                return heard.good >= GOOD * heard.offered

            low = high = max(0, round(math.log(guess, STEP)))
            stride = 4
            if holds(low):
                while holds(high := low + stride):
                    low = high
            else:
                while (low := high - stride) > 0 and not holds(low):
                    high = low
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if holds(middle) else (low, middle)
        return STEP**low


def main() -> None:
    small = quick(__doc__)
    texts = docstrings(100 if small else 2_000)
    first = Bench(texts, 40 if small else 300, 1.0 if small else 5.0)
    bench = Bench(texts, 40 if small else 1_000, 1.0 if small else 20.0)
    contenders, guesses = [OURS], [40.0]
    if TUNED:
        contenders.append(ours("**`fwd serve`, tuned**", TUNED))
        guesses.append(120.0)
    peers = [make for make, python in PEERS_OF.items() if python.exists()]
    missing = "" if len(peers) == len(PEERS_OF) else " Not all of the others are installed."
    for make in peers:
        rates = {
            most: first.goodput(make(most), False, 0, 30.0)
            for most in (BATCHES[:2] if small else BATCHES)
        }
        best = max(rates, key=rates.__getitem__)
        contenders.append(make(best))
        guesses.append(rates[best])
    about = (
        f"all-MiniLM-L6-v2, fp32; a request is one of {len(texts):,} docstrings. Open loop, "
        f"{bench.number:,} requests a rate, rates {STEP - 1:.0%} apart. Goodput in texts/s: the "
        f"highest rate of which {GOOD:.0%} are answered within {1e3 * SLO:.0f} ms of the moment "
        "they were due; median of the turns (least–most). Bursty: in turns of a second on average "
        f"1.75 and 0.25 times the rate. Of the others max batches "
        f"{', '.join(map(str, BATCHES))} were tried.{missing}"
    )
    found: dict[tuple[str, bool], list[float]] = {}

    said = list[str]()

    def published() -> None:
        lines: list[list[str]] = []
        for contender in contenders:
            line = [contender.name]
            for bursty in (False, True):
                rates, ours = found.get((contender.name, bursty)), found.get((OURS.name, bursty))
                turns = list(zip(rates or (), ours or (), strict=False))
                line += [
                    spread([rate for rate, _ in turns], ".1f") if turns else "not measured",
                    spread([ours / rate for rate, ours in turns], ".2f") if turns else "",
                ]
            lines.append(line)
        heads = ["", "Poisson", "ours is ×", "bursty", "ours is ×"]
        parts = [about, table(heads, lines), *said, machine("transformers")]
        publish("serving_goodput", "Texts answered in time, by a server", parts, write=not small)

    for bursty in (False, True):
        for turn in range(1 if small else 3):
            for contender, guess in zip(contenders, guesses, strict=True):
                key = (contender.name, bursty)
                near = found[key][-1] if key in found else guess * (0.6 if bursty else 1.0)
                found.setdefault(key, []).append(bench.goodput(contender, bursty, turn, near))
            published()
        if not bursty:
            said.append(overload(bench, statistics.median(found[OURS.name, False])))
            published()


def overload(bench: Bench, peak: float) -> str:
    """What is answered where three times as much comes, and what that holds in memory."""
    over = Bench(bench.texts, 3 * bench.number, bench.warm_seconds)
    with warm(OURS, bench.texts, bench.warm_seconds) as up:
        before = memory(family(up.pid))
        heard = over.offered(OURS, up.url, 3 * peak, False, 7, 1.0)
        after = memory(family(up.pid))
    rate = heard.good / heard.seconds
    return (
        f"At three times its Poisson goodput `fwd serve` answered {rate:.1f} texts/s in time, "
        f"{rate / peak:.0%} of it; p99 of what it answered {heard.milliseconds(99):.0f} ms; "
        f"{heard.statuses.get(503, 0) / heard.offered:.0%} were refused. Its processes held "
        f"{before / 2**20:,.0f} MiB before and {after / 2**20:,.0f} MiB after."
    )


if __name__ == "__main__":
    main()
