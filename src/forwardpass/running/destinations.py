"""What OUT means: a folder, a .npy file, standard output, or memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from forwardpass.errors import OutputExistsError, UsageError
from forwardpass.running.journals import Journal
from forwardpass.running.options import Options
from forwardpass.running.sinks import Sink
from forwardpass.running.sinks.json_lines import JsonLines
from forwardpass.running.sinks.memory import Memory
from forwardpass.running.sinks.npy_file import NpyFile
from forwardpass.running.sinks.parquet_folder import ParquetFolder

_FILES = {".parquet", ".jsonl", ".json", ".csv", ".tsv", ".npz", ".safetensors", ".txt", ".arrow"}


def opened(
    sink: str | os.PathLike[str] | None, options: Options, resume: bool
) -> tuple[Sink, Journal | None]:
    """The sink that `sink` means, and its journal where it has one.

    Raises UsageError for what is no destination, OutputExistsError for what is there already.
    """
    if sink is None or sink == "-":
        if resume:
            raise UsageError("--resume needs a folder or a .npy file: a stream keeps no manifest")
        return (Memory() if sink is None else JsonLines(sys.stdout.buffer)), None
    text = os.fspath(sink)
    if "://" in text:
        raise UsageError(f"{text}: results are written to local folders; copy them from there")
    path = Path(text)
    if path.suffix == ".npy":
        writer: Any = NpyFile(path)
        if options.keep:
            raise UsageError(
                f"{path} holds one output and no other columns, so --keep has no place in it; "
                "write to a folder"
            )
        if path.exists() and not (resume and writer.folder.is_dir()):
            raise OutputExistsError(f"{path} is there already; give another file, or remove it")
    elif path.suffix in _FILES:
        raise UsageError(
            f"{path}: results go to a folder of Parquet shards (a name without {path.suffix}), "
            "to NAME.npy, or to - (JSON lines on standard output)"
        )
    else:
        writer = ParquetFolder(path)
    try:
        journal = Journal.opened(writer.folder, resume)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}") from error
    finished = journal.finished is not None and path.suffix == ".npy"
    if finished and not path.exists():
        journal.close()
        raise UsageError(
            f"{path} was finished and is gone; remove {writer.folder} to compute it again"
        )
    return writer, journal
