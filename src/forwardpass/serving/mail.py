"""Mail: what comes over one Channel, for two threads: one computes, one encodes."""

from __future__ import annotations

import threading
from collections import deque

from forwardpass.serving.channels import Channel, ChannelClosedError, Received
from forwardpass.serving.messages import ComputeRows, ToEngine

Tray = deque[Received[ToEngine]]


class Mail:
    """Whichever thread has nothing to do waits for both, and puts what is for the other aside.

    So a batch is not late because rows are being encoded, nor the other way around, and where one
    thread does all it is handed nothing over.

    Attributes:
        batches: to compute. values: to encode, or to forget.
    """

    def __init__(self, channel: Channel[ToEngine]) -> None:
        self._channel = channel
        self._changed = threading.Condition()
        self._reading = False
        self._error: ChannelClosedError | None = None
        self.batches = Tray()
        self.values = Tray()

    def wait(self, *trays: Tray, timeout: float | None = None) -> bool:
        """Wait until something is in one of these trays; False where `timeout` seconds passed, or
        some time in which it was for the other thread.

        Raises ChannelClosedError once the channel is closed and the trays are empty.
        """
        with self._changed:
            if any(trays):
                return True
            if self._error is not None:
                raise self._error
            if self._reading:
                self._changed.wait(timeout)
                return any(trays)
            self._reading = True
        received: list[Received[ToEngine]] = []
        try:
            received = self._channel.receive(timeout)
        except ChannelClosedError as error:
            self._error = error
        finally:
            with self._changed:
                for one in received:
                    tray = self.batches if isinstance(one.message, ComputeRows) else self.values
                    tray.append(one)
                self._reading = False
                self._changed.notify_all()
        return any(trays)
