"""Actors: the processes of a Ray cluster in which Workers are, and how one calls them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final

from forwardpass.errors import PassError, UsageError, said
from forwardpass.scaling.seats import LostError, NotBegunError
from forwardpass.scaling.sent import SentError, received_error, sent_error
from forwardpass.scaling.workers import ClusterWorker

_GROUPS: Final = {"feeding": 1, "encoding": 1}
"""What goes on beside computing, a thread each."""
_GROUP_OF: Final = {"encode": "encoding", "wants": "feeding", "feed": "feeding"}
_BEGINNING: Final = ("place", "begin")
"""What can be asked of a worker that knows of nothing yet."""
_RETRIES: Final = 3


class _Process:
    """A ClusterWorker, as Ray calls it. What it raises goes back as what is said of it."""

    def __init__(self) -> None:
        self._worker = ClusterWorker()

    def do(self, method: str, sent: bytes) -> bytes:
        """Call a method of the worker. Bytes, since Ray's own arrays cannot be written into; a
        pickle, as all that Ray sends: processes of a cluster run each other's code."""
        from ray import cloudpickle

        if method not in _BEGINNING and not self._worker.has_begun:
            return _dumped(SentError(NotBegunError.__name__, ""))
        try:
            made = getattr(self._worker, method)(*cloudpickle.loads(sent))
        except Exception as error:  # noqa: BLE001 - raised where it is called from
            made = sent_error(error)
        return _dumped(made)


class Cluster:
    """A Ray cluster. One that was begun here ends with `close`.

    Args:
        address: as `Ray` takes it; None where this process is connected already.
        workers: asked for; None: as many as fit.
        cores, gpus: of each worker.

    Raises UsageError where there is no such cluster, or less in it than was asked for.
    """

    def __init__(self, address: str | None, workers: int | None, cores: int, gpus: int) -> None:
        import ray

        self._cores, self._gpus = cores, gpus
        self._told = ThreadPoolExecutor(1, "forwardpass-ray")
        self._actors: list[Any] = []
        self._begun = connected(address, workers, cores)
        try:
            self.size = _fitting(ray.cluster_resources(), workers, cores, gpus)
        except BaseException:
            self.close()
            raise

    def actor(self, name: str) -> Actor:
        """A new worker; it is there once a first call is answered."""
        import ray

        remote: Any = ray.remote
        actor = remote(
            num_cpus=self._cores, num_gpus=self._gpus, max_restarts=-1, max_task_retries=0,
            concurrency_groups=_GROUPS,
        )(_Process)  # fmt: skip
        made = actor.remote()
        self._actors.append(made)
        return Actor(name, made, self._told)

    def close(self) -> None:
        """End the workers, and the cluster where it was begun here."""
        import ray

        while self._actors:
            actor = self._actors.pop()
            if not self._begun:  # with the cluster its actors end
                with suppress(Exception):  # one that is gone
                    ray.kill(actor)
        self._told.shutdown(wait=False, cancel_futures=True)
        if self._begun:
            self._begun = False
            ray.shutdown()


class Actor:
    """A worker, as one calls it."""

    def __init__(self, name: str, handle: Any, told: ThreadPoolExecutor) -> None:
        self.name = name
        self._handle, self._told = handle, told

    def call(self, method: str, *given: Any, waits: bool = False) -> Future[Any]:
        """What a method of the worker makes of this, or what it raises: an error of ours as it is.
        LostError where the process ends; `waits`: unless it can be called again meanwhile."""
        group, retries = _GROUP_OF.get(method), _RETRIES if waits else 0
        future: Future[Any] = Future()
        options = {} if group is None else {"concurrency_group": group}
        try:
            sent = _dumped(given)
            called = self._handle.do.options(max_task_retries=retries, **options)
            came: Future[bytes] = called.remote(method, sent).future()
        except Exception as error:  # noqa: BLE001 - as if it were told of later
            self._tell(future, error)
        else:
            came.add_done_callback(lambda done: self._tell(future, done))
        return future

    def _tell(self, future: Future[Any], came: Future[bytes] | Exception) -> None:
        with suppress(RuntimeError):  # the cluster is closed: nobody waits
            self._told.submit(_settle, future, self.name, came)


def _dumped(value: Any) -> bytes:
    """By value, as Ray does it: a function of `__main__` is known elsewhere, too."""
    from ray import cloudpickle

    dumps: Any = vars(cloudpickle)["dumps"]  # which it does not export by its types
    return dumps(value, protocol=5)


def _settle(future: Future[Any], name: str, came: Future[bytes] | Exception) -> None:
    """What came of a call, in a thread in which more may be called: Ray's own must not wait."""
    from ray import cloudpickle, exceptions

    try:
        if isinstance(came, Exception):
            raise came
        made = cloudpickle.loads(came.result())
    except (
        exceptions.RayActorError, exceptions.ObjectLostError, exceptions.OutOfMemoryError,
        exceptions.WorkerCrashedError, exceptions.NodeDiedError,
    ) as error:  # fmt: skip
        future.set_exception(LostError(f"{name}: {said(error)}"))
    except Exception as error:  # noqa: BLE001 - of Ray, or an object that cannot be sent
        future.set_exception(PassError(f"{name}: {said(error)}"))
    else:
        if isinstance(made, SentError) and made.kind == NotBegunError.__name__:
            future.set_exception(NotBegunError(f"{name} ended while it had nothing to do"))
        elif isinstance(made, SentError):
            future.set_exception(received_error(made))
        else:
            future.set_result(made)


def connected(address: str | None, workers: int | None, cores: int) -> bool:
    """Begin a cluster on this machine, or connect to one: whether that was done here, and whoever
    asked is to end it. Raises UsageError where there is no such cluster."""
    import ray

    # else it puts a print of its own in place of Python's
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
    if ray.is_initialized():
        return False
    with _sigterm_as_it_was():
        return _begun(address, workers, cores)


@contextmanager
def _sigterm_as_it_was() -> Generator[None]:
    """Ray puts a handler in place of whoever's, which writes a stack and raises SystemExit."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _begun(address: str | None, workers: int | None, cores: int) -> bool:
    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        # without "local" it connects to whatever cluster was begun on this machine
        # Ray Serve gives its proxy 5 s to begin, and a laptop that does other things takes longer
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        cpus = workers and workers * cores
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        return True
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray {address}: there is no such Ray cluster: {said(error)}. Begin one with "
            "`ray start --head`, or compute on this machine: --ray local"
        ) from error
    return True


def _fitting(total: Mapping[str, float], workers: int | None, cores: int, gpus: int) -> int:
    """Workers that a cluster of these resources holds, or as many as were asked for."""
    held = {"cores": int(total.get("CPU", 0)), "GPUs": int(total.get("GPU", 0))}
    most = min(held["cores"] // cores, held["GPUs"] // gpus if gpus else sys.maxsize)
    if most < (workers or 1):
        each = f"{cores} core{'s' * (cores > 1)}" + f" and {gpus} GPU" * bool(gpus)
        raise UsageError(
            f"{workers or 1} workers of {each} each do not fit into the Ray cluster, which has "
            f"{held['cores']} cores and {held['GPUs']} GPUs: ask for fewer, or add nodes"
        )
    return workers or most
