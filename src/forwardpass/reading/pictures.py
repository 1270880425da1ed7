"""A picture: the content of a file, as Pillow reads it without another program → its pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from forwardpass.errors import contained, said

_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000"),
    *("PPM", "TGA", "ICO", "PCX", "QOI", "SGI", "PSD", "DDS"),
)


def picture_of(content: bytes) -> np.ndarray[Any, Any] | str:
    """The pixels of a file, uint8 [height width 3], RGB, upright; or why there are none."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        Image.init()  # else only some formats are known
        formats = [name for name in _FORMATS if name in Image.OPEN]
        with contained(), Image.open(io.BytesIO(content), formats=formats) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                return f"the image has {image.width} x {image.height} pixels; at most {limit:,}"
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F" or (upright.mode == "I" and image.format == "TIFF"):
                return (
                    "its pixels are 32-bit numbers, and nothing says which of them is white; "
                    "convert it to 8 or 16 bits"
                )
            if upright.mode.startswith("I"):  # 16 bits, which Pillow would clip, not scale
                grey = (np.asarray(upright) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError:  # whose message holds an address, other in each run
        return "the file is no image that Pillow reads, or damaged"
    except Exception as error:  # noqa: BLE001 - recorded; a damaged image can raise anything
        return f"the image cannot be decoded: {said(error)}"
