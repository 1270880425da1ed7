"""OpenVINO and NNCF, imported as libraries: both would report each import over the network, and
NNCF sets how others log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from forwardpass.errors import missing_extra

_REPORTER = "openvino_telemetry"


def openvino(purpose: str) -> Any:
    """OpenVINO. Raises MissingExtraError."""
    try:
        with _unreported():
            import openvino as library
    except ImportError as error:
        raise missing_extra("openvino", "openvino", purpose) from error
    return library


def nncf() -> Any:
    """NNCF. Raises MissingExtraError."""
    try:
        with _unreported():
            import nncf as library
    except ImportError as error:
        raise missing_extra("nncf", "nncf", "to quantize for openvino") from error
    return library


@contextmanager
def _unreported() -> Generator[None]:
    """Both go without the package that reports, where it is not there."""
    kind = logging.getLoggerClass()
    absent = _REPORTER not in sys.modules
    if absent:
        sys.modules[_REPORTER] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        logging.setLoggerClass(kind)
        if absent:
            del sys.modules[_REPORTER]
