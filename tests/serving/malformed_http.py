"""Requests that are wrong before a model looks at them: heads, framing, encodings, by the hundred.

`CLASSES` has a function a class: `make(chance, asked) -> Sent`. `asked` is a request that is right:
a target and a body; each class does one thing wrong with it.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from typing import NamedTuple

BODY_BYTES = 1 << 20
HEADER_BYTES = 1 << 14
"""Caps of the server that these are sent to; what is too large is made for them."""


class Asked(NamedTuple):
    target: str
    body: bytes


class Sent(NamedTuple):
    """What goes over a connection; with `ends`, the client closes its side behind it."""

    bytes: bytes
    ends: bool = False


Make = Callable[[random.Random, Asked], Sent]
CLASSES: dict[str, Make] = {}


def malformed(make: Make) -> Make:
    CLASSES[make.__name__] = make
    return make


def head(asked: Asked, *lines: str, line: str = "") -> bytes:
    """A request line and headers; Host is one of them unless `lines` begin with another."""
    first = line or f"POST {asked.target} HTTP/1.1"
    host = () if lines and lines[0].lower().startswith("host") else ("Host: localhost",)
    return "\r\n".join([first, *host, *lines, "", ""]).encode("latin-1")


def whole(asked: Asked, *lines: str) -> bytes:
    return head(asked, f"Content-Length: {len(asked.body)}", *lines) + asked.body


def chunked(chance: random.Random, body: bytes) -> list[bytes]:
    """The chunks of a body, without the last one."""
    cuts = sorted(chance.sample(range(1, len(body)), min(3, len(body) - 1)))
    parts = [body[i:j] for i, j in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    return [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]


@malformed
def lying_lengths(chance: random.Random, asked: Asked) -> Sent:
    size = len(asked.body)
    kind = chance.randrange(5)
    if kind == 0:  # more than comes
        more = size + chance.randint(1, 10_000)
        return Sent(head(asked, f"Content-Length: {more}") + asked.body, ends=True)
    if kind == 1:  # less than comes: what is left is no request
        fewer = chance.randrange(1, size)
        return Sent(head(asked, f"Content-Length: {fewer}") + asked.body)
    if kind == 2:
        said = chance.choice([
            f"-{size}", f"+{size}", f"0x{size:x}", "", f"{size}.0", f"{size} {size}", f"{size},",
            "9" * chance.randint(20, 60), "ten", f"{size}e1", f"{size}\x0b", "1_0", "\xb2",
        ])  # fmt: skip
        return Sent(head(asked, f"Content-Length: {said}") + asked.body)
    if kind == 3:
        twice = size + chance.choice([0, 1, -1])
        lengths = (f"Content-Length: {size}", f"content-length: {twice}")
        return Sent(head(asked, *lengths) + asked.body)
    both = [f"Content-Length: {size}", "Transfer-Encoding: chunked"]
    chance.shuffle(both)
    return Sent(head(asked, *both) + b"".join(chunked(chance, asked.body)) + b"0\r\n\r\n")


@malformed
def broken_chunks(chance: random.Random, asked: Asked) -> Sent:
    first = head(asked, "Transfer-Encoding: chunked")
    chunks = chunked(chance, asked.body)
    place = chance.randrange(len(chunks))
    size, _, data = chunks[place].partition(b"\r\n")
    kind = chance.randrange(6)
    if kind == 0:
        size = chance.choice([
            b"zz", b"-" + size, b"+" + size, b"0x" + size, b" " + size, b"", b"f" * 17, b"\xff",
            size + b"\x00", size + b"g",
        ])  # fmt: skip
    elif kind == 1:  # the data go on behind their end
        size = b"%x" % (int(size, 16) - 1) if int(size, 16) > 1 else b"2"
        data = data if int(size, 16) != 2 else b"abc\r\n"
    elif kind == 2:
        data = data[:-2] + chance.choice([b"\n\r", b"\r", b"xx", b"\n\n"])
    elif kind == 3:
        size += chance.choice([b";\x01", b";a=\x00", b";=\x7f", b"; \x02=b"])
    chunks[place] = size + b"\r\n" + data
    if kind == 4:  # without an end
        return Sent(first + b"".join(chunks), ends=True)
    if kind == 5:
        coding = chance.choice(
            ["gzip", "identity", "chunked, gzip", "chunked, chunked", "xchunked"]
        )
        first = head(asked, f"Transfer-Encoding: {coding}")
    return Sent(first + b"".join(chunks) + b"0\r\n\r\n", ends=True)


@malformed
def broken_request_lines(chance: random.Random, asked: Asked) -> Sent:
    target = asked.target
    line = chance.choice([
        f"PSOT {target} HTTP/1.1", f"post {target} HTTP/1.1", f" POST {target} HTTP/1.1",
        f"POST\t{target} HTTP/1.1", "POST HTTP/1.1", f"POST {target}",
        f"POST {target} HTTP/{chance.choice(['2.0', '0.9', '1.2', '9.9', 'x.y', '1', '11', ''])}",
        f"POST {target} HTTPS/1.1", f"POST {target} HTTP 1.1", f"POST {target} http/1.1",
        f"POST {target}\x00 HTTP/1.1", f"POST {target}\x7f HTTP/1.1", f"POST {target} x HTTP/1.1",
        f"POST {target}\xe4 HTTP/1.1", f"POST {target}%ff HTTP/1.1", f"POST {target}/x HTTP/1.1",
        f"POST {target[1:]} HTTP/1.1", f"CONNECT {target} HTTP/1.1", "PRI * HTTP/2.0",
        f"DELETE {target} HTTP/1.1", f"PUT {target} HTTP/1.1", "POST * HTTP/1.1",
        "".join(chance.choices("ABC\x01\xff {}:/", k=chance.randint(3, 30))).strip() or "A",
        f"POST {target}?{'a' * chance.randint(8_193, 20_000)} HTTP/1.1",
    ])  # fmt: skip
    return Sent(head(asked, f"Content-Length: {len(asked.body)}", line=line) + asked.body)


@malformed
def broken_headers(chance: random.Random, asked: Asked) -> Sent:
    length = f"Content-Length: {len(asked.body)}"
    line = chance.choice([
        "No colon", ": no name", "Space : before", " Folded: first", "A: b\r\n folded",
        "Nul: a\x00b", "N\x00ul: a", "Control: \x01", "Na me: a", "N\xe4me: a", "(x): y",
        "Lone: a\rb", "Line: a\nb: c", "Host: other", "content-type: a\r\nContent-Type: b",
        "Content-Encoding: br", "Expect: 200-ok", "Connection: Upgrade\r\nUpgrade: websocket",
        "Inference-Header-Content-Length: 1\r\nInference-Header-Content-Length: 2",
        f"Long: {'a' * chance.randint(HEADER_BYTES, 3 * HEADER_BYTES)}",
        "\r\n".join(f"H{n}: {n}" for n in range(HEADER_BYTES // 6)),
        f"{'N' * (HEADER_BYTES + 1)}: long",
    ])  # fmt: skip
    if chance.random() < 0.05:  # none at all
        return Sent(f"POST {asked.target} HTTP/1.1\r\n{length}\r\n\r\n".encode() + asked.body)
    return Sent(head(asked, *chance.sample([line, length], 2)) + asked.body)


@malformed
def truncated(chance: random.Random, asked: Asked) -> Sent:
    sent = whole(asked)
    return Sent(sent[: chance.randrange(1, len(sent))], ends=True)


@malformed
def too_large(chance: random.Random, asked: Asked) -> Sent:
    over = BODY_BYTES + chance.randint(1, 1_000)
    kind = chance.randrange(3)
    if kind == 0:
        said = chance.choice([over, 10 * over, 2**40, 2**63 - 1])
        expect = ["Expect: 100-continue"] * chance.randrange(2)
        return Sent(head(asked, f"Content-Length: {said}", *expect) + asked.body)
    if kind == 1:
        chunk = b"%x\r\n%b\r\n" % (1 << 16, b" " * (1 << 16))
        return Sent(head(asked, "Transfer-Encoding: chunked") + chunk * (over // (1 << 16) + 1))
    return Sent(whole(asked._replace(body=asked.body + b" " * over)))


@malformed
def compression_bombs(chance: random.Random, asked: Asked) -> Sent:
    size = chance.choice([2, 4, 8]) * BODY_BYTES
    filled = asked.body[:-1] + chance.choice([b" ", b"0", b"\x00"]) * size + asked.body[-1:]
    if chance.random() < 0.5:
        coding, packed = "gzip", gzip.compress(filled, 1 + chance.randrange(9))
    else:
        coding, packed = "deflate", zlib.compress(filled, 1 + chance.randrange(9))
    return Sent(whole(asked._replace(body=packed), f"Content-Encoding: {coding}"))


@malformed
def broken_encodings(chance: random.Random, asked: Asked) -> Sent:
    packed, coding = gzip.compress(asked.body), "gzip"
    kind = chance.randrange(7)
    if kind == 0:
        packed = packed[: chance.randrange(1, len(packed))]
    elif kind == 1:
        at = chance.randrange(2, len(packed))
        packed = packed[:2] + b"\xff" + packed[3:] if at < 10 else packed[:-5] + b"\x00" * 5
    elif kind == 2:
        packed += chance.randbytes(chance.randint(1, 100))
    elif kind == 3:
        coding = chance.choice(["deflate", "br", "zstd", "compress", "gzip, gzip", "gz", "\xe4"])
    elif kind == 4:  # deflate without its wrapper
        packer = zlib.compressobj(wbits=-15)
        packed, coding = packer.compress(asked.body) + packer.flush(), "deflate"
    elif kind == 5:
        packed = asked.body
    else:
        packed = gzip.compress(packed)
    return Sent(whole(asked._replace(body=packed), f"Content-Encoding: {coding}"))


@malformed
def other_protocols(chance: random.Random, asked: Asked) -> Sent:
    return Sent(chance.choice([
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(40),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + chance.randbytes(20),
        b"SSH-2.0-OpenSSH_9.6\r\n", b"EHLO localhost\r\n", b"*1\r\n$4\r\nPING\r\n",
        b"{" + chance.randbytes(8), chance.randbytes(chance.randint(1, 200)) + b"\x00\r\n\r\n",
        b"GET ws://localhost/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\n\r\n",
    ]), ends=True)  # fmt: skip
