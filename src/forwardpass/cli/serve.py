"""fwd serve: answer requests over HTTP, batched and on time."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

import click

from forwardpass.cli.options import leave, rebuild, signature, trusted
from forwardpass.errors import UsageError

if TYPE_CHECKING:
    from forwardpass.serving.options import ServedModel, ServeOptions


@click.command()
@click.argument("forwards", nargs=-1, required=True, metavar="FORWARD…")
@click.option(
    "--slo", metavar="TIME",
    help="Answer within TIME of a request's arrival, as 50ms or 2s, or refuse it. [no limit]",
)  # fmt: skip
@click.option(
    "--samples", multiple=True, metavar="DATA",
    help="Rows such as will come, as `fwd run` reads them; name=DATA for one of several models.",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", metavar="HOST", help="Where to listen. [127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, metavar="N",
    help="Of HOST; 0 is any that is free. [8000]",
)  # fmt: skip
@click.option(
    "--engines", default="1", metavar="N",
    help="Processes that compute at a time, of each model, or auto; they share the cores. [1]",
)  # fmt: skip
@click.option(
    "--reload", is_flag=True,
    help="Load a model anew when its file changes; the old one answers until the new one is ready.",
)  # fmt: skip
@click.option(
    "--grpc-port", type=click.IntRange(0, 65535), metavar="N",
    help="Of HOST: answer the Open Inference Protocol over gRPC, too. [not]",
)  # fmt: skip
@click.option(
    "--token", envvar="FORWARDPASS_TOKEN", metavar="TOKEN",
    help="Requests must bear it: `Authorization: Bearer TOKEN`. [$FORWARDPASS_TOKEN]",
)  # fmt: skip
@click.option("--tls-cert", metavar="FILE", help="Serve https with this certificate (PEM).")
@click.option("--tls-key", metavar="FILE", help="Its key (PEM).")
@click.option(
    "--cors", multiple=True, metavar="ORIGIN",
    help="Pages of ORIGIN may ask, as https://example.org, or *. Repeatable.",
)  # fmt: skip
@click.option(
    "--drain", default="30s", metavar="TIME",
    help="After SIGTERM or Ctrl-C: what requests that came whole have left. [30s]",
)  # fmt: skip
@click.option(
    "--ray", metavar="local|ADDRESS",
    help="Have Ray Serve keep replicas, on a cluster begun here or at this address.",
)  # fmt: skip
@click.option(
    "--workers", metavar="N|A-B",
    help="With --ray: how many replicas; from A to B of them, as load says. [1]",
)  # fmt: skip
@click.option("--no-access-log", is_flag=True, help="No line for each request.")
@click.option(
    "--otlp", metavar="URL",
    help="Send a trace of each request there, to a collector of OpenTelemetry.",
)  # fmt: skip
@click.option("--stateful", is_flag=True, hidden=True)
@signature
@trusted
@rebuild
@click.option("--quiet", "-q", is_flag=True, help="No progress, nothing of what is served.")
def serve(
    forwards: tuple[str, ...],
    slo: str | None,
    samples: tuple[str, ...],
    engines: str,
    drain: str,
    no_access_log: bool,
    stateful: bool,
    signature: tuple[str, ...],
    trust: str | None,
    rebuild: bool,
    quiet: bool,
    ray: str | None,
    workers: str | None,
    **options: Any,
) -> None:
    """Answer requests for FORWARD over HTTP: rows of many requests share a batch, and each is
    answered before its deadline, or refused at once.

    \b
      fwd serve digits.py --slo 50ms
      fwd serve a=small.fwd b=large.py:model --samples a=some.csv
      curl localhost:8000/models/digits -d '{"rows": [ … ]}'

    Several models are served side by side; the name of each is the stem of its file, where no
    `name=` says another. /docs describes what may be asked, /metrics is for Prometheus, and clients
    of the Open Inference Protocol v2 (Triton's) and of OpenAI's embeddings are answered, too.

    It listens on this machine alone, unless --host says more, which needs --token.
    """
    if stateful:
        raise UsageError(
            "--stateful: a server keeps no state from one request to the next, since they come in "
            "no order; what a pass changes of the model is put back after each batch"
        )
    from forwardpass.serving.options import ServeOptions
    from forwardpass.serving.phrases import seconds
    from forwardpass.serving.supervising import supervise
    from forwardpass.showing.servers import ShownServer

    if engines != "auto" and not (engines.isascii() and engines.isdigit() and int(engines)):
        raise UsageError(f"--engines {engines}: expected a whole number from 1, or auto")
    asked = ServeOptions(
        engines=0 if engines == "auto" else int(engines),
        models=_models(forwards, samples, signature, trust=trust, rebuild=rebuild),
        slo_seconds=None if slo is None else seconds(slo, "--slo"),
        drain_seconds=seconds(drain, "--drain"),
        access_log=not no_access_log,
        **options,
    )
    if ray is not None:
        _on_ray(ray, workers or "1", asked, quiet=quiet)
        return
    if workers is not None:
        raise UsageError("--workers goes with --ray: local, or the address of a cluster")
    with ShownServer(asked, quiet=quiet) as witness:
        code = supervise(asked, witness)
    leave(code)


def _on_ray(address: str, workers: str, asked: ServeOptions, *, quiet: bool) -> None:
    """Have it served by replicas on a cluster, until SIGTERM or Ctrl-C."""
    from forwardpass.scaling import Ray
    from forwardpass.serving.addresses import url
    from forwardpass.showing.servers import ShownServer

    least, _, most = workers.partition("-")
    if not (least.isdigit() and (not most or most.isdigit())):
        raise UsageError(f"--workers {workers}: expected a whole number from 1, or 1-4")
    # a level would be set anew when Ray Serve is imported
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)
    terminated = threading.Event()

    def terminate(*_: object) -> None:
        terminated.set()
        raise KeyboardInterrupt  # which Ray lets through, wherever it waits

    signal.signal(signal.SIGTERM, terminate)
    try:
        with ShownServer(asked, quiet=quiet) as shown:
            shown.bound(url(asked, asked.port))
            with Ray(address, (int(least), int(most or least))).host(asked) as server:
                shown.ready(server.url, server.models)
                shown.answers_directly(server.urls)
                server.wait()
    except KeyboardInterrupt:
        if not terminated.is_set():
            raise
        leave(0)


def _models(
    forwards: tuple[str, ...], samples: tuple[str, ...], signature: tuple[str, ...], **how: Any
) -> tuple[ServedModel, ...]:
    """The models under their names, each with its samples."""
    from forwardpass.serving.options import ServedModel
    from forwardpass.serving.phrases import named

    models = dict.fromkeys(named(text)[0] for text in forwards)
    if signature and len(forwards) > 1:
        raise UsageError(
            "--signature: of several models, nothing says which; say it in their files"
        )
    data: dict[str, str] = {}
    for text in samples:
        name, equals, source = text.partition("=")
        if not (equals and name in models):
            if len(forwards) > 1:
                raise UsageError(
                    f"--samples {text}: of several models, say which: {next(iter(models))}={text}"
                )
            name, source = next(iter(models)), text
        if name in data:
            raise UsageError(f"--samples: two of them for {name}; a source may be a glob")
        data[name] = source
    return tuple(
        ServedModel(name=name, forward=forward, samples=data.get(name), signature=signature, **how)
        for name, forward in map(named, forwards)
    )
