"""A record as text, and as one file: JSON, and the values that were kept as safetensors."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as unpacked
from safetensors.torch import save as packed

from forwardpass.errors import DataError
from forwardpass.nouns.records import KeptRecord, Record, record_fields
from forwardpass.tensors.dtypes import spelled

_RECORD, _VALUES = "record.json", "values.safetensors"
_LONGEST_TEXT = 200
_MOST_BYTES = 4 << 30


_BROKEN = (
    zipfile.BadZipFile, zlib.error, msgspec.DecodeError, SafetensorError, ValueError, OSError,
    EOFError, RuntimeError, NotImplementedError,
)  # fmt: skip
"""What a crafted or broken file makes its readers raise."""


def to_json(record: Record) -> str:
    """A record as one JSON document."""
    return _encoded(record).decode()


def _encoded(record: Record) -> bytes:
    """The plain data of a record, whatever else there is of it."""
    calls = tuple(
        msgspec.structs.replace(
            call,
            arguments=tuple(plain(list(call.arguments))),
            keywords=cast("dict[str, Any]", plain(call.keywords)),
        )
        for call in record.calls
    )
    return msgspec.json.encode(
        msgspec.structs.replace(Record(**record_fields(record)), calls=calls)
    )


def plain(value: Any) -> Any:
    """An argument as JSON has it: dtypes and devices in words, Inf and NaN too."""
    if isinstance(value, bool | int | str) or value is None or isinstance(value, msgspec.Struct):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, torch.dtype):
        return spelled(value)
    if isinstance(value, torch.device | torch.layout | torch.memory_format):
        return str(value).removeprefix("torch.")
    text = f"<{type(value).__name__}>" if not isinstance(value, complex) else str(value)
    return text[:_LONGEST_TEXT]


def save(record: Record, path: str | os.PathLike[str]) -> None:
    """Write a record, and the values that it kept, into one file, aside and then renamed."""
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.aside")
    kept = record.tensors if isinstance(record, KeptRecord) else {}
    tensors = {str(serial): tensor.contiguous().cpu() for serial, tensor in kept.items()}
    try:
        with zipfile.ZipFile(aside, "w") as archive:
            archive.writestr(_RECORD, _encoded(record), zipfile.ZIP_DEFLATED, 6)
            archive.writestr(_VALUES, packed(tensors), zipfile.ZIP_STORED)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def opened(path: str | os.PathLike[str]) -> KeptRecord:
    """The record that `save` wrote. Raises DataError for anything else."""
    target = Path(path)
    if not target.is_file():
        raise DataError(f"Record.load({str(path)!r}): no such file")
    try:
        with zipfile.ZipFile(target) as archive:
            names = {info.filename: info for info in archive.infolist()}
            if set(names) != {_RECORD, _VALUES}:
                raise DataError(f"{path} is no record: a record has {_RECORD} and {_VALUES}")
            if sum(info.file_size for info in names.values()) > _MOST_BYTES:
                raise DataError(f"{path} holds over {_MOST_BYTES >> 30} GiB: too much for a record")
            record = Record.from_json(archive.read(_RECORD))
            tensors = unpacked(archive.read(_VALUES))
            _check_places(record, tensors)
    except _BROKEN as error:
        raise DataError(f"{path} is no record: {error}; `record.save(path)` writes one") from error
    kept = {int(serial): tensor for serial, tensor in tensors.items()}
    return KeptRecord(**record_fields(record), tensors=kept)


def is_record(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file of this path that `save` may have written, whatever its name."""
    if not Path(path).is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {_RECORD, _VALUES} <= set(archive.namelist())


def _check_places(record: Record, tensors: dict[str, torch.Tensor]) -> None:
    """Raise ValueError where a number in a record points to nothing."""
    values, calls = range(len(record.values)), range(len(record.calls))
    modules, sites = range(len(record.modules)), range(len(record.sites))
    serials = [*record.inputs.values(), *record.outputs.values(), *record.statistics]
    for place, value in enumerate(record.values):
        good = value.serial == place and (value.producer == -1 or value.producer in calls)
        if not good or not (value.base == -1 or value.base in values):
            raise ValueError(f"value {place} points to what is not there")
    for place, call in enumerate(record.calls):
        serials += [*call.inputs, *call.outputs]
        if call.index != place or call.module not in modules or call.site not in sites:
            raise ValueError(f"call {place} points to what is not there")
    for place, module in enumerate(record.modules):
        serials += [*module.inputs, *module.outputs]
        if not -1 <= module.parent < place or not 0 <= module.first <= len(calls):
            raise ValueError(f"module call {place} points to what is not there")
    for layer in record.layers:
        if layer.affine not in calls or not (layer.activation == -1 or layer.activation in calls):
            raise ValueError(f"the layer {layer.module} points to what is not there")
    lost = next((serial for serial in serials if serial not in values), None)
    if lost is not None:
        raise ValueError(f"there is no value {lost}")
    for name, tensor in tensors.items():
        if not name.isdigit() or int(name) not in values:
            raise ValueError(f"{name!r} is the serial of no value")
        if tuple(tensor.shape) != record.values[int(name)].shape:
            raise ValueError(f"value {name} has another shape than the record says")
