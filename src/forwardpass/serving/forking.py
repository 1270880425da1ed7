"""Whether a process that has loaded a model may be forked, and its operator threads until then.

A fork has no thread but the one that forked. A team of operator threads that was there before is
waited for in it for ever: so there is none, until the engine makes its own. Teams of NumPy and
Arrow know of forks, and are made anew.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Final

from forwardpass.nouns.forwards import Forward
from forwardpass.tensors.threads import operator_threads, set_operator_threads

_TEAM: Final = "OMP_NUM_THREADS"
_WAITING: Final = "OMP_WAIT_POLICY"
"""A team that waits for work while it computes nothing has a core that the HTTP process needs: an
MLP answered 16 connections 240 to 1,400 times a second so on two cores, and asleep 6,400."""
_SPINS: Final = "GOMP_SPINCOUNT"
_SHORT: Final = "5000"
"""How often a thread of GNU's OpenMP looks for work before it sleeps: for as long as it takes from
one operator of a pass to the next, about 0.1 ms. A team that sleeps between operators took 16 ms
for a short text with MiniLM, and 13 ms so; 20,000 are no faster. Its own default is 300,000."""
_BARS: Final = "HF_HUB_DISABLE_PROGRESS_BARS"
"""A bar of transformers begins a thread, which looks after it for ever; nobody sees it here."""
_ENDING_SECONDS: Final = 0.5
"""That a thread has which loading was done with, to come to its end."""
_SECONDS: Final = 3
"""After which a fork that computes a sum does not."""


def put_off_threads() -> int:
    """Compute in one thread from here on: called before PyTorch is there, and before a model is
    loaded. Threads that will come sleep while no pass is under way, unless the environment says
    otherwise. Returns how many threads there would be inside an operator."""
    if _WAITING not in os.environ:
        os.environ[_WAITING] = "PASSIVE"
        os.environ.setdefault(_SPINS, _SHORT)
    os.environ.setdefault(_BARS, "1")
    asked = os.environ.get(_TEAM, "")
    os.environ[_TEAM] = "1"
    loaded = operator_threads()
    set_operator_threads(1)
    return loaded or (int(asked) if asked.isdecimal() and int(asked) else _cores())


def take_up_threads(count: int) -> None:
    """Compute in so many threads, from here on."""
    os.environ[_TEAM] = str(count)
    set_operator_threads(count)


def unforkable(forward: Forward) -> str:
    """Why a fork of this process could not compute what was loaded, in a sentence; "" where one
    can, which is tried."""
    if sys.platform != "linux":
        return f"libraries of {sys.platform} do not stand a fork"
    set_operator_threads(1)  # what was loaded may have set its own
    others: list[str] = []
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(_ENDING_SECONDS)
            if thread.is_alive():
                others.append(thread.name)
    if others:
        return f"loading it began threads, which a fork would not have: {', '.join(others)}"
    device = _device(forward)
    if device:
        return f"it computes on {device}, which a fork cannot take over"
    return "" if _computes() else "a process that was forked of it does not compute"


def fork() -> int:
    """`os.fork`, without its warning of threads: they are looked after here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _device(forward: Forward) -> str:
    """What it computes on, if that is no CPU; "" for a CPU."""
    for argument in forward.plan.backend.arguments:
        if str(argument.value).startswith(("cuda", "mps")):
            return str(argument.value)
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    if torch.cuda.is_initialized():
        return "cuda"
    module = forward.model.program.module
    if module is None:
        return ""
    from forwardpass.tensors.modules import held_by

    kinds = {tensor.device.type for tensor in held_by(module).values()}
    return next(iter(sorted(kinds - {"cpu", "meta"})), "")


def _computes() -> bool:
    """Whether a fork computes with a team of threads of its own."""
    torch = sys.modules.get("torch")
    if torch is None:
        return True
    child = fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_SECONDS)
            torch.set_num_threads(2)
            done = bool((torch.ones(1 << 18) + 1).sum() == 1 << 19)
            os._exit(0 if done else 1)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
