"""Sitting: an engine at one Channel, until nobody is at the other end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Final, cast

from msgspec.structs import replace

from forwardpass.errors import ForwardpassError, PassError, said
from forwardpass.executing.batches import Batch, Result
from forwardpass.executing.encoding import Encodings, checked
from forwardpass.executing.executors import Executor
from forwardpass.measuring.clocks import Stopwatch
from forwardpass.nouns.signatures import Signature
from forwardpass.running.threads import Behind, alone
from forwardpass.serving.bulk_encoding import BulkEncoder, EncodedStock
from forwardpass.serving.channels import Channel, ChannelClosedError, ChannelFullError, Received
from forwardpass.serving.mail import Mail
from forwardpass.serving.messages import (
    ComputeRows,
    EncodeRows,
    ForgetRows,
    FromEngine,
    RowsComputed,
    ToEngine,
)
from forwardpass.serving.replies import Outputs, Replies, halved

_AGAIN_SECONDS: Final = 0.001
"""Until a message is tried again for which there was no room."""


class Sitting:
    """Computes what comes, in the thread that serves. Another thread encodes what there is to
    encode; one more decodes where that takes longer than threads of Python take turns.

    Args:
        signature: of the model; None where it has a collate.
        executor: bound to the thread that serves.
        encoder: of which the rows are in `stock`.
    """

    def __init__(
        self,
        channel: Channel[ToEngine],
        signature: Signature | None,
        executor: Executor,
        encoder: BulkEncoder,
        stock: EncodedStock,
        replies: Replies,
    ) -> None:
        self._channel, self._mail = channel, Mail(channel)
        self._signature, self._executor = signature, executor
        self._encoder, self._stock, self._replies = encoder, stock, replies
        self._encoding: Thread | None = None
        self._decoding: Behind[tuple[ComputeRows, Result]] | None = None
        self._decode_seconds = 0.0
        self._failed: BaseException | None = None

    def serve(self, look: Callable[[bool], None], idle_seconds: float) -> None:
        """Serve until the other end is closed.

        `look` is called after each batch, and with True where none came for so many seconds. Raises
        what it raises, and PassError where nothing can be computed in this process any more.
        """
        mail = self._mail
        try:
            while True:
                trays = (mail.batches, mail.values) if self._encoding is None else (mail.batches,)
                if not mail.wait(*trays, timeout=idle_seconds):
                    look(True)
                    continue
                if mail.values and self._encoding is None:
                    self._encoding = alone(self._encode_all, "encode")
                if mail.batches:
                    self._compute(mail.batches.popleft())
                    look(False)
        except ChannelClosedError:
            if self._failed is not None:
                raise self._failed from None
        finally:
            self._channel.close()
            if self._decoding is not None:
                self._decoding.abandon()
            if self._encoding is not None:
                self._encoding.join()

    # -- encoding ---------------------------------------------------------------------------------

    def _encode_all(self) -> None:
        """Encode what comes, until the channel is closed."""
        mail = self._mail
        try:
            while True:
                if not mail.wait(mail.values):
                    continue
                received = [mail.values.popleft() for _ in range(len(mail.values))]
                messages = [cast("EncodeRows | ForgetRows", one.message) for one in received]
                for one in received:
                    one.release()
                answer = self._encoder(messages)
                if answer is not None:
                    self._send(answer)
        except ChannelClosedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised where batches are awaited
            self._failed = error
            self._channel.close()

    # -- computing --------------------------------------------------------------------------------

    def _compute(self, received: Received[ToEngine]) -> None:
        asked = cast("ComputeRows", received.message)
        try:
            batch = Batch(self._rows(asked, received), asked.sizes, asked.cells, asked.seed)
        except KeyError:
            received.release()
            self._send(self._replies.failed(asked, "a row of this batch is not here any more"))
            return
        except (ValueError, TypeError) as error:  # it does not fit the signature
            received.release()
            self._send(self._replies.failed(asked, said(error)))
            return
        future = self._executor.submit(batch)
        if future.done():
            self._computed(asked, received, future)
        else:
            future.add_done_callback(lambda done: self._computed_apart(asked, received, done))

    def _rows(self, asked: ComputeRows, received: Received[ToEngine]) -> Encodings:
        if not asked.tensors:
            return self._stock.take(asked.ids)
        if self._signature is None:
            raise ValueError("rows of this model do not come as tensors")
        return checked(self._signature, received.arrays, len(asked.ids))[0]

    def _computed(
        self, asked: ComputeRows, received: Received[ToEngine], future: Future[Result]
    ) -> None:
        """Answer a batch, here or in the thread that decodes."""
        try:
            result = future.result()
        except PassError as error:
            self._failed = error
            self._channel.close()
            return
        except ForwardpassError as error:
            self._send(self._replies.failed(asked, str(error)))
            return
        finally:
            received.release()
        if self._decode_seconds < sys.getswitchinterval() or all(asked.raw):
            self._answer((asked, result))
            return
        if self._decoding is None:
            self._decoding = Behind(self._answer, 1, "decode")
        self._decoding.put((asked, result))

    def _computed_apart(
        self, asked: ComputeRows, received: Received[ToEngine], future: Future[Result]
    ) -> None:
        with suppress(ChannelClosedError):  # the thread that serves sees it, too
            self._computed(asked, received, future)

    def _answer(self, computed: tuple[ComputeRows, Result]) -> None:
        with Stopwatch() as stopwatch:
            message, arrays = self._replies(*computed)
        self._decode_seconds = stopwatch.seconds
        self._tell(message, arrays)

    def _tell(self, message: RowsComputed, arrays: Outputs) -> None:
        """Send an answer, in parts where it does not fit as a whole; what cannot be told of a row
        alone, says so of that one."""
        try:
            self._send(message, arrays)
        except ChannelFullError as error:
            if len(message.rows) > 1:
                for part in halved(message, arrays):
                    self._tell(*part)
                return
            failures = [(0, f"its outputs: {error}")]
            self._send(replace(message, rows=[None], failures=failures, large=[0]))

    def _send(self, message: FromEngine, arrays: Outputs | None = None) -> None:
        """Send, as soon as there is room. Raises ChannelFullError where there never is."""
        while True:
            try:
                self._channel.send(message, arrays)
            except ChannelFullError as error:
                if error.never:
                    raise
                time.sleep(_AGAIN_SECONDS)
            else:
                return
