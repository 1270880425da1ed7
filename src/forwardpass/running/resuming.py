"""What a manifest says a run is, and whether another run may go on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from forwardpass.building.engines import Engine
from forwardpass.errors import ResumeError
from forwardpass.measuring.machines import machine
from forwardpass.nouns.forwards import Forward
from forwardpass.preparing.preparing import Prepared
from forwardpass.reading import Source
from forwardpass.running.identity import digest
from forwardpass.running.journals import Header
from forwardpass.running.options import Options


class Identity:
    """What decides every value of a run: Forward, data, machine, options."""

    def __init__(self, forward: Forward, source: Source, options: Options, engine: Engine) -> None:
        self.forward = forward
        # now, before a row is encoded: an encoder may remember what it has seen
        self.forward_sha256 = digest(forward)
        self.source = source
        self.options = options
        device = str(engine.replicas[0].device)
        here = machine(device)
        here = msgspec.structs.replace(here, threads=engine.replicas[0].threads or here.threads)
        self.machine_digest = here.digest
        self.machine: dict[str, Any] = {**msgspec.to_builtins(here), "device": device}
        self.machine["devices"] = list(here.devices)
        del self.machine["memory_bytes"]  # decides no value, and changes from day to day

    @property
    def costs_key(self) -> dict[str, Any]:
        """What measured costs belong to: the same model on the same machine."""
        return {"forward": self.forward_sha256, "machine": self.machine_digest}

    def header(self, engine: Engine, prepared: Prepared | None) -> Header:
        """The first line of the manifest."""
        signature = engine.signature
        return Header(
            forward=str(self.forward),
            forward_sha256=self.forward_sha256,
            data=self.source.identity(),
            machine=self.machine,
            options=self.options.to_json(),
            inputs=[str(item) for item in signature.inputs] if signature else [],
            outputs=[str(item) for item in signature.outputs] if signature else [],
            paddable=list(prepared.paddable) if prepared else [],
            padding=prepared.padding if prepared else "",
            costs=prepared.costs if prepared else None,
        )

    def require(self, header: Header, folder: Path) -> None:
        """Raise ResumeError, saying what differs, unless `header` began this very run."""
        differences: list[str] = []
        if header.forward_sha256 != self.forward_sha256:
            now = str(self.forward)
            same = header.forward == now
            differences.append(
                f"the Forward has other weights, code or signature than {now!r} had then"
                if same
                else f"the Forward was {header.forward!r}, is {now!r}"
            )
        for kind, then, now_ in (
            ("machine", header.machine, self.machine),
            ("options", header.options, self.options.to_json()),
        ):
            differences += [
                f"{kind}: {name} was {then.get(name)!r}, is {value!r}"
                for name, value in now_.items()
                if then.get(name) != value
            ]
        data = self.source.identity()
        if data != header.data:
            differences.append(f"the data: {_difference(header.data, data)}")
        if differences:
            raise ResumeError(
                f"{folder} was begun by another run, and going on would mix their results. "
                f"What differs: {'; '.join(differences)}. Run it as it was, or give another folder"
            )


def _difference(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """The first thing in which two identities of data differ."""
    if len(then) != len(now):
        return f"{len(then)} files then, {len(now)} now"
    for old, new in zip(then, now, strict=True):
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                where = f"{new['path']}: " if "path" in new and name != "path" else ""
                return f"{where}{name} was {old.get(name)!r}, is {new.get(name)!r}"
    return "their form"


def restored(header: Header, engine: Engine) -> Prepared | None:
    """What the manifest of an earlier run says was prepared."""
    if header.costs is None:
        return None
    return Prepared(engine, tuple(header.paddable), header.padding, header.costs)
