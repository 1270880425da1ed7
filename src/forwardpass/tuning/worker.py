"""A worker process; what it is given are two descriptors, of requests and of answers.

It does what it is asked, a line of JSON after the other, and answers each. What is printed in it
goes elsewhere than the answers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from forwardpass.measuring.memory import mapped_bytes
from forwardpass.tuning.messages import (
    Answer,
    Beat,
    BoundRequest,
    ComputeAnswer,
    ComputeRequest,
    FailureAnswer,
    Line,
    LoadAnswer,
    LoadRequest,
    MakeRequest,
    OpenAnswer,
    OpenRequest,
    Request,
)  # fmt: skip


def main(requests: int, answers: int) -> None:
    """Answer requests until there are no more."""
    served = _Served(answers)
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            served.answer(msgspec.json.decode(line, type=Request))


class _Served:
    """A Station, and the pipe that its answers go into."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._open: str | None = None
        self._station: object = None

    def answer(self, request: Request) -> None:
        """Do what is asked, and say what came of it."""
        from forwardpass.tuning.stations import failure

        try:
            line: Line = self._done(request)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the trial's
            failed = failure(error, making=isinstance(request, MakeRequest))
            kind: Any = type(failed).__name__
            line = FailureAnswer(str(failed), kind)
        self._say(line)

    def _say(self, line: Line) -> None:
        text = msgspec.json.encode(line) + b"\n"
        while text:
            text = text[os.write(self._answers, text) :]

    def _beat(self) -> None:
        self._say(Beat())

    def _done(self, request: Request) -> Answer:
        from forwardpass.tuning.stations import Station
        from forwardpass.tuning.stored import write_values

        if isinstance(request, LoadRequest | BoundRequest):
            return self._begun(request)
        station = self._station
        assert isinstance(station, Station)
        if isinstance(request, MakeRequest):
            return station.make(request.plan, Path(request.out), request.parts)
        if isinstance(request, OpenRequest):
            station.close_all()
            self._open = request.folder
            opened = (request.folder, request.parts, request.sizing_seconds)
            runner = station.open(*opened)
            return OpenAnswer(runner.seconds, runner.threads)
        if isinstance(request, ComputeRequest):
            made, failed = station.outputs(self._open, request.parts, request.part, request.rows)
            write_values(Path(request.out), made.outputs)
            return ComputeAnswer(dict(failed))
        return station.turn(
            self._open, request.parts, request.part, request.rows,
            request.batch, request.first, request.repeats,
        )  # fmt: skip

    def _begun(self, request: LoadRequest | BoundRequest) -> LoadAnswer:
        from forwardpass.loading import load
        from forwardpass.nouns.forwards import Forward
        from forwardpass.nouns.plans import Plan
        from forwardpass.nouns.signatures import Signature
        from forwardpass.preparing.identity import digest
        from forwardpass.tensors.threads import set_operator_threads
        from forwardpass.tuning.stations import Station

        signature, forward = Signature.parse(request.inputs, request.outputs), None
        if isinstance(request, LoadRequest):
            sys.path[:] = request.path
            model = load(request.origin, trust=request.trust).model.with_signature(signature)
            if request.weights is not None:
                from forwardpass.tuning.weights import put_weights

                put_weights(model.module, Path(request.weights))
            forward = Forward(model, Plan.parse(request.plan))
            set_operator_threads(request.threads)
        self._station = Station(forward, signature, self._beat)
        known = LoadAnswer("" if forward is None else digest(forward))
        _limit(request.bytes)
        return known


def _limit(allowed: int | None) -> None:
    """From here on, map no more than so many bytes beyond what is mapped; None: as many as ever."""
    import resource

    mapped = mapped_bytes()
    if mapped and allowed is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = mapped + allowed
        soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
