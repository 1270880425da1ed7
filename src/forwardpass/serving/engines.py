"""ServedEngine: what an engine process does once its model is built."""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import Final

from forwardpass.executing.decoding import Decoder
from forwardpass.executing.encoding import Encoder
from forwardpass.executing.executors import Executor
from forwardpass.measuring.clocks import WALL, Stopwatch
from forwardpass.nouns.models import Model
from forwardpass.serving.bulk_encoding import BulkEncoder, EncodedStock
from forwardpass.serving.channels import Channel, ChannelClosedError
from forwardpass.serving.controls import Control, ControlClosedError, EngineJoined
from forwardpass.serving.ends import Ends
from forwardpass.serving.messages import About, ToEngine
from forwardpass.serving.replies import Replies
from forwardpass.serving.sittings import Sitting

_IDLE_SECONDS: Final = 1.0
"""After as long without a batch the module is looked at whole."""
_LOOKS_SHARE: Final = 0.01
"""Of all time, for such looks where there always is a batch."""


class ServedEngine:
    """Computes what comes over a Channel, and over the next one when that is closed.

    Args:
        model: its signature is known, or it has a collate.
        executor: bound to this thread.
        about: what is said of it over each channel, first of all.
    """

    def __init__(self, model: Model, executor: Executor, about: About) -> None:
        self._executor, self._about = executor, about
        self._signature = model.signature
        self._encoder = Encoder(model, as_text="send what is text as a string")
        self._replies = Replies(Decoder(model))
        one = about.columns[0] if len(about.columns) == 1 else None
        self._column = "text" if "text" in about.columns else one  # where others may be left out
        self._computed = self._looked = WALL.now()
        self._looking = Stopwatch()
        self._is_unseen = False

    def serve(self, channel: Channel[ToEngine]) -> None:
        """Serve until the other end is closed; nothing that came over it is kept.

        Raises PassError where nothing can be computed in this process any more: the device is lost,
        or a pass left something changed.
        """
        stock = EncodedStock()
        try:
            channel.send(self._about)
        except ChannelClosedError:
            channel.close()
            return
        encoder = BulkEncoder(self._encoder, self._column, stock)
        Sitting(
            channel, self._signature, self._executor, encoder, stock, self._replies
        ).serve(self._look, _IDLE_SECONDS)  # fmt: skip

    def _look(self, nothing_came: bool) -> None:
        """Make sure, where there is time for it, that no batch depends on those before it."""
        now = WALL.now()
        if not nothing_came:
            self._computed, self._is_unseen = now, True
        is_idle = now - self._computed >= _IDLE_SECONDS
        is_due = self._looking.seconds < _LOOKS_SHARE * (now - self._looked)
        if self._is_unseen and (is_idle or is_due):
            self._looking = Stopwatch()
            with self._looking:
                self._executor.verify()
            self._looked = WALL.now()
            self._is_unseen = not is_idle  # the latest batch may not be computed yet


def work(engine: ServedEngine, control: Control[EngineJoined]) -> None:
    """Serve over each Channel that the supervisor gives, in this thread; this process ends when the
    supervisor does. Raises PassError where nothing can be computed any more."""
    joined: SimpleQueue[Ends] = SimpleQueue()

    def listen() -> None:
        try:
            while True:
                for heard in control.receive():
                    joined.put(Ends(*heard.descriptors))
        except ControlClosedError:
            os._exit(0)

    threading.Thread(target=listen, name="forwardpass-control", daemon=True).start()
    while True:
        engine.serve(Channel(joined.get(), engine=True))
