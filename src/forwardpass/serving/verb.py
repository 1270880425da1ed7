"""The verb: a server as a process of its own, and the handle to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal, Protocol, Self, TypeVar, cast, overload

import msgspec

from forwardpass.errors import LoadError, UsageError
from forwardpass.nouns.forwards import Forward, ForwardLike
from forwardpass.nouns.models import Model
from forwardpass.nouns.signatures import Signature
from forwardpass.serving.controls import Control, ControlClosedError, ProcessFailed, connected
from forwardpass.serving.options import ServedModel, ServeOptions
from forwardpass.serving.phrases import named, seconds
from forwardpass.serving.supervising import supervise
from forwardpass.serving.witnesses import ReadyModel, Witness
from forwardpass.starting import start

_GRACE_SECONDS: Final = 10.0
"""Beyond what draining may take."""


Hosted = TypeVar("Hosted")
Hosts = TypeVar("Hosts", covariant=True)


class Host(Protocol[Hosts]):
    """Says where a server is, if not on this machine."""

    def host(self, options: ServeOptions) -> Hosts:
        """What serves there; the caller closes it."""
        ...


class ServeHere(msgspec.Struct, frozen=True, tag=True):
    """Be this server; `path` is `sys.path`, where modules are found."""

    options: ServeOptions
    path: list[str]


class ServerReady(msgspec.Struct, frozen=True, tag=True):
    """All models answer, at this URL, and over gRPC at this address."""

    url: str
    grpc_address: str | None
    models: tuple[ReadyModel, ...]


class Server:
    """A server that answers, until it is closed. Used as a context, leaving it closes it.

    Attributes:
        url: where it is, such as `http://127.0.0.1:8000`.
        grpc_address: where gRPC is answered, such as `127.0.0.1:8001`; None without `grpc_port`.
        models: what is known of each.
    """

    def __init__(
        self, ready: ServerReady, process: subprocess.Popen[bytes], life: int, drain_seconds: float
    ) -> None:
        self.url, self.grpc_address, self.models = ready.url, ready.grpc_address, ready.models
        self._process, self._life, self._drain_seconds = process, life, drain_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> int:
        """Wait until it ends of itself, and return its exit code."""
        return self._process.wait()

    def close(self) -> None:
        """Answer what was received whole, and end it. Closing again does nothing."""
        if self._life < 0:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._drain_seconds + _GRACE_SECONDS)
        os.close(self._life)  # which ends what is left
        self._life = -1
        self._process.wait()


@overload
def serve(
    forward: ForwardLike | Mapping[str, ForwardLike],
    *,
    slo: str | float | None = None,
    samples: str | Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    engines: int | Literal["auto"] = 1,
    reload: bool = False,
    grpc_port: int | None = None,
    token: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    cors: str | tuple[str, ...] = (),
    drain: str | float = "30s",
    access_log: bool = True,
    otlp: str | None = None,
    signature: str | Iterable[str] | None = None,
    trust: str | None = None,
    rebuild: bool = False,
    executor: None = None,
) -> Server: ...
@overload
def serve(
    forward: ForwardLike | Mapping[str, ForwardLike],
    *,
    slo: str | float | None = None,
    samples: str | Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    engines: int | Literal["auto"] = 1,
    reload: bool = False,
    grpc_port: int | None = None,
    token: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    cors: str | tuple[str, ...] = (),
    drain: str | float = "30s",
    access_log: bool = True,
    otlp: str | None = None,
    signature: str | Iterable[str] | None = None,
    trust: str | None = None,
    rebuild: bool = False,
    executor: Host[Hosted],
) -> Hosted: ...
def serve(
    forward: ForwardLike | Mapping[str, ForwardLike],
    *,
    slo: str | float | None = None,
    samples: str | Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    engines: int | Literal["auto"] = 1,
    reload: bool = False,
    grpc_port: int | None = None,
    token: str | None = None,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    cors: str | tuple[str, ...] = (),
    drain: str | float = "30s",
    access_log: bool = True,
    otlp: str | None = None,
    signature: str | Iterable[str] | None = None,
    trust: str | None = None,
    rebuild: bool = False,
    executor: Host[Hosted] | None = None,
) -> Server | Hosted:
    """Answer requests for a Forward over HTTP; returns when it is ready.

    The server is a process of its own, which loads the model for itself, and ends with this one.

    Args:
        forward: a reference with its plan, a path, or a Model or Forward that was loaded from one;
            several by their names.
        slo: the time from a request's arrival to its answer, "50ms" or seconds; None: no limit.
        samples: a reference to rows such as will come, as `run` reads them; several by name.
        engines: processes that compute at a time, of each model; they share the cores. "auto": as
            many as the cores hold, of the smallest team of threads that is worth it.
        reload: load a model anew when its file changes; it takes over once it is ready.
        grpc_port: of the same host, where the Open Inference Protocol is answered over gRPC, too.
        host, port: where to listen; port 0 is any that is free. Another host needs `token`.
        token: what requests must bear. tls_cert, tls_key: files, to serve over TLS.
        cors: the origin, or origins, of which pages may ask.
        drain: the time that requests have left which came whole when it is closed.
        access_log: a line on standard error for each request.
        otlp: URL of a collector of OpenTelemetry: a trace of each request is sent there.
        signature: the inputs, as `Model(inputs=…)` takes them, of a model that does not say them.
        trust, rebuild: as `load` takes them.
        executor: where the server is, if not on this machine: `fwd.Ray(…)`.

    Raises UsageError for what has no reference, and for options that do not go together; and what
    the model failed with before it was ready, as `run` does.
    """
    inputs = () if signature is None else tuple(map(str, Signature.parse(signature).inputs))
    options = ServeOptions(
        models=tuple(_models(forward, samples, inputs, trust=trust, rebuild=rebuild)),
        host=host, port=port, grpc_port=grpc_port,
        engines=0 if engines == "auto" else engines, reload=reload,
        token=token, tls_cert=tls_cert, tls_key=tls_key,
        cors=(cors,) if isinstance(cors, str) else tuple(cors),
        slo_seconds=None if slo is None else seconds(slo, "slo"),
        drain_seconds=seconds(drain, "drain"),
        access_log=access_log, otlp=otlp,
    )  # fmt: skip
    return started(options) if executor is None else executor.host(options)


def started(options: ServeOptions) -> Server:
    """A server on this machine, once it is ready. Raises what `serve` raises."""
    mine, others = connected()
    process, life = start("forwardpass.serving.verb:main", [others], stdout=2)
    control = Control[ServerReady | ProcessFailed](mine, ServerReady | ProcessFailed)
    try:
        control.send(ServeHere(options, [*sys.path]))
        return Server(_answer(control), process, life, options.drain_seconds)
    except ControlClosedError:
        code = process.wait()
        os.close(life)
        raise LoadError(f"the server ended with {code} before it was ready") from None
    except BaseException:
        os.close(life)
        process.wait()
        raise
    finally:
        control.close()


def main(control: int) -> None:
    """Be the server that the process at the other end asks for."""
    told = Control[ServeHere](control, ServeHere)
    while not (heard := told.receive()):
        pass
    asked = heard[0].message
    sys.path[:] = asked.path
    try:
        sys.exit(supervise(asked.options, _Telling(told)))
    except Exception as error:  # noqa: BLE001 - the other process raises it
        with suppress(ControlClosedError):
            told.send(ProcessFailed.of(error))


class _Telling(Witness):
    """Tells the process that asked for the server when it is ready."""

    def __init__(self, control: Control[ServeHere]) -> None:
        self._control = control
        self._grpc_address: str | None = None

    def answers_grpc(self, address: str) -> None:
        self._grpc_address = address

    def ready(self, url: str, models: tuple[ReadyModel, ...]) -> None:
        with suppress(ControlClosedError):
            self._control.send(ServerReady(url, self._grpc_address, models))


def _answer(control: Control[ServerReady | ProcessFailed]) -> ServerReady:
    while not (heard := control.receive()):
        pass
    message = heard[0].message
    if isinstance(message, ProcessFailed):
        raise message.error()
    return message


def _models(
    forward: ForwardLike | Mapping[str, ForwardLike],
    samples: str | Mapping[str, str] | None, inputs: tuple[str, ...], **how: Any,
) -> list[ServedModel]:  # fmt: skip
    """The models under their names, each with its samples."""
    given: dict[str, ForwardLike]
    if isinstance(forward, Mapping):
        given = dict(cast("Mapping[str, Any]", forward))
        texts = {name: _text(one) for name, one in given.items()}
    else:
        name, text = named(_text(forward))
        given, texts = {name: forward}, {name: text}
    if inputs and len(texts) != 1:
        raise UsageError("signature: of several models, nothing says which; say it in their files")
    if isinstance(samples, str):
        if len(texts) != 1:
            raise UsageError("samples: of several models, say which: samples={name: data}")
        samples = dict.fromkeys(texts, samples)
    data = samples or {}
    unknown = next((name for name in data if name not in texts), None)
    if unknown is not None:
        raise UsageError(f"samples: no model is named {unknown!r}; there are {', '.join(texts)}")
    return [
        ServedModel(
            name=name, forward=text, samples=data.get(name), signature=inputs,
            sha256=_sha256(given[name], inputs, rebuild=how["rebuild"]), **how,
        )
        for name, text in texts.items()
    ]  # fmt: skip


def _sha256(forward: ForwardLike, inputs: tuple[str, ...], *, rebuild: bool) -> str | None:
    """The digest of a Model that is in memory; None for a reference."""
    if isinstance(forward, str | os.PathLike):
        return None
    from forwardpass.loading import load
    from forwardpass.preparing.identity import digest

    model = load(forward, rebuild=rebuild).model
    if inputs and model.collate is None:  # as the server does it, or refuses to
        model = model.with_signature(Signature.parse(inputs))
    return digest(Forward(model))


def _text(forward: ForwardLike) -> str:
    """A reference with its plan. Raises UsageError for what another process cannot load."""
    if isinstance(forward, str | os.PathLike):
        return os.fspath(forward)
    whole = forward if isinstance(forward, Forward) else None
    model = whole.model if whole is not None else forward
    if not isinstance(model, Model) or model.origin is None:
        raise UsageError(
            "serve starts a process that loads the model for itself, and a module in this one's "
            "memory has no reference: export it, and give the folder, or give file.py:name"
        )
    return model.origin if whole is None else f"{model.origin} {whole.plan}"
