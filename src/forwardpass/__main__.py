"""The command `fwd`, and `python -m forwardpass`."""

import os
import signal
import sys

_TALKATIVE = ("torchao", "torch.utils._pytree")
"""Loggers that speak whenever torchao is imported, which transformers does where it is installed:
of files for CUDA that cannot be loaded, and of a deprecation in its own code."""


def main() -> None:
    """Run the command. Until Ctrl-C is heard next to nothing is imported: what is, here too."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    import logging

    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    from forwardpass.cli import main

    main(prog_name="fwd")


def _interrupted(number: int, frame: object) -> None:
    """Leave at once while the first imports run: nothing has begun that must be ended in order, and
    an import that is interrupted may raise anything. Later it is a KeyboardInterrupt."""
    torch = sys.modules.get("torch")
    if torch is None or getattr(torch.__spec__, "_initializing", False):
        os.write(2, b"fwd: interrupted\n")
        os._exit(130)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
