"""ServeOptions: what a server was asked to be."""

from __future__ import annotations

import msgspec


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model under a name.

    Attributes:
        name: it holds no `/`.
        forward: text of the Forward.
        samples: reference to data of which the engine learns what comes; None: what the model has.
        trust: the highest class allowed, as `load` takes it. rebuild: likewise.
        signature: inputs that its user says, a line each; none: what the model has.
        sha256: of the Model that its user has in memory, with these inputs and without a plan: what
            `forward` loads has to be the same. None: nobody has one.
    """

    name: str
    forward: str
    samples: str | None = None
    trust: str | None = None
    rebuild: bool = False
    signature: tuple[str, ...] = ()
    sha256: str | None = None


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What is refused, and how: a queue that is full with 429, all else with another 4xx.

    Attributes:
        header_bytes: of a request, without its target.
        body_bytes: of a request, before it was compressed, too.
        arrival_seconds: from the first byte of a request to its last.
        idle_seconds: that a connection may be open, and silent.
        reply_seconds: that a client may leave a reply unread.
        queue_bytes: of requests that wait to be computed; of those that arrive; and of what an
            engine made of rows that wait.
        reply_bytes: of what came of rows whose requests wait for others of theirs.
    """

    header_bytes: int = 32 << 10
    target_bytes: int = 8 << 10
    body_bytes: int = 64 << 20
    request_rows: int = 4_096
    arrival_seconds: float = 30.0
    idle_seconds: float = 30.0
    reply_seconds: float = 30.0
    connections: int = 2_048
    queue_rows: int = 65_536
    queue_bytes: int = 256 << 20
    reply_bytes: int = 512 << 20


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A whole server.

    Attributes:
        engines: processes of each model that compute at a time; they share the cores. 0: as many as
            the cores hold, of the smallest team of threads that is worth it.
        reload: whether a model whose file changes is loaded anew, and takes over once it is ready.
        grpc_port: where gRPC is answered, too; 0: any that is free.
        slo_seconds: from the arrival of a request to its answer; None: no deadline but a client's.
        drain_seconds: what requests that were received whole have left after SIGTERM.
        token: that requests must bear; needed where `host` is not loopback.
        cors: origins that a browser may ask from.
        otlp: URL of a collector of OpenTelemetry, to which traces are sent.
        is_local: whether names of this machine alone are its names, with a token, too: one that is
            open in a browser here, and no proxy stands before.
    """

    models: tuple[ServedModel, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    engines: int = 1
    reload: bool = False
    grpc_port: int | None = None
    slo_seconds: float | None = None
    drain_seconds: float = 30.0
    token: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    cors: tuple[str, ...] = ()
    is_local: bool = False
    access_log: bool = True
    otlp: str | None = None
    limits: RequestLimits = RequestLimits()
