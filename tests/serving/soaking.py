"""A whole server under everything at once, for as long as is said: what it answers, and what it
becomes.

The answers are known without it: its weights and what it is asked are whole numbers, so that no
order of sums moves them. All that it may do wrong is in `Soaked.faults`.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import malformed
import malformed_http
import malformed_inference
import numpy as np
from front import Answer, Client, request
from processes import children, descriptors, memory, state, until
from standing_in import about
from test_malformed_http import answers

MODELS = """
import os
import torch
from torch import nn
import forwardpass as fwd


def whole(rows, columns):
    return torch.tensor(
        [[(3 * i + 5 * j) % 7 - 3 for j in range(columns)] for i in range(rows)],
        dtype=torch.float32,
    )


first, second = nn.Linear(16, 32, bias=False), nn.Linear(32, 64, bias=False)
with torch.no_grad():
    first.weight.copy_(whole(32, 16))
    second.weight.copy_(whole(64, 32))
numbers = fwd.Model(nn.Sequential(first, nn.ReLU(), second), "features: f32[batch 16]")


class Vowels(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(256, 1)
        with torch.no_grad():
            self.table.weight.zero_()[list(b"aeiou")] = 1

    def forward(self, bytes, mask):
        if (bytes[:, 0] == ord("!")).any():
            os._exit(7)
        if (bytes[:, 0] == ord("?")).any():
            raise ValueError("a question")
        return (self.table(bytes)[..., 0] * mask).sum(1)


class Bytes:
    text_columns = ("text",)

    def __call__(self, rows):
        return {"bytes": [list(text.encode()) for text in rows["text"]]}


texts = fwd.Model(
    Vowels(),
    ["bytes: i64[batch length=1..200] pad 0", "mask: f32[batch length] = valid(length)"],
    encode=Bytes(),
    decode=lambda outputs: {"vowels": outputs["output"].long()},
)
"""
SERVER = """
import sys
from forwardpass.serving.options import RequestLimits, ServedModel, ServeOptions
from forwardpass.serving.supervising import supervise
from forwardpass.serving.witnesses import Witness

class Telling(Witness):
    def ready(self, url, models):
        print(url.rpartition(":")[2], flush=True)

    def lost(self, what, why, *, final):
        print(what, why, file=sys.stderr)

models = (
    ServedModel(name="numbers", forward="models.py:numbers"),
    ServedModel(name="texts", forward="models.py:texts", samples="texts.jsonl"),
)
limits = RequestLimits(body_bytes=int(sys.argv[1]), header_bytes=int(sys.argv[2]))
sys.exit(supervise(ServeOptions(models=models, port=0, access_log=False, limits=limits), Telling()))
"""
LETTERS = "abcdefghijklmnopqstuvwxyz     "
WARM = 1 / 3
"""Of the time, in which memory may still grow: caches fill, allocators find their size."""
_READINGS = 8
"""Of memory, after that."""


def weights(rows: int, columns: int) -> np.ndarray[Any, Any]:
    """As in MODELS."""
    return np.array([[(3 * i + 5 * j) % 7 - 3 for j in range(columns)] for i in range(rows)])


FIRST, SECOND = weights(32, 16), weights(64, 32)


def features(chance: random.Random, count: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of `numbers`, and what it says of them."""
    rows = np.array([[chance.randint(-8, 8) for _ in range(16)] for _ in range(count)])
    return rows.tolist(), (np.maximum(rows @ FIRST.T, 0) @ SECOND.T).tolist()


def sentence(chance: random.Random) -> str:
    """A text that `texts` answers."""
    return "".join(chance.choices(LETTERS, k=chance.choice([1, 5, 20, 60, 200])))


def vowels(text: str) -> int:
    """What `texts` says of it."""
    return sum(text.count(vowel) for vowel in "aeiou")


def body(rows: Any, **more: Any) -> bytes:
    return json.dumps({"rows": rows, **more}).encode()


# -- what clients do: each returns what came of it, and raises where that is wrong ----------------

Act = Callable[[int, random.Random], str]


def asked(port: int, *pieces: bytes, pause: float = 0.0) -> Answer:
    """The answer to a request that is sent in pieces, on a connection of its own."""
    with Client(port, seconds=60) as client:
        for piece in pieces:
            client.send(piece)
            if pause:
                time.sleep(pause)
        return client.answer()


def require(answer: Answer, rows: list[Any], *, late: bool = False) -> str:
    """That it is this answer; or, where it may be `late`, a refusal that says so."""
    if late and answer.status == 503:
        never = "it is to be answered within" in answer.json["error"]
        assert ("retry-after" in answer.headers) is not never, answer
        return "refused: late"
    assert answer.status == 200, answer
    assert answer.json["rows"] == rows, (answer, rows)
    return "answered"


def numbers(port: int, chance: random.Random) -> str:
    """Several requests on one connection, some of which are compressed."""
    with Client(port, seconds=60) as client:
        for _ in range(chance.randint(1, 20)):
            rows, known = features(chance, chance.choice([1, 1, 1, 2, 8, 40]))
            if chance.random() < 0.1:
                packed = gzip.compress(body(rows))
                client.send(request("/models/numbers", packed, Content_Encoding="gzip"))
            else:
                client.send(request("/models/numbers", body(rows)))
            require(client.answer(), [{"output": row} for row in known])
    return "answered"


def texts(port: int, chance: random.Random) -> str:
    given = [sentence(chance) for _ in range(chance.choice([1, 1, 1, 3, 10]))]
    answer = asked(port, request("/models/texts", body(given)))
    return require(answer, [{"vowels": vowels(text)} for text in given])


def hasty_texts(port: int, chance: random.Random) -> str:
    given = [sentence(chance)]
    sent = body(given, timeout_ms=chance.choice([1, 10, 100, 1000]), priority=chance.randint(-1, 1))
    answer = asked(port, request("/models/texts", sent))
    return require(answer, [{"vowels": vowels(text)} for text in given], late=True)


def tensors(port: int, chance: random.Random) -> str:
    """Binary there and back."""
    rows, known = features(chance, chance.choice([1, 4, 100]))
    data = np.array(rows, "<f4").tobytes()
    tensor = {
        "name": "features", "datatype": "FP32", "shape": [len(rows), 16],
        "parameters": {"binary_data_size": len(data)},
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    answer = asked(port, request("/v2/models/numbers/infer", head + data, **length))
    assert answer.status == 200, answer
    size = int(answer.headers["inference-header-content-length"])
    found = np.frombuffer(answer.body[size:], "<f4").reshape(len(rows), 64)
    assert found.tolist() == known
    return "answered"


def slow_to_send(port: int, chance: random.Random) -> str:
    rows, known = features(chance, 3)
    whole = request("/models/numbers", body(rows))
    step = max(1, len(whole) // 15)
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    answer = asked(port, *pieces, pause=0.05)
    return require(answer, [{"output": row} for row in known])


def slow_to_read(port: int, chance: random.Random) -> str:
    """A large body, of which the large answer is read by and by."""
    rows, known = features(chance, 2_000)
    with Client(port, seconds=60) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        client.send(request("/models/numbers", body(rows)))
        for _ in range(20):
            time.sleep(0.05)
            client.more_bytes(1 << 12)
        return require(client.answer(), [{"output": row} for row in known])


def leaving(port: int, chance: random.Random) -> str:
    """In the middle of a request, or before its answer."""
    target, rows = chance.choice(
        [("numbers", features(chance, 50)[0]), ("texts", [sentence(chance)])]
    )
    whole = request(f"/models/{target}", body(rows))
    with Client(port) as client:
        client.send(whole[: chance.choice([len(whole), len(whole), chance.randrange(len(whole))])])
        if chance.random() < 0.5:  # it is reset
            linger = struct.pack("ii", 1, 0)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        time.sleep(chance.choice([0, 0, 0.005]))
    return "left"


def poison(port: int, chance: random.Random) -> str:
    """A row on which the pass raises, among others."""
    given = [sentence(chance) for _ in range(chance.randint(1, 6))]
    place = chance.randrange(len(given))
    given[place] = "? " + given[place]
    answer = asked(port, request("/models/texts", body(given)))
    assert (answer.status, answer.json.get("row")) == (422, place), answer
    return "refused: the pass raises"


def fatal(port: int, chance: random.Random) -> str:
    """A row that ends the process that computes."""
    answer = asked(port, request("/models/texts", body([f"! {chance.random()}"])))
    assert (answer.status, answer.json.get("row")) == (500, 0), answer
    return "refused: it ends the process"


def watching(port: int, chance: random.Random) -> str:
    path = chance.choice(["/metrics", "/openapi.json", "/docs", "/models", "/healthz"])
    answer = asked(port, request(path, method="GET"))
    assert answer.status == 200, answer
    return "answered"


ABOUTS = {
    "numbers": about("features: f32[batch 16]", outputs=["output: f32[batch 64]"]),
    "texts": about(
        "bytes: i64[batch length=1..200] pad 0", "mask: f32[batch length] = valid(length)",
        outputs=["output: f32[batch]"], encodes=True, columns=("text",), decodes=True,
    ),
}  # fmt: skip


def nonsense(port: int, chance: random.Random) -> str:
    """One of all kinds of requests that are none."""
    name = chance.choice(list(ABOUTS))
    where = malformed_http.Asked(
        "/models/numbers", body(features(chance, 1)[0]) if name == "numbers" else body(["a text"])
    )
    where = where._replace(target=f"/models/{name}")
    kind = chance.randrange(3)
    if kind == 0:
        sent = chance.choice(list(malformed_http.CLASSES.values()))(chance, where)
    elif kind == 1:
        wrong = chance.choice(list(malformed.CLASSES.values()))(chance, ABOUTS[name])
        sent = malformed_http.Sent(malformed_http.whole(where._replace(body=wrong)))
    else:
        make = chance.choice(list(malformed_inference.CLASSES.values()))
        wrong, headers = make(chance, ABOUTS[name])
        lines = [f"{key.decode()}: {value.decode('latin-1')}" for key, value in headers.items()]
        where = malformed_http.Asked(f"/v2/models/{name}/infer", wrong)
        sent = malformed_http.Sent(malformed_http.whole(where, *lines))
    for answer in answers(port, sent, seconds=60):  # an engine may have to begin anew
        assert 400 <= answer.status < 500, (sent.bytes[:300], answer)
        assert "error" in answer.json
    return "refused: it is none"


class Kind(NamedTuple):
    """How many clients do it at once, and how long they wait in between, on average."""

    act: Act
    clients: int
    pause: float


KINDS = (
    Kind(numbers, 2, 0.02), Kind(tensors, 1, 0.02), Kind(texts, 2, 0.02),
    Kind(hasty_texts, 1, 0.05), Kind(slow_to_send, 1, 0.1), Kind(slow_to_read, 1, 1.0),
    Kind(leaving, 1, 0.05), Kind(poison, 1, 0.2), Kind(fatal, 1, 4.0), Kind(watching, 1, 0.5),
    Kind(nonsense, 1, 0.05),
)  # fmt: skip


# -- what becomes of the server -------------------------------------------------------------------


class Reading(NamedTuple):
    """What the processes hold, by what they are: bytes and descriptors of each."""

    seconds: float
    memory: Mapping[str, int]
    descriptors: Mapping[str, list[int]]


@dataclass
class Soaked:
    """What came of it.

    Attributes:
        outcomes: by kind of client, how often what came.
        wrong: what should not have come.
        quiet: what it held while nobody asked: before all, and after all.
        metrics: its own, in the end. left: of it, once it had ended.
    """

    seconds: float = 0.0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    wrong: list[str] = field(default_factory=list[str])
    readings: list[Reading] = field(default_factory=list[Reading])
    quiet: list[Reading] = field(default_factory=list[Reading])
    metrics: str = ""
    left: list[str] = field(default_factory=list[str])

    def metric(self, name: str) -> float:
        """The sum of all that begin so."""
        lines = self.metrics.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def held(self, role: str = "") -> tuple[float, float]:
        """Bytes of memory that its processes of a role held, on average, and by how many bytes
        they grew from the end of warming up to the end, by a straight line through all readings."""
        warm = [one for one in self.readings if one.seconds >= WARM * self.seconds]
        at = [one.seconds for one in warm]
        bytes_ = [one.memory[role] if role else sum(one.memory.values()) for one in warm]
        line = statistics.linear_regression(at, bytes_)
        return statistics.mean(bytes_), line.slope * (at[-1] - at[0])

    @property
    def answered(self) -> int:
        return sum(count for (_, what), count in self.outcomes.items() if what == "answered")

    def faults(self, growth: float) -> list[str]:
        """All that is wrong, where memory may have grown by this share of itself."""
        found = [*self.wrong[:5], *self.left]
        if sum(one.seconds >= WARM * self.seconds for one in self.readings) < 2:
            return [*found, "its memory could not be read twice while it was asked"]
        for role in ("", *self.quiet[0].memory):
            held, grew = self.held(role)
            if grew > growth * held:
                found.append(
                    f"memory of {role or 'all'}: {held / 2**20:.1f} MiB grew by "
                    f"{grew / 2**20:.1f} MiB"
                )
        before, after = self.quiet
        if before.descriptors != after.descriptors:
            found.append(f"descriptors: {before.descriptors} became {after.descriptors}")
        waits = [one for one in ("queue_rows", "queue_bytes") if self.metric(f"forwardpass_{one}")]
        found += [f"{gauge} is not 0 again" for gauge in waits]
        if self.metric('forwardpass_refused_total{model="",reason="internal"}'):
            found.append("errors of the server itself")
        return found


class Soak:
    """A server that runs, and its clients."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "models.py").write_text(MODELS)
        chance = random.Random(0)
        lines = [json.dumps({"text": sentence(chance)}) for _ in range(40)]
        (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._log = (folder / "server.log").open("w")
        caps = (str(malformed_http.BODY_BYTES), str(malformed_http.HEADER_BYTES))
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *caps], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=self._log,
            env={**os.environ, "TMPDIR": os.fspath(self._temporary)},
        )  # fmt: skip
        assert self._server.stdout is not None
        line = self._server.stdout.readline().strip()
        assert line, (folder / "server.log").read_text()
        self.port = int(line)
        self._seen: set[int] = set()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.came = Soaked()

    def roles(self) -> dict[str, list[int]]:
        """Which process is what."""
        first = self._server.pid
        templates = children(first, "templates")
        found = {
            "supervisor": [first],
            "http": children(first, "http_process"),
            "templates": templates,
            "engines": [engine for one in templates for engine in children(one)],
        }
        self._seen.update(*found.values())
        return found

    def read(self, began: float) -> Reading | None:
        """None where a process ended meanwhile."""
        roles = self.roles()
        try:
            held = {role: sum(map(memory, pids)) for role, pids in roles.items()}
            # What a fork has not written to is half its own, and the template's once it has ended.
            held["templates"] += held.pop("engines")
            return Reading(
                time.monotonic() - began,
                held,
                {role: sorted(map(descriptors, pids)) for role, pids in roles.items()},
            )
        except OSError:
            return None

    def _quiet(self) -> Reading:
        """A reading while nobody asks and all engines are there."""
        until(lambda: self._metric("forwardpass_ready") == 2)
        until(lambda: not self._metric("forwardpass_queue_rows"))
        found: list[Reading] = []

        def settled() -> bool:
            reading = self.read(0.0)
            if reading is None or len(reading.descriptors["engines"]) != 2:
                return False
            found.append(reading)
            return len(found) > 10 and found[-1].descriptors == found[-10].descriptors

        until(settled)
        return found[-1]

    def _metric(self, name: str) -> float:
        self.came.metrics = asked(self.port, request("/metrics", method="GET")).body.decode()
        return self.came.metric(name)

    def run(self, seconds: float, *, kill_seconds: float) -> Soaked:
        """All clients, until the time is over; now and then an engine is killed."""
        for kind in KINDS:  # what is made once is made by now
            if kind.act is not fatal:
                self._act(kind, random.Random(kind.act.__name__))
        self.came.quiet.append(self._quiet())
        threads = [
            threading.Thread(target=self._repeat, args=(kind, random.Random(f"{place} {number}")))
            for place, kind in enumerate(KINDS)
            for number in range(kind.clients)
        ]
        threads.append(threading.Thread(target=self._kill, args=(kill_seconds,)))
        began = time.monotonic()
        for thread in threads:
            thread.start()
        while not self._is_over(time.monotonic() - began, seconds):
            reading = self.read(began)
            if reading is not None:
                self.came.readings.append(reading)
            time.sleep(min(2.0, seconds / 60))
        self._over.set()
        self.came.seconds = time.monotonic() - began  # later nothing is asked, and nothing read
        for thread in threads:
            thread.join(120)
        if any(thread.is_alive() for thread in threads):
            self.came.wrong.append("a client was never answered")
        self.came.quiet.append(self._quiet())
        return self.came

    def _is_over(self, elapsed: float, seconds: float) -> bool:
        """Whether the time is over, and enough was read for a line through it: on a slow machine
        an engine is more often beginning anew than there."""
        warm = sum(one.seconds >= WARM * elapsed for one in self.came.readings)
        return elapsed >= seconds and (warm >= _READINGS or elapsed >= 6 * seconds)

    def _repeat(self, kind: Kind, chance: random.Random) -> None:
        while not self._over.wait(chance.uniform(0, 2 * kind.pause)):
            self._act(kind, chance)

    def _act(self, kind: Kind, chance: random.Random) -> None:
        name = kind.act.__name__.replace("_", " ")
        try:
            outcome = kind.act(self.port, chance)
        except Exception as error:  # noqa: BLE001 - it is told
            outcome = "WRONG"
            with self._lock:
                self.came.wrong.append(f"{name}: {type(error).__name__}: {error!s:.1000}")
        with self._lock:
            self.came.outcomes[name, outcome] += 1

    def _kill(self, seconds: float) -> None:
        """Of `numbers`, since those of `texts` die of themselves: a row that is innocent and twice
        in an engine that is killed from outside would look guilty."""
        while not self._over.wait(seconds):
            engine = self._engine_of_numbers()
            if engine is not None:
                os.kill(engine, signal.SIGKILL)
                with self._lock:
                    self.came.outcomes["kill -9 of an engine", "done"] += 1

    def _engine_of_numbers(self) -> int | None:
        """The templates are started in the order of the models."""
        templates = sorted(self.roles()["templates"])
        found = children(templates[0]) if len(templates) == 2 else []
        return found[0] if len(found) == 1 else None

    def end(self) -> None:
        """As a SIGTERM ends it; what is left of it is noted."""
        self.roles()
        self._server.send_signal(signal.SIGTERM)
        left = self.came.left
        try:
            code = self._server.wait(60)
        except subprocess.TimeoutExpired:
            self._server.kill()
            code = self._server.wait()
        if code:
            left.append(f"it ended with {code}")
        until_seconds = time.monotonic() + 20
        while any(map(state, self._seen)) and time.monotonic() < until_seconds:
            time.sleep(0.05)
        left.extend(f"process {pid} is left" for pid in self._seen if state(pid))
        left.extend(f"{path.name} is left" for path in self._temporary.iterdir())
        self._log.close()
        said = (self._folder / "server.log").read_text()
        if "Traceback" in said:
            left.append(f"in its log: {said[said.index('Traceback') :][:2_000]}")


def soak(folder: Path, seconds: float, *, kill_seconds: float) -> Soaked:
    """Start, load, end."""
    whole = Soak(folder)
    try:
        return whole.run(seconds, kill_seconds=kill_seconds)
    finally:
        whole.end()
