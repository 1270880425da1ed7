"""fwd: one command a verb, each a thin call; a file each."""

from __future__ import annotations

import os
from typing import Any

import click

from forwardpass.cli.check import check
from forwardpass.cli.diff import diff
from forwardpass.cli.explain import explain
from forwardpass.cli.export import export
from forwardpass.cli.profile import profile
from forwardpass.cli.record import record
from forwardpass.cli.run import run
from forwardpass.cli.serve import serve
from forwardpass.cli.tune import tune
from forwardpass.errors import Escaped, ForwardpassError, PassError, contained

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_FIRST = """\
fwd: the forward pass of any PyTorch model. Three to try first:

  fwd record net.py                  the pass as it happened, operator by operator
  fwd check net.py                   what is wrong with it
  fwd run net.py rows.csv -o out     the pass for every row of your data

net.py holds your model, as `model = Net()`. It may be a folder of transformers, too,
hf:org/name, or a .pt2. `fwd --help` lists all; `fwd record --help` has its options."""


class _Group(click.Group):
    """Turns our errors into one message and the exit code of their class."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with contained():
                return super().invoke(ctx)
        except Escaped as error:
            click.echo(f"fwd: user code ended the command before its end: {error}", err=True)
            ctx.exit(PassError.exit_code)
        except ForwardpassError as error:
            if os.environ.get("FORWARDPASS_TRACEBACK"):
                raise
            click.echo(f"fwd: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("fwd: interrupted", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings=_CONTEXT, invoke_without_command=True)
@click.version_option(package_name="forwardpass", prog_name="fwd")
@click.pass_context
def main(ctx: click.Context) -> None:
    """The forward pass of any PyTorch model.

    \b
    FORWARD is a reference and, if you like, a plan:
      model.py          its `model`           model.py:name    a name in it
      package.mod:name  a name in a module    pkg:package/dir  a folder in a package
      folder/           transformers or sentence-transformers
      hf:org/name@rev   from the hub          model.pt2, model.pt (TorchScript)
      NAME.fwd          what `fwd export` wrote
      "model.py | cast(bf16) @ eager(device=cuda:0, threads=2)"

    Exit codes: 0 fine; 1 not valid; 2 usage; 3 model or data not loadable; 4 the forward pass
    raised; 5 rows were left out; 130 interrupted. FORWARDPASS_TRACEBACK=1 shows where an error
    arose.
    """
    if ctx.invoked_subcommand is None:
        click.echo(_FIRST)


for _command in (record, explain, check, diff, profile, tune, export, run, serve):
    main.add_command(_command)
