"""A line for each request, and none that a request waits for."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from front import request, serving

from forwardpass.serving.access_logs import Access, AccessLog

LINE = Access(0.0, "id", "127.0.0.1", "GET", "/" + "a" * 1_000, 200, 0, 0, 0.0)


def test_a_request_is_a_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = AccessLog(file.fileno())
        with serving(log=log) as front, front.client() as client:
            client.send(request("/echo?token=secret", b"four", X_Request_Id="mine"))
            assert client.answer().status == 200
            client.send(b"nonsense\r\n\r\n")
            assert client.answer().status == 400
        log.close()
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    at = datetime.fromisoformat(first.pop("time"))
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=60)
    assert 0 < first.pop("seconds") < 10
    assert first == {
        "id": "mine", "client": "127.0.0.1", "method": "POST", "path": "/echo", "status": 200,
        "body_bytes": 4, "reply_bytes": 27,
    }  # fmt: skip
    assert (second["status"], second["path"]) == (400, "")


def test_lines_that_nobody_reads_are_dropped_and_counted() -> None:
    read, write = os.pipe()
    log = AccessLog(write)
    began = time.monotonic()
    for _ in range(20):
        for _ in range(10_000):
            log.add(LINE)
        log.flush()
    assert time.monotonic() - began < 5
    seen = 0
    with os.fdopen(read, "rb") as file:
        while seen < 200_000:
            line = json.loads(file.readline())
            seen += 1 + line.get("dropped", 0)
            if seen == 200_000 - 134_464:  # the rest comes with the next
                log.add(LINE)
                log.flush()
                seen -= 1
    assert seen == 200_000
    log.close()
    os.close(write)


def test_a_pipe_that_another_process_made_not_to_block_is_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    log = AccessLog(write)
    for _ in range(200):
        log.add(LINE)
    log.flush()
    time.sleep(0.05)
    with os.fdopen(read, "rb") as file:
        lines = [json.loads(file.readline()) for _ in range(200)]
    assert not any("dropped" in line for line in lines)
    log.close()
    os.close(write)


def test_lines_for_which_a_disk_had_no_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    full = threading.Event()

    def written(descriptor: int, text: bytes) -> int:
        if not full.is_set():
            full.set()
            raise OSError(errno.ENOSPC, "no space left on device")
        return os.writev(descriptor, [text])

    monkeypatch.setattr("forwardpass.serving.access_logs.os.write", written)
    log = AccessLog(write)
    log.add(LINE)
    log.flush()
    assert full.wait(5)
    log.add(LINE)
    log.close()
    os.close(write)
    with os.fdopen(read, "rb") as file:
        assert [json.loads(line)["dropped"] for line in file] == [1]
