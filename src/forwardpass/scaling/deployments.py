"""RayServer: a deployment of Ray Serve, whose replicas are servers of ours."""

from __future__ import annotations

import os
import secrets
import sys
import time
from typing import Any, Final, Self
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from forwardpass.errors import LoadError, UsageError, missing_extra, said
from forwardpass.scaling.replicas import Directory, ReplicaRecipe, ServerReplica, scaled
from forwardpass.serving.addresses import checked, url
from forwardpass.serving.gates import is_loopback
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.witnesses import ReadyModel

_SPACE: Final = "forwardpass"
"""Ray's namespace of our named actors."""
_ANY: Final = ("0.0.0.0", "::")
_LOOK_SECONDS: Final = 2.0


class RayServer:
    """Replicas that answer, until it is closed. Used as a context, leaving it closes it.

    Args:
        options: of each replica; `port` is that of Ray's proxy.
        replicas: how many there are; from the first number to the second, as load says.
        cores, gpus: of each.
        begun: whether the cluster ends with it.

    Attributes:
        url: of Ray's proxy, which passes requests on.

    Raises UsageError for options that do not go together, LoadError where no replica can be had.
    """

    def __init__(
        self, options: ServeOptions, replicas: tuple[int, int], cores: int, gpus: int,
        *, begun: bool,
    ) -> None:  # fmt: skip
        self._begun = begun
        self._owner = secrets.token_hex(8)
        self._directory: Any = None
        try:
            self._deploy(options, replicas, cores, gpus)
        except BaseException:
            self.close()
            raise
        self.url = url(options, options.port)

    def _deploy(
        self, options: ServeOptions, replicas: tuple[int, int], cores: int, gpus: int
    ) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            from ray import serve
        except ImportError as error:
            raise missing_extra("ray[serve]", "ray", "--ray") from error
        _require_same_everywhere(options)
        checked(options)
        if options.token is None and not is_loopback(options.host):
            raise UsageError(
                f"--host {options.host} lets other machines in: give --token, which requests must "
                "bear then, or serve on 127.0.0.1"
            )
        self._name = "-".join(model.name for model in options.models)
        recipe = ReplicaRecipe(msgspec.json.encode(options), (*sys.path,), os.getcwd())
        try:
            serve.start(http_options={"host": options.host, "port": options.port})
        except RayError as error:
            raise LoadError(
                f"Ray Serve's proxy at {options.host}:{options.port} did not begin to answer: "
                f"{said(error)}"
            ) from error
        self._require_ours(options)
        actor: Any = ray.remote(num_cpus=0)(Directory)
        directory: Any = actor.options(
            name=f"{self._name}-replicas", namespace=_SPACE, get_if_exists=True,
            lifetime="detached",
        ).remote()  # fmt: skip
        before: str = ray.get(directory.own.remote(self._owner))
        self._directory = directory
        made: Any = serve.deployment(ServerReplica)
        deployment = made.options(
            name=self._name,
            ray_actor_options={"num_cpus": cores, "num_gpus": gpus},
            max_ongoing_requests=options.limits.connections,
            graceful_shutdown_timeout_s=options.drain_seconds,
            **_counted(replicas),
        )
        try:
            serve.run(deployment.bind(recipe, directory), name=self._name, route_prefix="/")
        except Exception as error:
            why: str = ray.get(directory.why_none.remote())
            if before:  # the replicas before go on, and are his who began them
                ray.get(directory.own.remote(before))
            raise LoadError(
                why or f"Ray Serve has no replica that answers: {said(error)}"
            ) from error

    def _require_ours(self, options: ServeOptions) -> None:
        """Raises UsageError where the cluster's Ray Serve answers elsewhere already, or for others:
        it has one proxy, and our paths begin at its root."""
        from ray import serve
        from ray.serve import context

        # where it answers is not told otherwise
        client: Any = context._get_global_client()  # pyright: ignore[reportPrivateUsage]
        host, port = client.http_config.host, client.http_config.port
        if (host, port) != (options.host, options.port):
            raise UsageError(
                f"--port {options.port}: Ray Serve answers at {host}:{port} on this cluster "
                f"already: give --host {host} --port {port}, or end it by `serve shutdown`"
            )
        others = sorted(set(serve.status().applications) - {self._name})
        if others:
            raise UsageError(
                f"Ray Serve answers for {', '.join(others)} on this cluster already: serve all "
                "models by one command, or end it by `serve shutdown`"
            )

    @property
    def urls(self) -> list[str]:
        """Of the replicas that answer now: who asks these goes around Ray's proxy."""
        import ray

        told: dict[str, str] = ray.get(self._directory.urls.remote())
        return sorted(one for one in told.values() if _lives(one))

    @property
    def models(self) -> tuple[ReadyModel, ...]:
        """What is known of each, as a replica said it."""
        import ray

        told: tuple[ReadyModel, ...] = ray.get(self._directory.models.remote())
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> None:
        """Until Ctrl-C."""
        while True:
            time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Answer what was received whole, and end the replicas, unless another one has deployed
        under their name meanwhile. Closing again does nothing."""
        import ray

        directory, self._directory = self._directory, None
        try:
            if directory is not None:
                from ray import serve

                owner: str = ray.get(directory.owner.remote())
                if owner == self._owner:
                    serve.delete(self._name)
                    ray.kill(directory)
        finally:
            if self._begun:
                self._begun = False
                ray.shutdown()


def _require_same_everywhere(options: ServeOptions) -> None:
    """Raises UsageError for what cannot hold for replicas on other machines, and Ray's proxy."""
    if options.tls_cert is not None:
        raise UsageError(
            "--tls-cert does not go with --ray, whose proxy speaks plain HTTP: let what stands "
            "before the replicas speak TLS"
        )
    if options.grpc_port is not None:
        raise UsageError(
            f"--grpc-port {options.grpc_port} does not go with --ray: replicas on one machine "
            "cannot share a port, and Ray's proxy would not pass it on; serve gRPC without --ray"
        )
    if options.port == 0:
        raise UsageError("--port 0 does not go with --ray: say at which port its proxy answers")
    if not is_loopback(options.host) and options.host not in _ANY:
        raise UsageError(
            f"--host {options.host} is an address of one machine, and replicas are on many: give "
            "0.0.0.0, or 127.0.0.1 for this one"
        )


def _counted(replicas: tuple[int, int]) -> dict[str, Any]:
    """How Ray is told how many there are to be."""
    least, most = replicas
    if least == most:
        return {"num_replicas": most}
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    policy = AutoscalingPolicy(policy_function=scaled)
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=least, max_replicas=most, policy=policy, upscale_delay_s=5.0,
            downscale_delay_s=60.0,
        )
    }  # fmt: skip


def _lives(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=_LOOK_SECONDS):
            return True
    except (URLError, OSError):
        return False
