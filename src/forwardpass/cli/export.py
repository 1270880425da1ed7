"""fwd export: one folder that computes the same without the source."""

from __future__ import annotations

from typing import Any

import click

from forwardpass.cli.options import Verb, said, show, signature, signed, trusted
from forwardpass.cli.pages import look, shown
from forwardpass.errors import UsageError


@click.command(cls=Verb)
@click.argument("forward")
@click.option("-o", "--out", metavar="NAME.fwd", help="The folder to write.")
@click.option(
    "--format", "bare", metavar="FORMAT FILE", nargs=2,
    type=(click.Choice(["onnx", "openvino", "pt2", "torchscript"]), str),
    help="In place of a folder, the bare file: onnx, openvino, pt2, torchscript.",
)  # fmt: skip
@click.option(
    "--calibrate", metavar="DATA",
    help="Rows to go by, as `fwd run` reads them; else some are drawn.",
)  # fmt: skip
@signature
@trusted
@shown
@click.option("--quiet", "-q", is_flag=True, help="No progress; errors only.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(
    forward: str, out: str | None, bare: tuple[Any, str] | None, calibrate: str | None,
    signature: tuple[str, ...], trust: Any, quiet: bool, as_json: bool, page: bool,
) -> None:  # fmt: skip
    """Write FORWARD as one folder that computes the same without its source.

    \b
    The backend of FORWARD decides what is written:
      @ onnxruntime   ONNX             @ eager      .pt2, or a trace
      @ openvino      OpenVINO's IR    @ inductor   .pt2, compiled when opened
      @ torchscript   a trace          @ aot        machine code
                                       @ pt2e       the same, layers in int8

    What was written computes batches of other sizes beside the model, or it is refused. `fwd run
    NAME.fwd DATA` computes with it.
    """
    if (out is None) == (bare is None):
        raise UsageError("export takes -o NAME.fwd, or --format FORMAT FILE in its place")
    format, place = (None, str(out)) if bare is None else bare
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet)
    from forwardpass.exporting import export as written
    from forwardpass.loading import load
    from forwardpass.showing.live import logged

    loaded = signed(load(forward, trust=trust), signature)
    console.print(said(loaded), style="dim", highlight=False, markup=False)
    with console.status("writing") as status, logged(status.update):
        artefact = written(loaded, place, calibrate=calibrate, format=format)
    show(artefact, as_json=as_json)
    if page:
        look(artefact, loaded, source=calibrate)
