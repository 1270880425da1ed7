"""What is compressed, and what only says so."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
from standing_in import exchange

from forwardpass.serving.bodies import accepted, plain
from forwardpass.serving.exchanges import RefusedError


def read(body: bytes, coding: bytes, most: int = 1000) -> bytes:
    return asyncio.run(plain(exchange("POST", "/", body, {b"content-encoding": coding}), most))


def test_a_body_is_what_was_compressed() -> None:
    text = b"abc" * 300
    assert read(gzip.compress(text), b"gzip") == text
    assert read(gzip.compress(b""), b"x-gzip") == b""
    assert read(zlib.compress(text), b"Deflate") == text
    assert read(text, b"identity") == text


@pytest.mark.parametrize(
    ("body", "coding", "status", "said"),
    [
        (gzip.compress(bytes(100_000_000)), b"gzip", 413, "more than 1,000 bytes"),
        (zlib.compress(bytes(1001)), b"deflate", 413, "more than 1,000 bytes"),
        (gzip.compress(b"abc", mtime=0)[:-1], b"gzip", 400, "ends too early"),
        (gzip.compress(b"abc", mtime=0) + b"x", b"gzip", 400, "goes on behind its end"),
        (gzip.compress(b"") * 1000, b"gzip", 400, "goes on behind its end"),
        (b"", b"gzip", 400, "ends too early"),
        (b"abc", b"gzip", 400, "cannot be decompressed"),
        (zlib.compress(b"abc")[2:-4], b"deflate", 400, "cannot be decompressed"),
        (b"abc", b"br", 415, "gzip or deflate"),
        (b"abc", b"gzip, gzip", 415, "gzip or deflate"),
    ],
)
def test_what_is_broken_or_too_large_is_refused(
    body: bytes, coding: bytes, status: int, said: str
) -> None:
    with pytest.raises(RefusedError, match=said) as refused:
        read(body, coding)
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"", b""), (b"gzip", b"gzip"), (b"deflate", b"deflate"), (b"gzip, deflate", b"gzip"),
        (b"deflate;q=0.9, gzip;q=1.0", b"gzip"), (b"gzip;q=0", b""), (b"br", b""),
        (b"identity, gzip;q=0.5", b""), (b"identity;q=0.1,gzip ; q=0.5", b"gzip"),
        (b"gzip;q=nan", b""), (b"gzip;q=x", b""), (b"GZIP", b"gzip"),
    ],
)  # fmt: skip
def test_the_coding_that_is_ranked_highest(header: bytes, coding: bytes) -> None:
    assert accepted(header) == coding
