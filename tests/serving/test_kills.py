"""kill -9 at each stage of a batch, and SIGTERM under load: who is answered, and what is computed.

The model notes each stage of each row, so that what was executed is counted, not believed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from processes import children, until

import forwardpass as fwd

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
MODEL = """
import os, time
import torch
import forwardpass as fwd

NOTES = {notes!r}
HELD = NOTES + ".held"


def note(stage, texts):
    with open(NOTES, "a") as file:
        for text in texts:
            if "-" in text:  # none of the thousands of rows that costs are learned from
                print(os.getpid(), stage, text, file=file)
    until = time.monotonic() + 3
    while any(text.startswith(stage) for text in texts) and os.path.exists(HELD):
        time.sleep(0.005)
        if time.monotonic() > until:
            break


class Lengths(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, codes, length):
        note("computing", ["".join(chr(c) for c in row if c) for row in codes.tolist()])
        return {{"length": (length * self.scale).round(), "codes": codes}}


def encode(rows):
    note("encoding", list(rows["text"]))
    return {{"codes": [list(text.encode()) for text in rows["text"]]}}


def decode(outputs):
    note("replying", ["".join(chr(c) for c in map(int, row) if c) for row in outputs["codes"]])
    return {{"length": outputs["length"]}}


model = fwd.Model(
    Lengths(), ["codes: i64[batch n=1..60] pad 0", "length: f32[batch] = length(n)"],
    encode=encode, decode=decode,
)
"""
STAGES = ("encoding", "waiting", "computing", "replying")


class Noted:
    """A server whose model notes what it does."""

    def __init__(self, server: fwd.Server, notes: Path, supervisor: int) -> None:
        self.url, self.supervisor, self._notes = server.url, supervisor, notes
        self.server = server
        self.held = Path(f"{notes}.held")
        # One client: certificates take a second each. A new connection each time: one that is kept
        # may be lost with a process that was killed before.
        self._client = httpx.Client(
            verify=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
        )

    def ask(self, text: str) -> object:
        """The length of the text; else the status, 0 where the connection was lost."""
        try:
            reply = self._client.post(f"{self.url}/models/m", json={"rows": [text]})
        except httpx.TransportError:
            return {"status": 0}
        if reply.status_code != 200:
            return {"status": reply.status_code}
        return reply.json()["rows"][0]["length"]

    def notes(self, stage: str) -> list[tuple[int, str]]:
        """Process and text of each row that came to a stage."""
        lines = [line.split(" ", 2) for line in self._notes.read_text().splitlines()]
        return [(int(pid), text) for pid, at, text in lines if at == stage]

    def executed(self) -> Counter[str]:
        return Counter(text for _, text in self.notes("computing"))

    def http(self) -> int:
        (pid,) = children(self.supervisor, "http_process")
        return pid


def noted(folder: Path) -> Generator[Noted]:
    notes = folder / "notes.txt"
    notes.touch()
    (folder / "model.py").write_text(MODEL.format(notes=os.fspath(notes)))
    (folder / "rows.jsonl").write_text("".join(f'{{"text": "{"a" * n}"}}\n' for n in (3, 9, 20)))
    before = set(children(os.getpid()))
    with fwd.serve(
        {"m": f"{folder / 'model.py'}:model"}, samples={"m": os.fspath(folder / "rows.jsonl")},
        port=0, access_log=False,
    ) as server:  # fmt: skip
        (supervisor,) = set(children(os.getpid())) - before
        yield Noted(server, notes, supervisor)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Noted]:
    yield from noted(tmp_path_factory.mktemp("kills"))


def killed_at(served: Noted, stage: str, victim: str, chance: random.Random) -> Counter[str]:
    """Kill while a row is at a stage; all others are answered, none is computed more than twice.

    How many rows were answered, how many lost their connection, and how many were computed twice.
    """
    name = f"{chance.randrange(10**9)}"
    # while one computes slowly, the next one waits
    first = f"{'computing' if stage == 'waiting' else stage}-{name}"
    shown = "computing" if stage == "waiting" else stage
    texts = [first, *(f"mate-{n}-{name}" for n in range(3))]
    served.held.touch()  # who comes to the stage stays there
    http = served.http()
    with ThreadPoolExecutor(len(texts)) as pool:
        asked: list[Future[object]] = [pool.submit(served.ask, first)]
        if stage != "waiting":
            asked += [pool.submit(served.ask, text) for text in texts[1:]]
        until(lambda: any(text == first for _, text in served.notes(shown)))
        if stage == "waiting":
            asked += [pool.submit(served.ask, text) for text in texts[1:]]
        time.sleep(chance.uniform(0, 0.1))
        engine = next(pid for pid, text in served.notes(shown) if text == first)
        os.kill(engine if victim == "engine" else http, signal.SIGKILL)
        served.held.unlink()
        answers = [future.result() for future in asked]
    right: list[object] = [len(text) for text in texts]
    counted = [served.executed()[text] for text in texts]
    gone = {"status": 0}
    if victim == "engine":
        assert answers == right
        assert counted[0] == (1 if stage == "encoding" else 2)
        assert max(counted) <= 2
    else:
        assert answers[0] == gone
        assert all(one in (gone, good) for one, good in zip(answers, right, strict=True)), answers
        until(lambda: served.ask(f"after-{name}") == len(f"after-{name}"))
        assert max(served.executed()[text] for text in texts) <= 1
    lost = answers.count(gone)
    return Counter(answered=len(answers) - lost, lost=lost, twice=counted.count(2))


@pytest.mark.parametrize("victim", ["engine", "http"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_this_stage_loses_nothing_but_connections(
    shared: Noted, stage: str, victim: str
) -> None:
    killed_at(shared, stage, victim, random.Random(f"{stage} {victim}"))


@pytest.mark.soak
@pytest.mark.parametrize("victim", ["engine", "http"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_same_again_and_again(shared: Noted, stage: str, victim: str) -> None:
    for turn in range(25):
        killed_at(shared, stage, victim, random.Random(f"{stage} {victim} {turn}"))


def test_sigterm_under_load_answers_all_that_was_received_whole(tmp_path: Path) -> None:
    """Each client asks on until it is refused. What a model computed was received whole."""
    serving = noted(tmp_path)
    served = next(serving)
    answered: list[str] = []
    wrong: list[object] = []

    def client(number: int) -> None:
        for turn in range(10_000):
            text = f"client-{number}-{turn}"
            found = served.ask(text)
            if found == len(text):
                answered.append(text)
            else:
                wrong.append(found)
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(answered) > 100)
    os.kill(served.supervisor, signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert served.server.wait() == 0
    assert all(one in ({"status": 503}, {"status": 0}) for one in wrong), wrong
    executed = served.executed()
    asked = {text for text in executed if text.startswith("client-")}
    assert asked == set(answered)
    assert {executed[text] for text in asked} == {1}
    serving.close()
