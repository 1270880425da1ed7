"""Images: `image` is uint8 [height width 3], RGB, upright; `path` the relative path.

Whatever Pillow reads without another program. Rows are keyed by their path. A file that cannot be
decoded, or that Pillow takes for a decompression bomb, is a Failure. Transparency is dropped, 16
bits a channel become 8, of several frames or pages the first is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from forwardpass.errors import DataError, missing_extra
from forwardpass.nouns.rows import Failure, Rows
from forwardpass.reading.blocks import unreadable
from forwardpass.reading.files import File
from forwardpass.reading.pictures import picture_of

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".avif", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tga", ".ico", ".pcx", ".qoi", ".sgi", ".psd", ".dds"),
)
STREAMED = False

_BLOCK_IMAGES = 64
_BLOCK_BYTES = 32 * 2**20


def read(files: Sequence[File], start: int) -> Iterator[Rows]:
    if find_spec("PIL") is None:
        raise missing_extra("pillow", "images", f"reading {files[0].name}")
    images: list[np.ndarray[Any, Any]] = []
    paths: list[str] = []
    positions: list[int] = []
    failures: list[Failure] = []
    for position, file in enumerate(files[start:], start):
        path = file.relative
        image = _image(file)
        if isinstance(image, str):
            failures.append(unreadable(position, image, key=path))
        else:
            images.append(image)
            paths.append(path)
            positions.append(position)
        held = sum(image.nbytes for image in images)
        full = len(images) + len(failures) >= _BLOCK_IMAGES or held >= _BLOCK_BYTES
        if full or position == len(files) - 1:
            numbers = np.array(positions, dtype=np.int64)
            yield Rows({"image": images, "path": paths}, numbers, paths, tuple(failures))
            images, paths, positions, failures = [], [], [], []


def count(files: Sequence[File]) -> int:
    return len(files)


def _image(file: File) -> np.ndarray[Any, Any] | str:
    """The pixels, or why there are none. Raises DataError where a server gives no answer."""
    try:
        with file.open() as handle:
            content = handle.read()
    except DataError as error:
        if not file.is_local:  # the next images would fail likewise: stop, and be resumed
            raise
        return str(error)
    return picture_of(content)
