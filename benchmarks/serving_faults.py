"""What does the server say to requests that are none, and what is left of them?

A server with three models (numbers, several inputs of several dtypes, texts) gets requests over
sockets, each right but for one thing; the classes are those of tests/serving. Each has to be
answered with a 4xx in JSON. After each class a row that is known gets its answer, byte for byte,
and the processes are the same ones. Memory is that of all processes of the server together.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.capped_server import NAMES
from benchmarks.results import machine, publish, quick, table
from benchmarks.servers import family, memory
from forwardpass.measuring.clocks import WALL

SERVING = Path(__file__).parent.parent / "tests" / "serving"
HEAD = ("class", "of", "requests", "answers", "no 4xx in JSON", "then", "seconds")
EACH = 600


def main() -> None:
    hasty = quick(__doc__)
    sys.path[:0] = [str(SERVING), str(SERVING.parent)]
    import front

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.capped_server", str(port)])
    try:
        wait(port)
        known = [answer(port, front.request(*right)) for right in questions()]
        ran = family(server.pid)
        tally(port, 20)  # what is made once is made by now
        before = memory(ran)
        began = WALL.now()
        rows = list(tally(port, 30 if hasty else EACH, known))
        took, after = WALL.now() - began, memory(family(server.pid))
        same = "the same" if family(server.pid) == ran else "not the same any more"
    finally:
        server.terminate()
        server.wait(60)
    total = sum(int(row[2].replace(",", "")) for row in rows)
    said = (
        f"{total:,} requests in {took:.0f} s. The processes are {same}; their memory was "
        f"{before / 2**20:,.0f} MiB before and {after / 2**20:,.0f} MiB after. {machine()}"
    )
    method = (__doc__ or "").partition("\n\n")[2].strip()
    publish(
        "serving_faults",
        "Requests that are none",
        [method, table(HEAD, rows), said],
        write=not hasty,
    )


def tally(port: int, count: int, known: list[bytes] | None = None) -> Iterator[list[str]]:
    """A line of the table for each class."""
    import front

    for kind, of, make in classes(port):
        chance, statuses, wrong = random.Random(f"{of} {kind}"), Counter[int](), 0
        began = WALL.now()
        for _ in range(count):
            for given in answers(port, make(chance)):
                statuses[given.status] += 1
                wrong += not (400 <= given.status < 500 and "error" in given.json)
        took = WALL.now() - began
        now = [answer(port, front.request(*right)) for right in questions()]
        said = ", ".join(f"{number} × {status}" for status, number in sorted(statuses.items()))
        then = "answered" if now == known else "NOT answered"
        yield [kind.replace("_", " "), of, f"{count:,}", said, f"{wrong}", then, f"{took:.1f}"]
        print(f"{of}: {kind}: {said}; {wrong} wrong; {then}", flush=True)


def classes(port: int) -> Iterator[tuple[str, str, Callable[[random.Random], Any]]]:
    """All classes of faults, and what makes one."""
    import malformed
    import malformed_http
    import malformed_inference
    from standing_in import about

    spoken = {name: told(port, name) for name in NAMES}
    abouts = {
        name: about(
            *what["inputs"], outputs=what["outputs"], encodes=what["encodes"],
            columns=tuple(what["columns"]),
        )
        for name, what in spoken.items()
    }  # fmt: skip

    def http(make: malformed_http.Make) -> Callable[[random.Random], malformed_http.Sent]:
        def made(chance: random.Random) -> malformed_http.Sent:
            return make(chance, malformed_http.Asked(*chance.choice(questions())))

        return made

    def rows(make: malformed.Make) -> Callable[[random.Random], malformed_http.Sent]:
        def made(chance: random.Random) -> malformed_http.Sent:
            name = chance.choice(NAMES)
            return sent(f"/models/{name}", make(chance, abouts[name]))

        return made

    def inference(make: malformed_inference.Make) -> Callable[[random.Random], malformed_http.Sent]:
        def made(chance: random.Random) -> malformed_http.Sent:
            name = chance.choice(NAMES)
            return sent(f"/v2/models/{name}/infer", *make(chance, abouts[name]))

        return made

    def sent(
        target: str, body: bytes, headers: dict[bytes, bytes] | None = None
    ) -> malformed_http.Sent:
        lines = [f"{k.decode()}: {v.decode('latin-1')}" for k, v in (headers or {}).items()]
        asked = malformed_http.Asked(target, body)
        return malformed_http.Sent(malformed_http.whole(asked, *lines))

    yield from ((kind, "HTTP", http(make)) for kind, make in malformed_http.CLASSES.items())
    yield from ((kind, "rows", rows(make)) for kind, make in malformed.CLASSES.items())
    yield from (
        (kind, "inference protocol", inference(make))
        for kind, make in malformed_inference.CLASSES.items()
    )


def questions() -> list[tuple[str, bytes]]:
    """A path and rows that each model answers."""
    return [
        ("/models/vector", b'{"rows":[[0.1,-0.2,0.3]]}'),
        ("/models/several", b'{"rows":[{"ids":[1,2,3],"mask":[true,false,true],"w":[0.5,1]}]}'),
        ("/models/text", '{"rows":["ein Text, äöü"]}'.encode()),
    ]


def answers(port: int, sent: Any) -> list[Any]:
    from test_malformed_http import answers as said

    return said(port, sent)


def answer(port: int, sent: bytes) -> bytes:
    """The body of the answer to what is right."""
    import front

    with front.Client(port) as client:
        client.send(sent)
        given = client.answer()
    if given.status != 200:
        raise RuntimeError(f"a right request is not answered: {given}")
    return given.body


def told(port: int, name: str) -> Any:
    """What the server says of a model."""
    import front

    return json.loads(answer(port, front.request(f"/models/{name}", method="GET")))


def wait(port: int) -> None:
    """Until all models answer."""
    import front

    until = WALL.now() + 300
    while WALL.now() < until:
        try:
            with front.Client(port) as client:
                client.send(front.request("/readyz", method="GET"))
                if client.answer().status == 200:
                    return
        except (OSError, EOFError):
            continue
    raise RuntimeError("the server is not ready after 300 s")


if __name__ == "__main__":
    main()
