"""Proof, before torch opens a `.pt2`, that the file is data.

`torch.export.load` trusts what it reads. Seen in torch 2.13: pickled members are loaded with
`weights_only=True` and, where that fails, without it (`torch._export.serde.serialize.
deserialize_torch_artifact`); weights and constants marked `use_pickle` and `opaque_obj_*` go to the
full unpickler at once, `custom_obj_*` to TorchBind (`torch.export.pt2_archive._package`);
`data/aotinductor/` is machine code that is loaded into the process; and the graph itself runs code
when it is read (see `graphs`). So a member that is not known to be harmless refuses the file.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any, Final

from forwardpass.errors import LoadError
from forwardpass.loading.graphs import UnsafeGraph, check_graph, check_payload_names
from forwardpass.loading.pickles import UnsafePickleError, opened

_TEXT: Final = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|\.format_version"
    r"|\.storage_alignment|extra/.*"
)
_GRAPH: Final = re.compile(r"models/[^/]+\.json")
_PAYLOADS: Final = re.compile(r"data/(?P<kind>weights|constants)/[^/]+_config\.json")
_RAW: Final = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_PICKLED: Final = re.compile(r"data/(sample_inputs|weights|constants)/[^/]+\.pt")
_NATIVE: Final = re.compile(r"data/aotinductor/.*|.*\.(so|dll|dylib|o|cubin|hsaco|spv)")


def refused(path: Path, why: str) -> LoadError:
    """The error for a `.pt2` that is not opened."""
    return LoadError(
        f"{path} was refused before it was opened: {why}. If you trust the file, load it in your "
        "own code: `model = torch.export.load(…).module()` in a file.py"
    )


def prove_data(path: Path) -> set[str]:
    """Prove that opening the `.pt2` at `path` cannot run code. LoadError names the member.

    Returns the names of the types that its inputs and outputs nest in.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _check(path, archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise LoadError(f"{path} is not a .pt2 archive: {error}") from error


def prove_pickles(path: Path) -> None:
    """Prove of a package of machine code that what is pickled in it is data. LoadError names the
    member that is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.partition("/")[2]
                if _RAW.fullmatch(name) or _NATIVE.fullmatch(name):
                    continue
                with archive.open(member) as file:
                    head = file.read(4)
                if _is_pickle(head):
                    check_pickle(path, name, archive.read(member))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise LoadError(f"{path} is no package of AOTInductor: {error}") from error


def _check(path: Path, archive: zipfile.ZipFile) -> set[str]:
    import torch

    members = archive.infolist()
    names = [member.filename for member in members]
    root = names[0].split("/")[0] + "/" if names else ""
    if any("/code/" in name for name in names) and any(n.endswith("constants.pkl") for n in names):
        raise LoadError(
            f"{path} is TorchScript, not an exported program; rename it to {path.stem}.pt"
        )
    if "serialized_exported_program.json" in names or "version" in names:
        raise refused(path, "it has the format of torch 2.7 and before, whose members are pickles")
    if f"{root}archive_format" not in names:
        raise LoadError(
            f"{path} is a zip archive, but not an exported program: no archive_format in it"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refused(path, f"its member {twice!r} is there twice")
    odd = next((name for name in names if not name.startswith(root) or ".." in name), None)
    if odd is not None:
        raise refused(path, f"its member {odd!r} lies outside {root!r}")
    packed = next((m.filename for m in members if m.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise refused(
            path, f"its member {packed!r} is compressed, which torch.export.save never does"
        )
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise refused(path, "its members together are larger than the file (a zip bomb)")
    # torch reads the archive with its own parser: both must see the same members, byte by byte.
    reader: Any = torch._C.PyTorchFileReader(str(path))  # pyright: ignore
    if sorted(reader.get_all_records()) != sorted(name[len(root) :] for name in names):
        raise refused(path, "two zip readers see different members in it")

    def content(name: str) -> bytes:
        data = archive.read(root + name)
        if reader.get_record(name) != data:
            raise refused(path, f"two zip readers see different content in {name!r}")
        return data

    records = sorted(name[len(root) :] for name in names)
    types: set[str] = set()
    raw = _raw_payloads(path, records, content)
    for name in records:
        if name in raw or _PAYLOADS.fullmatch(name):
            continue
        if _NATIVE.fullmatch(name):
            raise refused(path, f"its member {name!r} is machine code (AOTInductor)")
        if _GRAPH.fullmatch(name):
            try:
                types |= check_graph(_json(path, name, content(name)))
            except UnsafeGraph as error:
                raise refused(path, f"its graph {name!r} {error}") from error
        elif _TEXT.fullmatch(name) and not _is_pickle(content(name)):
            continue
        elif _PICKLED.fullmatch(name) or _is_pickle(content(name)):
            check_pickle(path, name, content(name))
            if not _PICKLED.fullmatch(name):
                raise refused(path, f"its member {name!r} is a pickle where none belongs")
        else:
            raise refused(path, f"its member {name!r} is none that an exported program has")
    return types


def _raw_payloads(path: Path, records: list[str], content: Any) -> set[str]:
    """Members that torch reads as plain bytes of tensors. Checks those that it unpickles."""
    raw: set[str] = set()
    for config in records:
        match = _PAYLOADS.fullmatch(config)
        if match is None:
            continue
        entries = _json(path, config, content(config)).get("config")
        if not isinstance(entries, dict):
            raise refused(path, f"its member {config!r} has no `config`")
        try:
            check_payload_names(entries)
        except UnsafeGraph as error:
            raise refused(path, f"its member {config!r} {error}") from error
        for entry in entries.values():
            name = f"data/{match['kind']}/{entry.get('path_name')}"
            if name not in records:
                raise refused(path, f"{config!r} names the member {name!r}, which is not there")
            if not _RAW.fullmatch(name):
                raise refused(
                    path, f"its member {name!r} is a custom object, which only unpickling makes"
                )
            if entry.get("use_pickle") is not False:
                check_pickle(path, name, content(name))
            raw.add(name)
    return raw


def check_pickle(path: Path, name: str, data: bytes) -> None:
    """Load a pickled member with `weights_only=True`, which runs nothing. Raises LoadError."""
    if not data:
        return
    try:
        opened(io.BytesIO(data), "cpu")
    except UnsafePickleError as error:
        raise refused(
            path, f"its member {name!r} is a pickle that does not load with weights_only=True"
        ) from error


def _is_pickle(data: bytes) -> bool:
    return data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05")


def _json(path: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise refused(path, f"its member {name!r} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise refused(
            path, f"its member {name!r} is a JSON {type(content).__name__}, not an object"
        )
    return content
